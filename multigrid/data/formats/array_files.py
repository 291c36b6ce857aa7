"""Files of NumPy, torch, netCDF 3 and zarr, none of which may run code."""

import pickle
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from math import prod
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from multigrid.data.arrays import not_dense
from multigrid.data.formats.container import (
    ALWAYS_ALLOWED,
    ArrayInfo,
    Container,
    StoredArray,
    first_bytes,
    plain_attributes,
    require_honest_size,
    require_regular_file,
)
from multigrid.errors import UserError, brief
from multigrid.files import reason, require_space

NPY_SIGNATURE = b"\x93NUMPY"
ZIP_SIGNATURE = b"PK\x03\x04"
BLOCK = 2**20
Order = Literal["C", "F"]
NAME_PAIRS = (("x", "y"), ("input", "output"), ("inputs", "outputs"), ("a", "u"), ("coeff", "sol"))


class ArrayFile(Container):
    """A file whose arrays are mapped or read into memory when they are first asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._loaded: dict[str, np.ndarray] = {}

    def _load(self, name: str) -> np.ndarray:
        """Reads or maps an array."""
        raise NotImplementedError

    def _array(self, opened: None, name: str) -> StoredArray:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turns what a library raises over a damaged file, of whatever kind, into one sentence."""
        try:
            yield
        except (UserError, pickle.UnpicklingError):
            raise
        except Exception as error:
            raise UserError(f"{self.path}: damaged or truncated file ({brief(error)})") from None


def zip_members(path: Path) -> list[str] | None:
    """Returns the names in a zip archive, or None if the file is not one."""
    if first_bytes(path, 4) != ZIP_SIGNATURE:
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged or truncated archive ({brief(error)})") from None


class Npz(ArrayFile):
    """The arrays of an ``.npz`` file; large ones are checked and then mapped.

    What is compressed is unpacked for that into a file without a name in the folder of temporary
    files (``TMPDIR``), which vanishes with the process.
    """

    kind = "npz"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.names = tuple(name.removesuffix(".npy") for name in zip_members(path) or ())

    @contextmanager
    def _member(self, name: str) -> Iterator[tuple[zipfile.ZipInfo, IO[bytes], ArrayInfo, Order]]:
        """Opens an array of the archive behind its header."""
        with self._reading(), zipfile.ZipFile(self.path) as archive:
            member = archive.getinfo(f"{name}.npy")
            with archive.open(member) as file:
                yield member, file, *read_header(self.path, file)

    def _describe(self, name: str) -> ArrayInfo:
        with self._member(name) as (member, _, info, _):
            if prod(info.shape) * info.dtype.itemsize > member.file_size:
                raise UserError(f"{self.path}: '{name}' declares more data than is there")
            require_honest_size(self.path, name, info.shape, info.dtype.itemsize)
        return info

    def _load(self, name: str) -> np.ndarray:
        with self._member(name) as (member, file, info, order):
            start = file.tell()
            if member.compress_type != zipfile.ZIP_STORED or not prod(info.shape):
                if member.file_size > ALWAYS_ALLOWED:
                    unpacked = self._unpacked(file, member.file_size)
                    return np.memmap(unpacked, info.dtype, "r", 0, info.shape, order)
                return np.frombuffer(file.read(), info.dtype).reshape(info.shape, order=order)
            while file.read(BLOCK):  # to the end, where the archive verifies its checksum
                pass
            with self.path.open("rb") as raw:  # the member's own header is not always the index's
                raw.seek(member.header_offset + 26)
                start += member.header_offset + 30 + int(np.fromfile(raw, "<u2", 2).sum())
            return np.memmap(self.path, info.dtype, "r", start, info.shape, order)

    def _unpacked(self, member: IO[bytes], num_bytes: int) -> IO[bytes]:
        """Returns a temporary file with the rest of an archive's member."""
        folder = Path(tempfile.gettempdir())
        try:
            require_space(folder, num_bytes)
            unpacked = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as its map)
            shutil.copyfileobj(member, unpacked, BLOCK)
            unpacked.flush()
        except OSError as error:
            raise UserError(
                f"{self.path}: {num_bytes / 1e9:.3g} GB cannot be unpacked into {folder}: "
                f"{reason(error)}; set TMPDIR to a folder with room for it"
            ) from None
        return unpacked


class NpyFiles(ArrayFile):
    """Arrays in ``.npy`` files, mapped, so that what is sliced is read alone."""

    kind = "npy"

    def __init__(self, path: Path, files: Mapping[str, Path]) -> None:
        super().__init__(path)
        self._files = dict(files)
        self.names, self.paths = tuple(files), tuple(files.values())

    def _describe(self, name: str) -> ArrayInfo:
        with self._reading(), self._files[name].open("rb") as file:
            return read_header(self._files[name], file)[0]

    def _load(self, name: str) -> np.ndarray:
        with self._reading():
            return np.lib.format.open_memmap(self._files[name], "r")


class Npy(NpyFiles):
    """One ``.npy`` file, or two: that of the inputs and that of the outputs.

    Arrays are called like their files, without a number at the end. The second one is by default
    that whose name differs as ``x`` and ``y`` do, or ``input`` and ``output``, if there is one.
    """

    def __init__(self, path: Path, partner: str | None = None) -> None:
        second = partner_of(path)
        if partner is not None:
            second = path.parent / partner
            second = second if second.exists() else Path(partner)
            require_regular_file(second)
        name, other = (re.sub(r"[_-]\d+$", "", item.stem) for item in (path, second or path))
        if second and name == other:
            name, other = f"{name}_input", f"{name}_output"
        super().__init__(path, {name: path} | ({other: second} if second else {}))


