"""Containers: files that give named arrays with attributes, opened without running any code."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from multigrid.errors import UserError, nearest

MAX_RATIO = 200
ALWAYS_ALLOWED = 2**26
NUM_LISTED = 12


class StoredArray(Protocol):
    """An array on disk or in memory, read by a tuple of slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> np.dtype:
        """Its number type."""

    def __getitem__(self, index: Any) -> Any: ...


@dataclass(frozen=True)
class ArrayInfo:
    """What is known of an array before it is read.

    Attributes:
        shape: Its shape.
        dtype: Its number type.
        attributes: Its attributes that are numbers, strings or short lists of these.
        dims: Names of its axes, if the file has names for them.
        is_coordinate: Whether it only says where the points of an axis lie.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    attributes: Mapping[str, Any] = field(default_factory=dict)
    dims: tuple[str, ...] = ()
    is_coordinate: bool = False

    @property
    def is_numeric(self) -> bool:
        """Whether it holds real numbers or booleans."""
        return self.dtype.kind in "fiub"


class Container(ABC):
    """A file of named arrays. Nothing stays open between two reads.

    Args:
        path: The file.

    Attributes:
        attributes: Attributes of the file.
        names: Names of its arrays; ``group/name`` within groups.
    """

    kind: ClassVar[str]
    noun: ClassVar[str] = "array"
    attributes: Mapping[str, Any] = {}
    names: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stacks: dict[str, tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._name_set

    @cached_property
    def _name_set(self) -> frozenset[str]:
        return frozenset(self.names)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that are read."""
        return (self.path,)

    @property
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

    @abstractmethod
    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Opens the file; gives what :meth:`_array` takes."""

    @abstractmethod
    def _array(self, opened: Any, name: str, check: bool) -> StoredArray:
        """Returns an array of an open file; ``check`` asks whether it is complete."""

    def info(self, name: str) -> ArrayInfo:
        """Returns what is known of an array.

        Raises:
            UserError: If there is no such array, or it lies in another file or is damaged.
        """
        if name in self._stacks:
            members, lead, item = self._stacks[name]
            return ArrayInfo((*lead, *item), self._info(members[0]).dtype)
        if name not in self:
            if any(other.startswith(f"{name}/") for other in self.names):
                raise UserError(f"{self.path}: '{name}' is a group, not a {self.noun}")
            raise UserError(
                f"{self.path}: there is no {self.noun} '{name}'; the file holds "
                f"{self.contents()}{nearest(name, self.names)}"
            )
        return self._info(name)

    def is_coordinate(self, name: str) -> bool:
        """Whether an array of the file only says where the points of an axis lie."""
        try:
            return name in self and self.info(name).is_coordinate
        except UserError:
            return False

    def numeric(self) -> dict[str, ArrayInfo]:
        """Returns the readable arrays of real numbers that are not coordinates."""
        infos = {}
        for name in self.names:
            try:
                info = self.info(name)
            except UserError:
                continue
            if info.is_numeric and not info.is_coordinate:
                infos[name] = info
        return infos

    def stack(
        self,
        name: str,
        members: Sequence[str],
        lead: tuple[int, ...] | None = None,
        item: tuple[int, ...] | None = None,
    ) -> str:
        """Makes one array of several alike, under a new name.

        Args:
            name: The new name.
            members: Names of the arrays, in order.
            lead: Shape of the new leading axes; by default one axis.
            item: Shape to give to each array; by default its own.

        Raises:
            UserError: If the arrays have different shapes.
        """
        first = self.info(members[0]).shape
        for member in members:
            shape = self.info(member).shape
            if shape != first:
                raise UserError(
                    f"{self.path}: '{member}' {list(shape)} and '{members[0]}' {list(first)} "
                    "disagree"
                )
        if item is not None and prod(item) != prod(first):
            raise UserError(f"{self.path}: '{members[0]}' {list(first)} is not {list(item)}")
        self._stacks[name] = (
            tuple(members),
            lead or (len(members),),
            first if item is None else item,
        )
        return name

    def members(self, name: str) -> tuple[str, ...]:
        """Returns the names in the file that an array is made of."""
        return self._stacks[name][0] if name in self._stacks else (name,)

    @contextmanager
    def open(self, check: bool = False) -> Iterator["Arrays"]:
        """Opens the file for reading.

        Args:
            check: Whether to refuse arrays that were never written in full.

        Raises:
            UserError: If the file, or what is read from it in the context, is damaged.
        """
        with self._opened() as opened:
            yield Arrays(self, opened, check)

    def read(self, name: str) -> np.ndarray:
        """Returns a whole array."""
        with self.open(check=True) as arrays:
            array = arrays[name]
            return np.asarray(array[(slice(None),) * len(array.shape)])

    def contents(self) -> str:
        """Returns the arrays with their shapes as text, a bounded number of them."""
        listed = []
        for name in self.names[:NUM_LISTED]:
            try:
                listed.append(f"{name} {list(self.info(name).shape)}")
            except UserError:
                listed.append(name)
        more = ["..."] if len(self.names) > NUM_LISTED else []
        return ", ".join([*listed, *more]) or "no datasets"


class Arrays:
    """The arrays of an open container, by name."""

    def __init__(self, container: Container, opened: Any, check: bool) -> None:
        self._container = container
        self._opened = opened
        self._check = check
        self._opened_arrays: dict[str, StoredArray] = {}

    def __getitem__(self, name: str) -> StoredArray:
        if name not in self._opened_arrays:
            self._opened_arrays[name] = self._open(name)
        return self._opened_arrays[name]

    def _open(self, name: str) -> StoredArray:
        container = self._container
        if name not in container._stacks:
            return container._array(self._opened, name, self._check)
        members, lead, item = container._stacks[name]
        if self._check:
            for member in members:
                container._array(self._opened, member, True)
        return _Stack(self, members, lead, item)


class _Stack:
    """Several arrays alike as one, ``[*lead, *item]``."""

    def __init__(
        self, arrays: Arrays, members: Sequence[str], lead: tuple[int, ...], item: tuple[int, ...]
    ) -> None:
        self.arrays, self.members = arrays, members
        self.lead, self.item = lead, item
        self.shape = (*lead, *item)
        self.dtype = arrays[members[0]].dtype

    def __getitem__(self, index: tuple[Any, ...]) -> np.ndarray:
        count, rest = len(self.lead), index[len(self.lead) :]
        numbers = np.arange(len(self.members)).reshape(self.lead)[index[:count]]
        parts = [self._part(self.arrays[self.members[number]], rest) for number in numbers.flat]
        return np.reshape(parts, (*numbers.shape, *np.shape(parts)[1:]))

    def _part(self, array: StoredArray, index: tuple[Any, ...]) -> np.ndarray:
        if array.shape == self.item:
            return np.asarray(array[index])
        whole = array[(slice(None),) * len(array.shape)]
        return np.asarray(np.reshape(whole, self.item)[index])


# --- checks before any library opens a file ---


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
            raise UserError(f"{path}: is not a regular file")
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
    """Identifies the state of a file, without reading it."""

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
            raise UserError(f"{path}: has changed since it was opened; keep it as it is in a run")


SEAL = b"\nmultigrid, SHA-256 of all before: "


def read_seal(path: Path) -> bytes | None:
    """Returns the checksum behind the end of a file, None if there is none."""
    size = len(SEAL) + 32
    with path.open("rb") as file:
        if file.seek(0, 2) < size:
            return None
        file.seek(-size, 2)
        tail = file.read()
    return tail[-32:] if tail.startswith(SEAL) else None


def file_digest(path: Path, stop: int | None = None) -> bytes:
    """Returns the SHA-256 of the first ``stop`` bytes of a file, or of all."""
    digest = hashlib.sha256()
    left = path.stat().st_size if stop is None else stop
    with path.open("rb") as file:
        while left and (part := file.read(min(left, 2**22))):
            digest.update(part)
            left -= len(part)
    return digest.digest()


def is_intact(path: Path) -> bool:
    """Whether a file has no checksum behind its end, or the right one."""
    expected = read_seal(path)
    stop = path.stat().st_size - len(SEAL) - 32
    return expected is None or file_digest(path, stop) == expected


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


def require_numbers(path: Path, name: str, dtype: np.dtype) -> None:
    """Raises a UserError unless an array holds real numbers or booleans."""
    if dtype.kind not in "fiub":
        raise UserError(f"{path}: '{name}' holds {dtype}, but real numbers are needed")


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
