"""HDF5 files: plain ones, MATLAB's v7.3, and netCDF4."""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import import_module
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
    plain_attributes,
    require_honest_size,
)
from multigrid.errors import UserError, brief

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
        self._complete: set[str] = set()
        self.group_attributes: dict[str, Mapping[str, Any]] = {}
        with open_file(path) as file:
            self.attributes = plain_attributes(file.attrs)
            self.names = tuple(self._walk(file, "", set()))
        self.is_matlab = any("MATLAB_class" in info.attributes for info in self._infos.values())

    def _walk(self, group: h5py.Group, prefix: str, seen: set[int]) -> Iterator[str]:
        """Yields the names of all datasets of a group; links are followed when asked for."""
        for name in group:
            path, link = prefix + name, group.get(name, getlink=True)
            item = group[name] if isinstance(link, h5py.HardLink) else None
            if isinstance(item, h5py.Dataset):
                self._infos[path] = self._info(item)
            if item is None or isinstance(item, h5py.Dataset):
                yield path
            elif isinstance(item, h5py.Group) and name != "#refs#":
                address = h5py.h5o.get_info(item.id).addr
                if address not in seen:
                    seen.add(address)
                    self.group_attributes[path] = plain_attributes(item.attrs)
                    yield from self._walk(item, path + "/", seen)

    def _describe(self, name: str) -> ArrayInfo:
        with open_file(self.path) as file:
            return self._info(find(file, name))

    def _info(self, dataset: h5py.Dataset) -> ArrayInfo:
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
        shape = shape if matlab is None else shape[::-1]
        return ArrayInfo(shape, dtype, attributes, _dims(dataset), is_scale)

    def chunk(self, name: str) -> int:
        """Returns how many values are decompressed together."""
        with open_file(self.path) as file:
            dataset = find(file, self.members(name)[0])
            is_packed = dataset.id.get_create_plist().get_nfilters() > 0
            return prod(dataset.chunks) if is_packed else 1

    def _opened(self) -> AbstractContextManager[h5py.File]:
        return open_file(self.path)

    def _array(self, opened: h5py.File, name: str) -> StoredArray:
        dataset, info = find(opened, name), self.info(name)
        if name not in self._complete:
            require_complete(opened, dataset)
            self._complete.add(name)
        reverse = "MATLAB_class" in info.attributes
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
    names = [""] * dataset.ndim
    for axis, dimension in enumerate(dataset.dims):
        with suppress(RuntimeError, LookupError, ValueError):
            names[axis] = dimension[0].name.rpartition("/")[2]
    return tuple(names)


def find(file: h5py.File, name: str) -> h5py.Dataset:
    """Returns a dataset whose numbers lie in this very file."""
    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):  # which is not even opened
        item, place = None, link.filename
    else:
        item = file[name]
        place = item.file.filename
    if place != file.filename:
        raise UserError(
            f"{file.filename}: '{name}' is a link to another file, '{Path(place).name}', which is "
            "refused"
        )
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