def partner_of(path: Path) -> Path | None:
    """Returns the file of outputs that lies beside one of inputs, to judge by its name."""
    for first, second in NAME_PAIRS:
        pattern = rf"(?<![A-Za-z0-9]){first}(?![A-Za-z0-9])"
        partner = path.with_stem(re.sub(pattern, second, path.stem))
        if partner != path and partner.is_file():
            return partner
    return None


def read_header(path: Path, file: IO[bytes]) -> tuple[ArrayInfo, Order]:
    """Reads the header of a ``.npy`` file: what the array is, and the order of its numbers."""
    if file.read(len(NPY_SIGNATURE)) != NPY_SIGNATURE:
        raise UserError(
            f"{path}: holds something that is not a NumPy array; pickles are refused, as opening "
            "one could run a program"
        )
    formats = np.lib.format
    versions = {1: formats.read_array_header_1_0, 2: formats.read_array_header_2_0}
    read = versions.get(file.read(2)[0])
    if read is None:
        raise UserError(f"{path}: a version of the .npy format that is not for plain arrays")
    shape, is_fortran, dtype = read(file)
    if dtype.hasobject:
        raise UserError(
            f"{path}: holds pickled Python objects, which is refused, as opening them could run "
            "a program"
        )
    return ArrayInfo(shape, dtype), "F" if is_fortran else "C"


class TorchFile(ArrayFile):
    """The tensors of a ``.pt`` file: one, a tuple or list of some, or a dictionary.

    Tensors without names are called ``0``, ``1``, ..., those of nested containers ``a/b``.
    """

    kind = "neuraloperator"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.names = tuple(self.content)
        if not self.names:
            raise UserError(f"{path}: holds no tensors")

    @cached_property
    def content(self) -> dict[str, Any]:
        """The tensors by name."""
        return dict(self._flatten("", self._unpickle()))

    def _flatten(self, name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if type(value).__name__ == "TensorDataset":
            value = value.tensors
        if isinstance(value, list | tuple) and not all(isinstance(v, int | float) for v in value):
            value = dict(enumerate(value))
        if not isinstance(value, Mapping):
            yield name or self.path.stem, value
            return
        for key, item in value.items():
            yield from self._flatten(f"{name}/{key}" if name else str(key), item)

    def _unpickle(self) -> Any:
        import torch  # only this format needs it
        from torch.utils.data import TensorDataset

        allowed = torch.serialization.safe_globals([TensorDataset, *_numpy_globals()])
        mmap = zip_members(self.path) is not None
        try:
            with self._reading(), allowed, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickles that are refused right away
                return torch.load(str(self.path), "cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError:
            raise UserError(
                f"{self.path}: holds Python objects besides tensors, or no tensors at all, which "
                "is refused, as opening them could run a program; save the plain tensors, as in "
                "torch.save({'x': x, 'y': y}, path)"
            ) from None

    def _describe(self, name: str) -> ArrayInfo:
        array = self._array(None, name)
        return ArrayInfo(array.shape, array.dtype)

    def _load(self, name: str) -> np.ndarray:
        import torch

        tensor = self.content[name]
        if isinstance(tensor, int | float | np.ndarray | np.generic):
            return np.asarray(tensor)
        if kind := not_dense(tensor):
            raise UserError(f"{self.path}: '{name}' is {kind}, but a dense tensor is needed")
        require_honest_size(self.path, name, tensor.shape, tensor.element_size())
        if tensor.is_floating_point() and tensor.element_size() < 4 and tensor.dtype != torch.half:
            tensor = tensor.float()  # of bfloat16, which NumPy does not have
        array: np.ndarray = tensor.detach().resolve_conj().resolve_neg().numpy()
        return array


def _numpy_globals() -> list[Any]:
    """Returns what rebuilds arrays of numbers, under its names before and since NumPy 2."""
    functions: list[Any] = [value.__reduce__()[0] for value in (np.zeros(0), np.float64(0))]
    dtypes = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]  # none holds Python objects
    names = [
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for function in functions
        for core in ("core", "_core")
    ]
    return [np.ndarray, np.dtype, *dtypes, *functions, *names]


class XarrayStore(Container):
    """The variables of a zarr store or a file of netCDF 3, through xarray, which unpacks them."""

    kind = "xarray"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.names = tuple(sorted(map(str, self.content.variables)))
        self.attributes = plain_attributes(self.content.attrs)

    @cached_property
    def content(self) -> Any:
        """The open dataset."""
        try:
            import xarray
        except ImportError:
            raise UserError(
                f"{self.path}: zarr and netCDF 3 are read by xarray; pip install xarray zarr"
            ) from None
        engine: Any = "zarr" if self.path.is_dir() else "scipy"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that metadata are not consolidated
                return xarray.open_dataset(self.path, engine=engine, decode_times=False)
        except Exception as error:  # engines raise errors of many kinds
            raise UserError(f"{self.path}: cannot be read by xarray ({brief(error)})") from None

    def _describe(self, name: str) -> ArrayInfo:
        variable = self.content.variables[name]
        is_coordinate, attributes = name in self.content.coords, plain_attributes(variable.attrs)
        dims = tuple(map(str, variable.dims))
        return ArrayInfo(variable.shape, variable.dtype, attributes, dims, is_coordinate)

    def chunk(self, name: str) -> int:
        """Returns how many values are decompressed together."""
        return prod(self.content.variables[name].encoding.get("chunks") or ())

    def _array(self, opened: None, name: str) -> StoredArray:
        return self.content.variables[name]  # read where it is sliced
