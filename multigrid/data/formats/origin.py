"""What can be said of a file before any library opens it."""

from dataclasses import dataclass
from pathlib import Path

from multigrid.errors import UserError

MAX_RATIO = 200
ALWAYS_ALLOWED = 2**26


def require_regular_file(path: Path) -> None:
    """Raises a UserError unless a path leads to a regular file that can be read.

    Pipes and devices would make a reader wait for ever.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder, but a data file is needed")
        if not path.exists():
            raise UserError(f"{path}: there is no such file{_neighbours(path)}")
        if not path.is_file():
            raise UserError(f"{path}: is no regular file")
        with path.open("rb"):
            pass
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor a folder '{path.parent}')"
    names = sorted(item.name for item in path.parent.iterdir() if item.suffix == path.suffix)
    more = ", ..." if len(names) > 5 else ""
    return f"; the folder holds {', '.join(names[:5])}{more}" if names else ""


@dataclass(frozen=True)
class Stamp:
    """What tells a file from a changed one under the same name, without reading it."""

    size: int
    modified: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """Returns the stamp of a file as it is now.

        Raises:
            UserError: If it is no longer there.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise UserError(f"{path}: can no longer be read: {error.strerror}") from None
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)

    def require(self, path: Path) -> None:
        """Raises a UserError if a file is no longer there or no longer the same."""
        if Stamp.of(path) != self:
            raise UserError(f"{path}: has changed since it was opened; leave it alone meanwhile")


def first_bytes(path: Path, count: int = 8) -> bytes:
    """Returns the first bytes of a file."""
    with path.open("rb") as file:
        return file.read(count)


def require_honest_size(path: Path, name: str, declared: int, stored: int) -> None:
    """Raises a UserError if an array declares far more bytes than a file could have compressed."""
    if declared > max(ALWAYS_ALLOWED, MAX_RATIO * stored):
        raise UserError(
            f"{path}: '{name}' declares {declared:,} bytes, {declared // max(stored, 1):,} times "
            "the size of the file, which no field data compresses to"
        )
