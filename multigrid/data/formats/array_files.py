"""Files of NumPy, torch, MATLAB (v4 and v5) and netCDF 3, none of which may run code."""

import pickle
import re
import warnings
import zipfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np

from multigrid.data.formats.container import (
    ArrayInfo,
    Container,
    StoredArray,
    first_bytes,
    plain,
    require_honest_size,
    require_numbers,
    require_regular_file,
)
from multigrid.errors import UserError, brief

SIGNATURE = b"\x93NUMPY"
ZIP_SIGNATURE = b"PK\x03\x04"
NAME_PAIRS = (("x", "y"), ("input", "output"), ("inputs", "outputs"), ("a", "u"), ("coeff", "sol"))
MATLAB_TYPES = {"double": "f8", "single": "f4", "logical": "bool"}


class ArrayFile(Container):
    """A file whose arrays are mapped or read into memory when they are first asked for.

    A copy in another process reopens them.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._loaded: dict[str, np.ndarray] = {}

    @abstractmethod
    def _load(self, name: str) -> np.ndarray:
        """Reads or maps an array."""

    @contextmanager
    def _opened(self) -> Iterator[None]:
        yield None

    def _array(self, opened: None, name: str, check: bool) -> StoredArray:
        require_numbers(self.path, name, self._info(name).dtype)
        if name not in self._loaded:
            array = self._load(name)
            require_numbers(self.path, name, array.dtype)
            self._loaded[name] = array
        return self._loaded[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": {}}


def zip_members(path: Path) -> list[str] | None:
    """Returns the names in a zip archive, or None if the file is not one.

    Raises:
        UserError: If the archive is damaged.
    """
    if first_bytes(path, 4) != ZIP_SIGNATURE:
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged or truncated archive ({brief(error)})") from None


class Npz(ArrayFile):
    """The arrays of an ``.npz`` file."""

    kind = "npz"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.names = tuple(name.removesuffix(".npy") for name in zip_members(path) or ())
        self._infos: dict[str, ArrayInfo] = {}

    def _info(self, name: str) -> ArrayInfo:
        if name not in self._infos:
            try:
                with zipfile.ZipFile(self.path) as archive:
                    member = archive.getinfo(f"{name}.npy")
                    with archive.open(member) as file:
                        shape, dtype, size = read_header(self.path, file)
            except UserError:
                raise
            except Exception as error:  # a damaged header fails in NumPy in any way
                raise _damaged(self.path, error) from None
            if size > member.file_size:
                raise UserError(f"{self.path}: '{name}' declares more data than is there")
            require_honest_size(self.path, name, size, self.path.stat().st_size)
            self._infos[name] = ArrayInfo(shape, dtype)
        return self._infos[name]

    def _load(self, name: str) -> np.ndarray:
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                return np.asarray(arrays[name])
        except Exception as error:  # as above
            raise _damaged(self.path, error) from None


class Npy(ArrayFile):
    """One ``.npy`` file, or two: that of the inputs and that of the outputs; mapped.

    Arrays are called like their files, without a number at the end.

    Args:
        path: The file.
        partner: Name of the second file; by default one whose name differs as ``x`` and ``y``
            do, or ``input`` and ``output``, if there is one.
    """

    kind = "npy"

    def __init__(self, path: Path, partner: str | None = None) -> None:
        super().__init__(path)
        second = self._find_partner(partner)
        name, other = (re.sub(r"[_-]\d+$", "", item.stem) for item in (path, second or path))
        if second and name == other:
            name, other = f"{name}_input", f"{name}_output"
        self._files = {name: path} | ({other: second} if second else {})
        self.names = tuple(self._files)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file, and the second one if there is one."""
        return tuple(self._files.values())

    def _find_partner(self, name: str | None) -> Path | None:
        if name is not None:
            beside = self.path.parent / name
            partner = beside if beside.exists() else Path(name)
            require_regular_file(partner)
            return partner
        for first, second in NAME_PAIRS:
            pattern = rf"(?<![A-Za-z0-9]){first}(?![A-Za-z0-9])"
            partner = self.path.with_stem(re.sub(pattern, second, self.path.stem))
            if partner != self.path and partner.is_file():
                return partner
        return None

    def _info(self, name: str) -> ArrayInfo:
        array = self._loaded.get(name)
        if array is None:
            array = self._loaded[name] = self._load(name)
        return ArrayInfo(array.shape, array.dtype)

    def _load(self, name: str) -> np.ndarray:
        path = self._files[name]
        try:
            with path.open("rb") as file:
                read_header(path, file)
            mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except UserError:
            raise
        except Exception as error:  # a damaged header fails in NumPy in any way
            raise _damaged(path, error) from None
        return mapped


