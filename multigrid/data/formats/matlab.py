"""Files of MATLAB v5, which every version before 7.3 and ``scipy.io.savemat`` write.

They are read here and not by SciPy, which a damaged one can bring down, and which gives numbers the
type that they are stored in instead of their own: doubles that are all whole numbers may be stored
as bytes. The format is that of "MAT-File Format" (The MathWorks, R2024b, chapter 1).
"""

import zlib
from collections.abc import Iterator
from itertools import islice
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multigrid.data.formats.array_files import ArrayFile
from multigrid.data.formats.container import ArrayInfo, require_honest_size
from multigrid.errors import UserError

HEADER, TAG = 128, 8
COMPRESSED = 15
FLAGS, DIMENSIONS, NAMES = 6, 5, (1, 2, 16)
INTEGERS = ("i1", "u1", "i2", "u2", "i4", "u4")
STORED = {**dict(enumerate(INTEGERS, 1)), 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Types of the numbers in an element, by the type of the element."""
CLASSES = {6: "f8", 7: "f4", **dict(enumerate(INTEGERS, 8)), 14: "i8", 15: "u8"}
"""Types of arrays of numbers; other classes are cells, structures, text, sparse arrays, objects."""
OPAQUE, COMPLEX, LOGICAL = 17, 0x800, 0x200
BEGINNING = 4096
"""Bytes in which type, shape and name of an array stand."""


class Variable(NamedTuple):
    """An array of a file: the type of its element, where that starts, its size, what is in it."""

    number: int
    start: int
    size: int
    info: ArrayInfo


class MatlabFile(ArrayFile):
    """The variables of a ``.mat`` file of MATLAB v5; those that are not compressed are mapped."""

    kind = "mat"
    is_matlab = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._variables: dict[str, Variable] = {}
        with self._reading():
            content = np.memmap(path, "u1", "r")
            if bytes(content[124:126]) not in (b"\x00\x01", b"\x01\x00"):
                raise UserError(
                    f"{path}: no file of MATLAB v5 to v7.3; save it again with save(..., '-v7')"
                )
            self._order = "<" if bytes(content[126:128]) == b"IM" else ">"
            for number, start, size in elements(content, HEADER, self._order):
                beginning = bytes(content[start : start + min(size, BEGINNING)])
                if number == COMPRESSED:
                    beginning = zlib.decompressobj().decompress(beginning, BEGINNING)[TAG:]
                name, info = read_header(beginning, self._order)
                if name:  # what functions need has none
                    self._variables[name] = Variable(number, start, size, info)
        self.names = tuple(self._variables)

    def _describe(self, name: str) -> ArrayInfo:
        info = self._variables[name].info
        require_honest_size(self.path, name, info.shape, info.dtype.itemsize)
        return info

    def _load(self, name: str) -> np.ndarray:
        number, start, size, info = self._variables[name]
        shape, dtype = info.shape, info.dtype
        with self._reading():
            body: np.ndarray = np.memmap(self.path, "u1", "r")[start : start + size]
            if number == COMPRESSED:
                limit = BEGINNING + 8 * prod(shape)  # no number is stored in more bytes
                body = np.frombuffer(zlib.decompressobj().decompress(body.data, limit)[TAG:], "u1")
            *_, (kind, place, num_bytes) = islice(elements(body, 0, self._order), 4)
            if kind not in STORED:
                raise ValueError(f"{name} has numbers of the unknown type {kind}")
            stored = np.dtype(self._order + STORED[kind])
            if num_bytes != prod(shape) * stored.itemsize:
                raise ValueError(f"{name} has {num_bytes} bytes for the shape {list(shape)}")
        values = body[place : place + num_bytes].view(stored).reshape(shape, order="F")
        return values.astype(dtype, copy=False)


def elements(content: bytes | np.ndarray, start: int, order: str) -> Iterator[tuple[int, int, int]]:
    """Yields type, place and number of bytes of each element from a place on.

    Raises:
        ValueError: If one would end behind the content.
    """
    while start < len(content):
        tag = content[start : start + TAG]
        if len(tag) < TAG:
            raise ValueError("it ends within a tag")
        number, size = map(int, np.frombuffer(tag, f"{order}u4"))
        place, following = start + TAG, start + TAG + size
        if number >> 16:  # up to four bytes stand in the tag itself
            number, size, place, following = number & 0xFFFF, number >> 16, start + 4, start + TAG
        elif number != COMPRESSED:
            following += -size % 8
        if place + size > min(following, len(content)):
            raise ValueError("an element is longer than what it is in")
        yield number, place, size
        start = following


def read_header(beginning: bytes, order: str) -> tuple[str, ArrayInfo]:
    """Returns the name of an array, its shape and its type, ``S1`` if it has no numbers."""
    parts = [
        (number, beginning[place : place + size])
        for number, place, size in islice(elements(beginning, 0, order), 3)
    ]
    (number, first), (second, dimensions), (third, name) = parts
    flags = int(np.frombuffer(first[:4], f"{order}u4")[0])
    if flags & 0xFF == OPAQUE:  # has no shape, and its name before
        return dimensions.decode(errors="replace"), ArrayInfo((), np.dtype("S1"))
    if (number, second) != (FLAGS, DIMENSIONS) or third not in NAMES:
        raise ValueError("the beginning of an array is damaged")
    shape = tuple(map(int, np.frombuffer(dimensions, f"{order}i4")))
    if min(shape, default=0) < 0:
        raise ValueError(f"an array has the shape {list(shape)}")
    code = "bool" if flags & LOGICAL else CLASSES.get(flags & 0xFF, "S1")
    if flags & COMPLEX and code != "S1":
        code = {"f4": "c8"}.get(code, "c16")
    return name.decode(errors="replace"), ArrayInfo(shape, np.dtype(code))
