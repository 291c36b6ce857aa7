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
    first_bytes,
    plain,
    plain_attributes,
    require_honest_size,
    require_numbers,
)
from multigrid.errors import UserError, brief
from multigrid.files import reserve

with suppress(ImportError):
    import_module("hdf5plugin")  # registers Blosc, Zstandard and other filters


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Opens a file for reading."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise UserError(f"{path}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, RecursionError):
        return "its groups are nested too deep"
    if isinstance(error, BlockingIOError) or "unable to lock file" in text:
        return f"is locked by another program, which may be writing it ({brief(error)})"
    if "already open for write" in text or "consistency flags" in text:
        return "is open in a program that writes it, or was never closed by one that did"
    if "too many links" in text:
        return f"its links go round in circles ({brief(error)})"
    return f"damaged, truncated or unreadable HDF5 file ({brief(error)})"


class Hdf5(Container):
    """The datasets of an HDF5 file; those of MATLAB have its order of axes turned round.

    Packed values of netCDF4 (``scale_factor``, ``add_offset``, ``_FillValue``) are unpacked.
    """

    kind = "hdf5"
    noun = "dataset"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._has_header = first_bytes(path, 10) == b"MATLAB 7.3"
        self._infos: dict[str, ArrayInfo | None] = {}
        with open_file(path) as file:
            self.attributes = plain_attributes(file.attrs)
            self._list(file, "", set())
        self.names = tuple(self._infos)

    @property
    def is_matlab(self) -> bool:
        """Whether MATLAB has written the file, though another program may have copied it."""
        infos = (info for info in self._infos.values() if info is not None)
        return self._has_header or any(self._is_reversed(info.attributes) for info in infos)

    def _is_reversed(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a dataset has MATLAB's order of axes."""
        return self._has_header or "MATLAB_class" in attributes

    def group_attributes(self, group: str) -> Mapping[str, Any]:
        """Returns the attributes of a group."""
        with open_file(self.path) as file:
            return plain_attributes(_inside(file, group).attrs)

    def _list(self, group: h5py.Group, prefix: str, seen: set[int]) -> None:
        """Notes all datasets of a group; links by name only, to be followed when asked for."""
        for name in group:
            path = prefix + name
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                self._infos[path] = None
                continue
            item = group[name]
            if isinstance(item, h5py.Dataset):
                self._infos[path] = self._describe(item)
            elif isinstance(item, h5py.Group) and name != "#refs#":
                address = h5py.h5o.get_info(item.id).addr
                if address not in seen:
                    seen.add(address)
                    self._list(item, path + "/", seen)

    def _describe(self, dataset: h5py.Dataset) -> ArrayInfo:
        attributes = plain_attributes(dataset.attrs)
        shape, dtype = dataset.shape or (), dataset.dtype
        matlab = attributes.get("MATLAB_class")
        if matlab in ("char", "cell", "struct", "function_handle"):
            dtype = np.dtype("S1")
        elif matlab == "logical":
            dtype = np.dtype(bool)
        elif _packing(attributes, dtype):
            dtype = np.dtype("f8" if dtype.itemsize > 2 else "f4")
        is_scale = attributes.get("CLASS") == "DIMENSION_SCALE"
        shape = shape[::-1] if self._is_reversed(attributes) else shape
        return ArrayInfo(shape, dtype, attributes, _dims(dataset), is_scale)

    def chunk(self, name: str) -> int | None:
        """Returns how many values are decompressed together."""
        with open_file(self.path) as file:
            dataset = find(file, self.members(name)[0])
            plain = dataset.id.get_create_plist().get_nfilters() == 0
            return None if plain or not dataset.chunks else prod(dataset.chunks)

    def _info(self, name: str) -> ArrayInfo:
        info = self._infos[name]
        if info is None:
            with open_file(self.path) as file:
                info = self._infos[name] = self._describe(find(file, name))
        return info

    @contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        with open_file(self.path) as file:
            yield file

    def _array(self, opened: h5py.File, name: str, check: bool) -> StoredArray:
        dataset = find(opened, name)
        require_numbers(self.path, name, dataset.dtype)
        if check:
            require_complete(opened, dataset)
        info = self._info(name)
        reverse = self._is_reversed(info.attributes)
        same = dataset.dtype == info.dtype and not reverse
        return dataset if same else _Converted(dataset, info, reverse)


def _packing(attributes: Mapping[str, Any], dtype: np.dtype) -> tuple[Any, Any, list[Any]] | None:
    """Returns how netCDF stores numbers: by which scale and offset, and which mean a gap."""

    def number(key: str) -> Any:
        value = attributes.get(key)
        value = value[0] if isinstance(value, list) and value else value
        return None if isinstance(value, str | list) else value

    scale, offset = number("scale_factor"), number("add_offset")
    gaps = [gap for gap in map(number, ("_FillValue", "missing_value")) if gap is not None]
    scale, offset = 1 if scale is None else scale, offset or 0
    packed = dtype.kind in "fiu" and (scale != 1 or offset or gaps)
    return (scale, offset, gaps) if packed else None


class _Converted:
    """A dataset in another number type, unpacked, or with its axes in the opposite order."""

    def __init__(self, dataset: h5py.Dataset, info: ArrayInfo, reverse: bool) -> None:
        self.dataset, self.reverse = dataset, reverse
        self.shape, self.dtype = info.shape, info.dtype
        self.packing = _packing(info.attributes, dataset.dtype)

    def __getitem__(self, index: Any) -> np.ndarray:
        stored = np.asarray(self.dataset[index[::-1] if self.reverse else index])
        values = stored.astype(self.dtype, copy=self.packing is not None)
        if self.packing:
            scale, offset, gaps = self.packing
            values *= scale
            values += offset
            for gap in gaps:
                values[stored == np.asarray(gap).astype(stored.dtype)] = np.nan
        return values.T if self.reverse else values


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


def _inside(file: h5py.File, name: str) -> h5py.HLObject:
    """Returns a group or dataset that lies in this very file."""
    link = file.get(name, getlink=True)
    is_external = isinstance(link, h5py.ExternalLink)  # which is not even opened
    item = None if is_external else file[name]
    place = link.filename if item is None else item.file.filename
    if item is None or place != file.filename:
        raise UserError(
            f"{file.filename}: '{name}' is a link to another file, '{Path(place).name}', which is "
            "refused"
        )
    return item


def find(file: h5py.File, name: str) -> h5py.Dataset:
    """Returns a dataset whose numbers lie in this very file."""
    item = _inside(file, name)
    if not isinstance(item, h5py.Dataset):
        raise UserError(f"{file.filename}: '{name}' is a group, not a dataset")
    if item.is_virtual or item.external:
        raise UserError(f"{file.filename}: '{name}' is stored in other files, which is refused")
    return item


def require_complete(file: h5py.File, dataset: h5py.Dataset) -> None:
    """Raises a UserError unless all of a dataset has been written and can be decompressed."""
    path = Path(file.filename)
    require_honest_size(path, dataset.name, dataset.shape, dataset.dtype.itemsize)
    creation = dataset.id.get_create_plist()
    for number in range(creation.get_nfilters()):
        code, _, _, name = creation.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            text = re.sub(r"[^ -~]", "?", plain(name))[:80]
            raise UserError(
                f"{path}: '{dataset.name}' is compressed with filter {code} ({text}), which is "
                "not installed; pip install hdf5plugin"
            )
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


@contextmanager
def reserved_hdf5(path: Path, num_bytes: int, num_samples: int) -> Iterator[h5py.File]:
    """Opens a file for writing, new or as it is, once the disk has room for all that will be in it.

    HDF5 prints tracebacks where it lacks room. On closing it gives back what it has not used.

    Args:
        path: The file.
        num_bytes: Size of the data in the finished file, without compression.
        num_samples: Number of samples in it, of up to two chunks each.
    """
    room = num_bytes + num_bytes // 10 + 256 * num_samples + 2**16
    if not path.exists():
        reserve(path, room)
        h5py.File(path, "w").close()  # which gives it all back
    reserve(path, room)
    with h5py.File(path, "r+") as file:
        yield file


def take(dataset: h5py.Dataset, indices: np.ndarray) -> np.ndarray:
    """Reads rows ``[len(indices), ...]`` of a dataset in any order, consecutive ones at once."""
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
