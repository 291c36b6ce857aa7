"""Writing result files so that each is whole or not there at all.

All files of a run but its log go through the few operations at the end, which is where tests
make disks fail.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

PART = ".part"


def write_file(path: Path, content: bytes, previous: Path | None = None) -> None:
    """Writes a file aside, flushes it to disk, reads it back and renames it into place.

    Args:
        path: Target file; its folder must exist.
        content: What to write.
        previous: Where to keep what has been there before; by default it is replaced.

    Raises:
        OSError: If it cannot be written; a file already there is untouched.
    """
    aside = path.with_name(path.name + PART)
    try:
        with create(aside) as file:
            write(file, content)
            sync(file)
        if read_back(aside) != content:
            raise OSError(errno.EIO, "what was written reads back differently")
        _put_in_place(aside, path, previous)
        sync_folder(path.parent)
    except BaseException:
        discard(aside)
        raise


def _put_in_place(aside: Path, path: Path, previous: Path | None) -> None:
    """Gives a new file its name; where that fails, the old file gets its own back."""
    moved = previous is not None and path.exists()
    if previous is not None and moved:
        rename(path, previous)
    try:
        rename(aside, path)
    except OSError:
        if previous is not None and moved:
            rename(previous, path)
        raise


def discard(aside: Path) -> None:
    """Removes what is left of a file that could not be written."""
    with suppress(OSError):  # the folder is read-only or gone: the error that led here says more
        aside.unlink(missing_ok=True)


def create(path: Path) -> BinaryIO:
    """Opens a file for writing."""
    return path.open("wb")


def write(file: BinaryIO, content: bytes) -> None:
    """Writes all of the content."""
    file.write(content)


def sync(file: BinaryIO) -> None:
    """Has what was written reach the disk."""
    file.flush()
    os.fsync(file.fileno())


def read_back(path: Path) -> bytes:
    """Returns what a file holds."""
    return path.read_bytes()


def rename(source: Path, target: Path) -> None:
    """Gives a file its name, in one step."""
    source.replace(target)


def sync_folder(folder: Path) -> None:
    """Has renamed files reach the disk, where the system knows how."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # Windows opens no folders
    with suppress(OSError):  # some network file systems refuse
        os.fsync(descriptor)
    os.close(descriptor)
