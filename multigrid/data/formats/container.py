"""Containers: files that give named arrays with attributes, opened without running any code."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import prod
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np

from multigrid.errors import UserError, nearest

MAX_RATIO = 200
ALWAYS_ALLOWED = 2**26
NUM_LISTED = 12
SEAL = b"\nmultigrid, SHA-256 of all before: "

StoredArray: TypeAlias = Any
"""An array on disk or in memory, with ``shape`` and ``dtype``, read by a tuple of slices."""

Arrays = Callable[[str], StoredArray]
"""The arrays of an open container, by name."""


@dataclass(frozen=True)
class ArrayInfo:
    """What is known of an array before it is read; ``dims`` are the names of its axes."""

    shape: tuple[int, ...]
    dtype: np.dtype
    attributes: Mapping[str, Any] = field(default_factory=dict)
    dims: tuple[str, ...] = ()
    is_coordinate: bool = False


class Container(ABC):
    """A file of named arrays. Nothing stays open between two reads.

    Attributes:
        path: The file.
        attributes: Attributes of the file.
        names: Names of its arrays; ``group/name`` within groups.
    """

    kind: ClassVar[str]
    noun: ClassVar[str] = "array"
    attributes: Mapping[str, Any] = {}
    names: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.paths: tuple[Path, ...] = (path,)
        self._stacks: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._name_set

    @cached_property
    def _name_set(self) -> frozenset[str]:
        return frozenset(self.names)

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The names within each top-level group."""
        groups: dict[str, list[str]] = {}
        for name in self.names:
            group, slash, rest = name.partition("/")
            if slash:
                groups.setdefault(group, []).append(rest)
        return groups

    def group_attributes(self, group: str) -> Mapping[str, Any]:
        """Returns the attributes of a group."""
        return {}

    @abstractmethod
    def _info(self, name: str) -> ArrayInfo:
        """Returns what is known of an array of the file."""

    def chunk(self, name: str) -> int | None:
        """Returns how many values have to be decompressed together, None if they are not packed."""
        return None

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Opens the file; gives what :meth:`_array` takes."""
        yield None

    @abstractmethod
    def _array(self, opened: Any, name: str, check: bool) -> StoredArray:
        """Returns an array of an open file; ``check`` asks whether it is complete."""

    def info(self, name: str) -> ArrayInfo:
        """Returns what is known of an array."""
        if name in self._stacks:
            members, item = self._stacks[name]
            return ArrayInfo((len(members), *item), self._info(members[0]).dtype)
        if name in self:
            return self._info(name)
        if name in self.groups:
            raise UserError(f"{self.path}: '{name}' is a group, not a {self.noun}")
        raise UserError(
            f"{self.path}: there is no {self.noun} '{name}'; the file holds "
            f"{self.contents()}{nearest(name, self.names)}"
        )

    @cached_property
    def readable(self) -> dict[str, ArrayInfo]:
        """All arrays of which something is known."""
        infos = {}
        for name in self.names:
            try:
                infos[name] = self._info(name)
            except UserError:
                continue
        return infos

    @property
    def coordinates(self) -> frozenset[str]:
        """Names of the arrays that only say where the points of an axis lie."""
        return frozenset(n for n, info in self.readable.items() if info.is_coordinate)

    def numeric(self) -> dict[str, ArrayInfo]:
        """Returns the readable arrays of real numbers that are not coordinates."""
        infos = self.readable.items()
        return {n: i for n, i in infos if i.dtype.kind in "fiub" and not i.is_coordinate}

    def stack(self, name: str, members: Sequence[str], item: tuple[int, ...] | None = None) -> str:
        """Makes an array ``[len(members), *item]`` of several alike, under a new name."""
        first = self.info(members[0]).shape
        for member in members:
            shape = self.info(member).shape
            if shape != first:
                raise UserError(
                    f"{self.path}: '{member}' {list(shape)} and '{members[0]}' {list(first)} "
                    "disagree"
                )
        self._stacks[name] = tuple(members), item or first
        return name

    def members(self, name: str) -> tuple[str, ...]:
        """Returns the names in the file that an array is made of."""
        return self._stacks[name][0] if name in self._stacks else (name,)

    @contextmanager
    def open(self, check: bool = False) -> Iterator[Arrays]:
        """Gives the file's arrays by name; ``check`` refuses those never written in full."""
        with self._opened() as opened:

            @cache
            def array(name: str) -> StoredArray:
                if name not in self._stacks:
                    return self._array(opened, name, check)
                for member in self.members(name) if check else ():
                    array(member)
                return _Stack(array, *self._stacks[name])

            yield array

    def read(self, name: str) -> np.ndarray:
        """Returns a whole array."""
        with self.open(check=True) as arrays:
            return np.asarray(arrays(name)[()])

    def contents(self) -> str:
        """Returns the arrays with their shapes as text, a bounded number of them."""
        listed = [
            f"{name} {list(self.readable[name].shape)}" if name in self.readable else name
            for name in self.names[:NUM_LISTED]
        ]
        return ", ".join(listed + ["..."] * (len(self.names) > NUM_LISTED)) or "no datasets"


