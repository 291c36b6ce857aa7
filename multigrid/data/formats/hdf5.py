"""HDF5 files: plain ones, MATLAB's v7.3, and netCDF4."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from multigrid.data.formats.container import (
    ArrayInfo,
    Container,
    StoredArray,
    plain,
    require_honest_size,
    require_numbers,
)
from multigrid.errors import UserError, brief

with suppress(ImportError):
    import_module("hdf5plugin")  # registers Blosc, Zstandard and other filters

MAX_HOPS = 16
MAX_DEPTH = 16
MAX_NAMES = 500_000
PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value")


def is_hdf5(path: Path) -> bool:
    """Whether a file bears the signature of HDF5."""
    return bool(h5py.is_hdf5(path))


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Opens a file for reading.

    Raises:
        UserError: If the file, or what is read from it in the context, is damaged, or
            another program is writing it.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise UserError(f"{path}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Returns why HDF5 cannot read a file."""
    text = str(error)
    if isinstance(error, BlockingIOError) or "unable to lock file" in text:
        return f"is locked by another program, which may be writing it ({brief(error)})"
    if "already open for write" in text or "consistency flags" in text:
        return "is open in a program that writes it, or was never closed by one that did"
    if ("filter" in text and "not registered" in text) or "can't open directory" in text:
        return (
            "is compressed with a filter that is not installed; install hdf5plugin "
            f"({brief(error)})"
        )
    return f"damaged, truncated or unreadable HDF5 file ({brief(error)})"


class Hdf5(Container):
    """The datasets of an HDF5 file; those of MATLAB have its order of axes turned round.

    Packed values of netCDF4 (``scale_factor``, ``add_offset``, ``_FillValue``) are unpacked.
    """

    kind = "hdf5"
    noun = "dataset"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._infos: dict[str, ArrayInfo | None] = {}
        with open_file(path) as file:
            self.attributes = _attributes(file)
            self.is_matlab = _is_matlab(path)
            self._list(file, "", 0, set())
            for name in [name for name, info in self._infos.items() if info is not None]:
                self._infos[name] = self._describe(file[name])
        self.names = tuple(self._infos)

    def group_attributes(self, group: str) -> Mapping[str, Any]:
        """Returns the attributes of a group that lies in this very file."""
        with open_file(self.path) as file:
            return _attributes(_walk(file, file, group, MAX_HOPS))

    def _list(self, group: h5py.Group, prefix: str, depth: int, seen: set[int]) -> None:
        """Notes all datasets of a group; links are noted by name and followed when asked for."""
        for name in group:
            path = prefix + name
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                self._infos[path] = None
                continue
            item = group.get(name, getclass=True)
            if item is h5py.Group:
                address = h5py.h5o.get_info(group[name].id).addr
                if depth < MAX_DEPTH and address not in seen and name != "#refs#":
                    seen.add(address)
                    self._list(group[name], path + "/", depth + 1, seen)
            elif item is h5py.Dataset:
                self._infos[path] = ArrayInfo((), np.dtype("f4"))
            if len(self._infos) > MAX_NAMES:
                raise UserError(f"{self.path}: holds more than {MAX_NAMES:,} datasets")

    def _describe(self, dataset: h5py.Dataset) -> ArrayInfo:
        attributes = _attributes(dataset)
        shape, dtype = dataset.shape or (), dataset.dtype
        if attributes.get("MATLAB_class") in ("char", "cell", "struct", "function_handle"):
            dtype = np.dtype("S1")
        elif attributes.get("MATLAB_class") == "logical":
            dtype = np.dtype(bool)
        if _is_packed(attributes, dtype):
            dtype = np.dtype("f8" if dtype.itemsize > 2 else "f4")
        return ArrayInfo(
            shape[::-1] if self.is_matlab else shape,
            dtype,
            attributes,
            _dims(dataset),
            attributes.get("CLASS") == "DIMENSION_SCALE",
        )

    def _info(self, name: str) -> ArrayInfo:
        info = self._infos[name]
        if info is None:
            with open_file(self.path) as file:
                info = self._infos[name] = self._describe(find(file, name, "any"))
        return info

    @contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        with open_file(self.path) as file:
            yield file

    def _array(self, opened: h5py.File, name: str, check: bool) -> StoredArray:
        dataset = find(opened, name)
        if check:
            require_complete(opened, dataset)
        info = self._info(name)
        array: StoredArray = dataset
        if _is_packed(info.attributes, dataset.dtype):
            array = _Unpacked(dataset, info)
        elif dataset.dtype != info.dtype:
            array = _Converted(dataset, info)
        return _Transposed(array) if self.is_matlab else array


class _Transposed:
    """An array whose axes MATLAB has written in the opposite order."""

    def __init__(self, array: StoredArray) -> None:
        self.array = array
        self.shape = array.shape[::-1]
        self.dtype = array.dtype

    def __getitem__(self, index: tuple[Any, ...]) -> np.ndarray:
        values: np.ndarray = self.array[index[::-1]].T
        return values


class _Converted:
    """An array in another number type, as MATLAB's logical ones."""

    def __init__(self, array: h5py.Dataset, info: ArrayInfo) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, info.dtype
        self.attributes = info.attributes

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self.array[index]).astype(self.dtype)