def read_header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int]:
    """Reads the header of a ``.npy`` file: shape, number type and size in bytes of its array.

    Raises:
        UserError: If it is not one, or holds Python objects.
    """
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise UserError(
            f"{path}: holds something that is not a NumPy array; pickles are refused, as opening "
            "one could run a program"
        )
    major = file.read(2)[:1]
    if major == b"\x01":
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif major == b"\x02":
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise UserError(f"{path}: a version of the .npy format that is not for plain arrays")
    if dtype.hasobject:
        raise UserError(
            f"{path}: holds pickled Python objects, which is refused, as opening them could run "
            "a program"
        )
    size = dtype.itemsize
    for n in shape:
        size *= n  # in Python's integers, which do not overflow
    return shape, dtype, size


def _damaged(path: Path, error: BaseException) -> UserError:
    return UserError(f"{path}: damaged or truncated NumPy file ({brief(error)})")


class TorchFile(ArrayFile):
    """The tensors of a ``.pt`` file: one, a tuple or list of some, or a dictionary.

    Tensors without names are called ``0``, ``1``, ..., those of nested containers ``a/b``.
    """

    kind = "neuraloperator"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._tensors = dict(self._flatten("", self._unpickle()))
        if not self._tensors:
            raise UserError(f"{path}: holds no tensors")
        self.names = tuple(self._tensors)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_tensors": None}

    def _flatten(self, name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping):
            items: Any = ((str(key), item) for key, item in value.items())
        elif isinstance(value, list | tuple) and not all(isinstance(v, int | float) for v in value):
            items = ((str(number), item) for number, item in enumerate(value))
        elif type(value).__name__ == "TensorDataset":
            items = ((str(number), item) for number, item in enumerate(value.tensors))
        else:
            yield name or self.path.stem, value
            return
        for key, item in items:
            yield from self._flatten(f"{name}/{key}" if name else key, item)

    def _unpickle(self) -> Any:
        import torch  # only this format needs it
        from torch.utils.data import TensorDataset

        numpy_types = [np.ndarray, np.dtype, *_numpy_dtypes(), *_numpy_functions()]
        try:
            mmap = zip_members(self.path) is not None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickles that are refused right away
                with torch.serialization.safe_globals([TensorDataset, *numpy_types]):
                    return torch.load(
                        str(self.path), map_location="cpu", weights_only=True, mmap=mmap
                    )
        except UserError:
            raise
        except pickle.UnpicklingError:
            raise UserError(
                f"{self.path}: holds Python objects besides tensors, or no tensors at all, which "
                "is refused, as opening them could run a program; save the plain tensors, as in "
                "torch.save({'x': x, 'y': y}, path)"
            ) from None
        except Exception as error:  # a damaged archive fails in torch in any way
            raise UserError(
                f"{self.path}: damaged or truncated file of torch ({brief(error)})"
            ) from None

    def _tensor(self, name: str) -> Any:
        import torch

        if self._tensors is None:
            self._tensors = dict(self._flatten("", self._unpickle()))
        tensor = self._tensors[name]
        if isinstance(tensor, int | float | np.ndarray | np.generic):
            return np.asarray(tensor)
        if (
            not isinstance(tensor, torch.Tensor)
            or tensor.layout != torch.strided
            or tensor.is_quantized
            or tensor.is_meta
        ):
            raise UserError(
                f"{self.path}: '{name}' is a {type(tensor).__name__}, but a dense tensor is needed"
            )
        require_honest_size(self.path, name, tensor.nbytes, self.path.stat().st_size)
        return tensor

    def _info(self, name: str) -> ArrayInfo:
        tensor = self._tensor(name)
        if isinstance(tensor, np.ndarray):
            return ArrayInfo(tensor.shape, tensor.dtype)
        kind = "c8" if tensor.is_complex() else str(tensor.dtype).removeprefix("torch.")
        try:
            dtype = np.dtype(kind)
        except TypeError:  # bfloat16 and smaller types, which NumPy does not have
            dtype = np.dtype("f4")
        return ArrayInfo(tuple(tensor.shape), dtype)

    def _load(self, name: str) -> np.ndarray:
        import torch

        tensor = self._tensor(name)
        if isinstance(tensor, np.ndarray):
            return tensor
        if tensor.is_floating_point() and tensor.element_size() < 4 and tensor.dtype != torch.half:
            tensor = tensor.float()
        array: np.ndarray = tensor.detach().resolve_conj().resolve_neg().numpy()
        return array