@dataclass
class _Stack:
    """Several arrays as one, read one after the other."""

    arrays: Arrays
    members: tuple[str, ...]
    item: tuple[int, ...]

    def __getitem__(self, index: tuple[Any, ...]) -> np.ndarray:
        chosen = map(self.arrays, self.members[index[0]])
        alike = (a if a.shape == self.item else np.reshape(a[()], self.item) for a in chosen)
        return np.stack([np.asarray(array[index[1:]]) for array in alike])


# --- checks before any library opens a file ---


def require_regular_file(path: Path) -> None:
    """Raises a UserError unless a path leads to a regular file: a pipe would never end."""
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder, but a data file is needed")
        if not path.exists():
            raise UserError(f"{path}: there is no such file{_neighbours(path)}")
        if not path.is_file():
            raise UserError(f"{path}: is not a regular file")
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor a folder '{path.parent}')"
    names = sorted(item.name for item in path.parent.iterdir() if item.suffix == path.suffix)
    more = ", ..." if len(names) > 5 else ""
    return f"; the folder holds {', '.join(names[:5])}{more}" if names else ""


def stamp(path: Path) -> tuple[int, int, int]:
    """Returns size, time of change and inode of a file: another state has another stamp."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: can no longer be read: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns, status.st_ino


def seal(path: Path) -> None:
    """Writes a checksum of a file behind its end, where HDF5 does not look."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    with path.open("ab") as file:
        file.write(SEAL + digest)


def is_sealed(path: Path) -> bool | None:
    """Whether the checksum behind the end of a file is right; None if there is none."""
    with path.open("rb") as file:
        left = file.seek(0, 2) - len(SEAL) - 32
        file.seek(max(left, 0))
        tail = file.read()
        if not tail.startswith(SEAL):
            return None
        digest = hashlib.sha256()
        file.seek(0)
        while part := file.read(min(left, 2**22)):
            digest.update(part)
            left -= len(part)
    return digest.digest() == tail[len(SEAL) :]


def first_bytes(path: Path, count: int) -> bytes:
    """Returns the first bytes of a file."""
    with path.open("rb") as file:
        return file.read(count)


def require_honest_size(path: Path, name: str, shape: Sequence[int], itemsize: int) -> None:
    """Raises a UserError if an array declares far more bytes than a file could have compressed."""
    declared, stored = prod(shape) * itemsize, path.stat().st_size
    if declared > max(ALWAYS_ALLOWED, MAX_RATIO * stored):
        raise UserError(
            f"{path}: '{name}' declares {declared:,} bytes, {declared // max(stored, 1):,} times "
            "the size of the file, which no field data compresses to"
        )


def require_numbers(path: Path, name: str, dtype: np.dtype) -> None:
    """Raises a UserError unless an array holds real numbers or booleans."""
    if dtype.kind not in "fiub":
        raise UserError(f"{path}: '{name}' holds {dtype}, but real numbers are needed")


def plain_attributes(items: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns the attributes that are plain numbers and text; what cannot be read is left out."""
    attributes = {}
    for name in items:
        try:
            value = plain(items[name])
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError):
            continue
        if value is not None:
            attributes[str(name)] = value
    return attributes


def plain(value: Any) -> Any:
    """Returns an attribute as plain numbers and text, None if it is neither."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in "fiubSUO" or value.size > 64:
            return None
        value = value.tolist()
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) else None
