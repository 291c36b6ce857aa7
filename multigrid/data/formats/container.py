"""Containers: files that give named arrays with attributes, opened without running any code."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from multigrid.errors import UserError, nearest
from multigrid.files import nearest_file

MAX_RATIO = 200
ALWAYS_ALLOWED = 2**26
NUM_LISTED = 12
NUMBERS = "fiub"  # kinds of real numbers and booleans in NumPy

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


class Container:
    """A file of named arrays, of which one of an unknown format has none.

    Nothing stays open between two reads.

    Attributes:
        path: The file.
        attributes: Attributes of the file.
        group_attributes: Attributes of each of its groups.
        names: Names of its arrays; ``group/name`` within groups.
        is_matlab: Whether MATLAB has written it, though another program may have copied it.
    """

    kind = "unknown"
    noun = "array"
    is_matlab = False
    attributes: Mapping[str, Any] = {}
    group_attributes: Mapping[str, Mapping[str, Any]] = {}
    names: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.paths: tuple[Path, ...] = (path,)
        self._infos: dict[str, ArrayInfo] = {}
        self._members: dict[str, tuple[str, ...]] = {}

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

    def _describe(self, name: str) -> ArrayInfo:
        """Returns what is known of an array of the file; called once for each."""
        raise NotImplementedError

    def chunk(self, name: str) -> int:
        """Returns how many values have to be decompressed together."""
        return 1

    def _opened(self) -> AbstractContextManager[Any]:
        """Opens the file; gives what :meth:`_array` takes."""
        return nullcontext()

    def _array(self, opened: Any, name: str) -> StoredArray:
        """Returns an array of an open file; refuses one that was never written in full."""
        raise NotImplementedError

    def info(self, name: str) -> ArrayInfo:
        """Returns what is known of an array."""
        if name in self._infos:
            return self._infos[name]
        if name in self.groups:
            raise UserError(f"{self.path}: '{name}' is a group, not a {self.noun}")
        if name not in self:
            raise UserError(
                f"{self.path}: there is no {self.noun} '{name}'; the file holds "
                f"{self.contents()}{nearest(name, self.names)}"
            )
        self._infos[name] = self._describe(name)
        return self._infos[name]

    @cached_property
    def readable(self) -> dict[str, ArrayInfo]:
        """All arrays of which something is known."""
        infos = {}
        for name in self.names:
            with suppress(UserError):
                infos[name] = self.info(name)
        return infos

    @property
    def coordinates(self) -> frozenset[str]:
        """Names of the arrays that only say where the points of an axis lie."""
        return frozenset(n for n, info in self.readable.items() if info.is_coordinate)

    def numeric(self) -> dict[str, ArrayInfo]:
        """Returns the readable arrays of real numbers that are not coordinates."""
        return {
            name: info
            for name, info in self.readable.items()
            if info.dtype.kind in NUMBERS and not info.is_coordinate
        }

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of an array."""
        return self.info(name).shape

    def stack(self, name: str, members: Sequence[str], item: tuple[int, ...] | None = None) -> str:
        """Makes an array ``[len(members), *item]`` of several alike, under a new name."""
        first = self.shape(members[0])
        for member in members:
            if (shape := self.shape(member)) != first:
                raise UserError(
                    f"{self.path}: '{member}' {list(shape)} and '{members[0]}' {list(first)} "
                    "disagree"
                )
        self._members[name] = tuple(members)
        self._infos[name] = ArrayInfo((len(members), *(item or first)), self.info(members[0]).dtype)
        return name

    def members(self, name: str) -> tuple[str, ...]:
        """Returns the names in the file that an array is made of."""
        return self._members.get(name, (name,))

    @contextmanager
    def open(self) -> Iterator[Arrays]:
        """Gives the file's arrays by name."""
        with self._opened() as opened:

            @cache
            def array(name: str) -> StoredArray:
                if name in self._members:
                    return _Stack(array, self.members(name), self.shape(name)[1:])
                dtype = self.info(name).dtype
                if dtype.kind not in NUMBERS:
                    raise UserError(
                        f"{self.path}: '{name}' holds {dtype}, but real numbers are needed"
                    )
                return self._array(opened, name)

            yield array

    def read(self, name: str) -> np.ndarray:
        """Returns a whole array."""
        with self.open() as arrays:
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
            near = nearest_file(path, f"*{path.suffix}")
            raise UserError(f"{path}: there is no such file{near}")
        if not path.is_file():
            raise UserError(f"{path}: is not a regular file")
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


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


def plain_attributes(items: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns the attributes that are plain numbers and text; what cannot be read is left out."""
    attributes = {}
    for name in items:
        with suppress(OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError):
            attributes[str(name)] = plain(items[name])
    return {name: value for name, value in attributes.items() if value is not None}


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
