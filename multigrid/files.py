"""Result files that are whole or not there at all, checksums, and JSON that every reader takes.

Every file of a run but its log and its journal goes through the operations at the end, which is
where tests make disks fail.
"""

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from multigrid.errors import UserError, brief, nearest

PART = ".part"


def path_of(name: str | Path) -> Path:
    """Returns where a file lies by the name that a user gives it: as it stands, or :func:`expand`.

    Raises:
        UserError: If an environment variable is not set, or there is no such user.
    """
    path = Path(os.path.expanduser(name))  # noqa: PTH111 (passes over users that there are not)
    if os.path.exists(path):  # noqa: PTH110 (whatever letters are in its name, or how many)
        return path
    try:
        return Path(expand(str(name)))
    except ValueError as error:
        raise UserError(str(error)) from None


def expand(name: str) -> str:
    """Returns the name of a file with ``~`` and environment variables replaced.

    Raises:
        ValueError: If there is no such variable or user, or the name has control characters.
    """
    expanded = os.path.expanduser(name)  # noqa: PTH111 (keeps ./ and final /)
    if expanded.startswith("~"):
        user = expanded[1:].partition("/")[0]
        raise ValueError(f"there is no user '{user}', in whose home folder '{name}' would be")
    expanded = os.path.expandvars(expanded)
    if unset := re.search(r"\$(\w+|\{\w+\})", expanded):
        raise ValueError(f"the environment variable {unset[0]} in '{expanded}' is not set")
    if not expanded.isprintable():
        name = json.dumps(expanded)
        raise ValueError(f"{name} has control characters, which names of files must not")
    return expanded


def write_file(path: Path, content: bytes, previous: Path | None = None) -> None:
    """Writes a file as :func:`written_aside` does, and reads it back before it gets its name."""
    with written_aside(path, previous) as aside:
        with aside.open("wb") as file:
            write(file, content)
        if read_back(aside) != content:
            raise OSError(errno.EIO, "what was written reads back differently")


def write_text(path: Path, text: str) -> None:
    """Writes a text file as :func:`write_file` does."""
    write_file(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes plain containers as JSON with a checksum, as :func:`write_file` does.

    The checksum takes the place of one that they were read with.
    """
    unsealed = {key: item for key, item in value.items() if key != "checksum"}
    write_text(path, seal(to_json(unsealed, indent=2).removesuffix("\n}"), JSON))


def read_json(path: Path) -> Any:
    """Reads JSON and verifies its checksum, if it has one; raises UserError if it is damaged."""
    try:
        text = path.read_text(encoding="utf-8")
        unseal(text, JSON)
        return json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: unreadable or half-written ({brief(error)})") from None


Seal = tuple[str, str]
"""What stands before and after the checksum of a text."""

JSON: Seal = (',\n  "checksum": "', '"\n}\n')
JSON_LINE: Seal = (', "checksum": "', '"}')
YAML: Seal = ("# checksum: ", "\n")


def require_run(path: Path, found: str, run: str) -> None:
    """Refuses a file that names another run than the one that it is read as a part of.

    Files of earlier versions name none, and where no run is known there is nothing to compare.
    """
    if found and run and found != run:
        raise UserError(f"{path}: is of another run than the config.yaml of its folder")


def seal(text: str, form: Seal) -> str:
    """Returns a text with its checksum behind it."""
    return text + form[0] + checksum(text) + form[1]


def unseal(text: str, form: Seal) -> str:
    """Returns a text without its checksum, if it has one; raises ValueError if that is wrong."""
    body, mark, rest = text.rpartition(form[0])
    if mark and rest != checksum(body) + form[1]:
        raise ValueError("its checksum is wrong: damaged, or changed since it was written")
    return body if mark else text


def checksum(text: str) -> str:
    """Returns 16 digits that tell a text from others."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def to_json(value: Any, indent: int | None = None) -> str:
    """Returns plain containers as JSON, with null for numbers that are not finite."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


@contextmanager
def written_aside(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Yields where to write a file, which then gets its name; a failure leaves nothing behind.

    The file that was there before is kept as ``previous``, or replaced. The folder must exist.

    Raises:
        UserError: If it cannot be written; a file already there is untouched.
    """
    aside = path.with_name(path.name + PART)
    try:
        yield aside
        sync(aside)
        kept = previous if previous is not None and path.exists() else None
        if kept is not None:
            rename(path, kept)
        try:
            rename(aside, path)
        except OSError:
            if kept is not None:
                rename(kept, path)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {reason(error)}") from None
    finally:
        discard(aside)


def reason(error: OSError) -> str:
    """Returns what the system says of a file, without the state that HDF5 adds."""
    return brief(OSError(error.strerror)) if error.strerror else brief(error)


def require_space(folder: Path, num_bytes: int) -> None:
    """Raises OSError if a folder's disk has less space, which HDF5 and memory maps tell badly."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        need = f"{num_bytes / 1e9:.3g} GB are needed, {free / 1e9:.3g} GB are free"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {need}")


def reserve(path: Path, num_bytes: int) -> None:
    """Has a file own so many bytes of the disk; it is made, or made longer, if need be.

    What a full disk, a quota or a limit of file sizes refuses is an OSError then, where HDF5 would
    print tracebacks and a memory map end the process. Systems without such a call do nothing.
    """
    if not hasattr(os, "posix_fallocate") or not num_bytes:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):  # no such call here
            raise
    finally:
        os.close(descriptor)


def discard(aside: Path) -> None:
    """Removes what may be left of a file that could not be written."""
    with suppress(OSError):  # the folder is read-only or gone: the error that led here says more
        aside.unlink(missing_ok=True)


def write(file: BinaryIO, content: bytes) -> None:
    """Writes all of the content."""
    file.write(content)


def sync(path: Path) -> None:
    """Has what was written reach the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def read_back(path: Path) -> bytes:
    """Returns the content of a file."""
    return path.read_bytes()


def rename(source: Path, target: Path) -> None:
    """Gives a file its name, in one step."""
    source.replace(target)


def sync_folder(folder: Path) -> None:
    """Has renamed files reach the disk, where the system can do that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # Windows opens no folders
    with suppress(OSError):  # some network file systems refuse
        os.fsync(descriptor)
    os.close(descriptor)


def nearest_file(path: Path, *patterns: str) -> str:
    """Hints at what is there, of files or folders that fit a pattern, instead of a missing path."""
    parent = path.parent
    if not parent.is_dir():
        return f" (nor a folder '{parent}')"
    fitting = (place for pattern in patterns for place in sorted(parent.glob(pattern)))
    return nearest(path.name, [place.relative_to(parent).parts[0] for place in fitting])