class _Unpacked(_Converted):
    """Integers, or numbers with gaps, that attributes of netCDF turn into values."""

    def __getitem__(self, index: Any) -> np.ndarray:
        stored = np.asarray(self.array[index])
        scale, offset, *gaps = (self.attributes.get(key) for key in PACKING)
        values = stored.astype(self.dtype)
        values *= _number(scale, 1)
        values += _number(offset, 0)
        for gap in gaps:
            if gap is not None:
                values[stored == np.asarray(_number(gap, 0)).astype(stored.dtype)] = np.nan
        return values


def _number(value: Any, default: float) -> float:
    """Returns an attribute as a number; netCDF writes them as lists of one."""
    value = value[0] if isinstance(value, list) and value else value
    return default if value is None or isinstance(value, str | list) else value


def _is_packed(attributes: Mapping[str, Any], dtype: np.dtype) -> bool:
    """Whether values are to be scaled, or are integers with gaps.

    Numbers that fill gaps in floating-point arrays are NaN already, or so large that they are
    told as such when the values are checked.
    """
    scaled = any(
        _number(attributes.get(key), n) != n for key, n in zip(PACKING[:2], (1, 0), strict=True)
    )
    gaps = any(attributes.get(key) is not None for key in PACKING[2:])
    return dtype.kind in "fiu" and (scaled or gaps)


def _is_matlab(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(10) == b"MATLAB 7.3"


def _dims(dataset: h5py.Dataset) -> tuple[str, ...]:
    """Returns the names of the axes as netCDF4 gives them, or none."""
    if "DIMENSION_LIST" not in dataset.attrs:
        return ()
    names = []
    for dimension in dataset.dims:
        try:
            scale = dimension[0].name if len(dimension) else ""
        except (RuntimeError, KeyError, ValueError):
            scale = ""
        names.append(scale.rpartition("/")[2])
    return tuple(names)


def _attributes(item: h5py.HLObject) -> dict[str, Any]:
    """Returns the attributes that are numbers or text; what cannot be read is left out."""
    attributes = {}
    for name in item.attrs if len(item.attrs) else ():
        with suppress(OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError):
            value = plain(item.attrs[name])
            if value is not None:
                attributes[name] = value
    return attributes


def find(file: h5py.File, name: str, numbers: str = "real") -> h5py.Dataset:
    """Returns a dataset of real numbers that lies in this very file.

    Raises:
        UserError: If there is none of that name, or it leads to another file.
    """
    item = _walk(file, file, name, MAX_HOPS)
    if not isinstance(item, h5py.Dataset):
        raise UserError(f"{file.filename}: '{name}' is a group, not a dataset")
    if item.is_virtual or item.external:
        raise UserError(f"{file.filename}: '{name}' is stored in other files, which is refused")
    if numbers == "real":
        require_numbers(Path(file.filename), name, item.dtype)
    return item


def _walk(file: h5py.File, group: h5py.Group, name: str, hops: int) -> h5py.HLObject:
    """Follows a name step by step, so that no link is followed unseen."""
    item: h5py.HLObject = file if name.startswith("/") else group
    for part in filter(None, name.split("/")):
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            raise UserError(f"{file.filename}: there is no dataset '{name}'")
        if isinstance(link, h5py.ExternalLink):
            raise UserError(
                f"{file.filename}: '{name}' is a link to another file, '{link.filename}', which "
                "is refused"
            )
        if isinstance(link, h5py.SoftLink):
            if hops == 0:
                raise UserError(f"{file.filename}: the links of '{name}' go round in circles")
            item = _walk(file, item, link.path, hops - 1)
        else:
            item = item[part]
    return item


def require_complete(file: h5py.File, dataset: h5py.Dataset) -> None:
    """Raises a UserError unless all of a dataset has been written and can be decompressed."""
    path = Path(file.filename)
    require_honest_size(path, dataset.name, dataset.nbytes, path.stat().st_size)
    _require_filters(path, dataset)
    if dataset.chunks is None:
        complete = dataset.id.get_storage_size() >= dataset.nbytes
    else:
        expected = prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        complete = dataset.id.get_num_chunks() >= expected
    if not complete:
        raise UserError(
            f"{path}: '{dataset.name}' was declared as {list(dataset.shape)} but never written in "
            "full"
        )


def _require_filters(path: Path, dataset: h5py.Dataset) -> None:
    creation = dataset.id.get_create_plist()
    for number in range(creation.get_nfilters()):
        code, _, _, name = creation.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            text = re.sub(r"[^ -~]", "?", plain(name))[:80]
            raise UserError(
                f"{path}: '{dataset.name}' is compressed with filter {code} ({text}), which is "
                "not installed; pip install hdf5plugin"
            )


def take(dataset: h5py.Dataset, indices: np.ndarray) -> np.ndarray:
    """Reads rows of a dataset in any order, consecutive ones at once.

    Returns:
        Array ``[len(indices), ...]``.
    """
    rows = np.empty((len(indices), *dataset.shape[1:]), dataset.dtype)
    order = np.argsort(indices, kind="stable")
    for start, stop in runs(indices[order]):
        first = indices[order[start]]
        rows[order[start:stop]] = dataset[first : first + stop - start]
    return rows


def runs(numbers: Sequence[int] | np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields the positions ``start, stop`` of runs of consecutive numbers."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    edges = [0, *breaks.tolist(), len(numbers)]
    yield from ((a, b) for a, b in pairwise(edges) if b > a)