def _numpy_dtypes() -> list[type]:
    """Returns the classes of number types that hold no Python objects."""
    return [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]


def _numpy_functions() -> list[Any]:
    """Returns what rebuilds arrays of numbers; newer files of NumPy name it otherwise."""
    from numpy._core.multiarray import _reconstruct, scalar

    return [
        _reconstruct,
        scalar,
        (_reconstruct, "numpy.core.multiarray._reconstruct"),
        (scalar, "numpy.core.multiarray.scalar"),
    ]


class MatlabFile(ArrayFile):
    """The variables of a ``.mat`` file of MATLAB v4 or v5."""

    kind = "mat"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        from scipy.io import whosmat

        try:
            self._held = {name: (shape, kind) for name, shape, kind in whosmat(str(path))}
        except Exception as error:  # a damaged header fails in SciPy in any way
            raise self._damaged(error) from None
        self.names = tuple(self._held)

    def _info(self, name: str) -> ArrayInfo:
        shape, kind = self._held[name]
        code = MATLAB_TYPES.get(kind, kind if re.fullmatch(r"u?int\d+", kind) else "S1")
        dtype, size = np.dtype(code), 1
        for n in shape:
            size *= n
        require_honest_size(self.path, name, size * dtype.itemsize, self.path.stat().st_size)
        return ArrayInfo(tuple(shape), dtype)

    def _load(self, name: str) -> np.ndarray:
        from scipy.io import loadmat

        try:
            array = loadmat(str(self.path), variable_names=[name])[name]
        except Exception as error:  # as above
            raise self._damaged(error) from None
        return np.asarray(array, bool if self._held[name][1] == "logical" else None)

    def _damaged(self, error: BaseException) -> UserError:
        return UserError(f"{self.path}: damaged or truncated MATLAB file ({brief(error)})")


class XarrayStore(ArrayFile):
    """The variables of a netCDF 3 file or a zarr store, opened by the optional package xarray."""

    kind = "xarray"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            xarray = import_module("xarray")
        except ImportError:
            raise UserError(
                f"{path}: zarr and netCDF 3 are read by xarray; pip install xarray zarr"
            ) from None
        try:
            engine = "zarr" if path.is_dir() else "scipy"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that metadata are not consolidated
                opened = xarray.open_dataset(path, engine=engine, decode_times=False)
        except Exception as error:  # engines raise errors of many kinds
            raise UserError(f"{path}: cannot be read by xarray ({brief(error)})") from None
        self._set = opened
        self.names = tuple(sorted(str(name) for name in opened.variables))
        self.attributes = {
            str(k): v for k, a in opened.attrs.items() if (v := plain(a)) is not None
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_set": None}

    @property
    def _variables(self) -> Any:
        if self._set is None:
            self._set = XarrayStore(self.path)._set
        return self._set

    def _info(self, name: str) -> ArrayInfo:
        variable = self._variables.variables[name]
        dims = tuple(map(str, variable.dims))
        is_coordinate = name in self._set.coords
        return ArrayInfo(
            variable.shape, variable.dtype, _plain(variable.attrs), dims, is_coordinate
        )

    def _array(self, opened: None, name: str, check: bool) -> StoredArray:
        require_numbers(self.path, name, self._info(name).dtype)
        return _Lazy(self._variables.variables[name])

    def _load(self, name: str) -> np.ndarray:
        return np.asarray(self._variables.variables[name].values)


def _plain(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    values = {str(name): plain(value) for name, value in attributes.items()}
    return {name: value for name, value in values.items() if value is not None}


class _Lazy:
    """A variable of xarray, read where it is sliced."""

    def __init__(self, variable: Any) -> None:
        self.variable, self.shape, self.dtype = variable, variable.shape, variable.dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self.variable[index].values)
