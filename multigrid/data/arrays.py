"""Arrays of inputs in files of any kind, and arrays of outputs written without holding all."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from multigrid.data.formats import Container, FieldFile, ReaderOptions, open_container
from multigrid.errors import UserError, nearest
from multigrid.files import written_aside

HDF5 = (".h5", ".hdf5", ".hdf")


class Inputs(Protocol):
    """Inputs ``[N, in, *grid]`` that can be sliced along their first axis."""

    shape: tuple[int, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> np.ndarray: ...


class ArrayInputs:
    """An array of a file; nothing stays open between two reads.

    Args:
        container: The file.
        name: Name of the array.
    """

    def __init__(self, container: Container, name: str) -> None:
        self.container = container
        self.name = name
        self.shape = container.info(name).shape
        with container.open(check=True) as arrays:
            arrays[name]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        with self.container.open() as arrays:
            array = arrays[self.name]
            return np.asarray(array[(rows, *(slice(None),) * (len(self.shape) - 1))])


class FileInputs:
    """The inputs of the samples that a reader finds in a file, as for training."""

    def __init__(self, file: FieldFile) -> None:
        described = file.describe()
        self.file = file
        self.shape = (described.num_samples, len(described.input_names), *described.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.file.fetch(range(len(self))[rows])[0]


def open_array(path: Path, name: str | None = None) -> Inputs:
    """Opens an array of any kind of file that can be sliced.

    Args:
        path: The file.
        name: Name of the array; may be left out where there is only one.

    Raises:
        UserError: If there is no such file or array, the file is damaged, or it holds no sample.
    """
    container = open_container(path, ReaderOptions())
    arrays = [n for n in container.names if not container.is_coordinate(n)]
    npy = container.kind == "npy"  # a second file, of outputs, may lie beside it
    if npy and name is not None:
        raise UserError(f"{path}: holds one array without a name, not '{name}'")
    if container.kind == "unknown":
        raise UserError(f"{path}: is not a file of arrays (.npy, .npz, HDF5, .pt, .mat)")
    inputs = ArrayInputs(
        container, arrays[0] if container.kind == "npy" else _choose(path, arrays, name)
    )
    if not inputs.shape:
        raise UserError(f"{path}: an array of samples is needed, not a single value")
    if len(inputs) == 0:
        raise UserError(f"{path}: holds no sample")
    return inputs


def _choose(path: Path, names: Sequence[str], name: str | None) -> str:
    if name is None and len(names) == 1:
        return names[0]
    held = ", ".join(names) or "no array"
    if name is None:
        raise UserError(f"{path}: holds {held}; say with --input which is the input")
    if name not in names:
        raise UserError(f"{path}: holds no array '{name}' but {held}{nearest(name, names)}")
    return name


def write_array(
    path: Path,
    shape: tuple[int, ...],
    batches: Iterable[np.ndarray],
    told: Callable[[int], Any],
    fields: Sequence[str],
) -> None:
    """Writes batches as one float32 array, aside first and then renamed into place.

    Args:
        path: ``.npy``, or HDF5, where the array is the dataset ``output``.
        shape: Shape of the whole array.
        batches: Its parts along the first axis.
        told: Is told how many samples each batch had.
        fields: Names of the output fields, kept as an attribute in HDF5.

    Raises:
        UserError: If the file cannot be written; one already there is untouched.
    """
    with written_aside(path) as aside:
        if path.suffix in HDF5:
            with h5py.File(aside, "w") as file:
                target = file.create_dataset("output", shape, "float32", chunks=(1, *shape[1:]))
                target.attrs["fields"] = list(fields)
                _fill(target, batches, told)
        else:
            mapped = np.lib.format.open_memmap(aside, "w+", np.float32, shape)
            _fill(mapped, batches, told)
            mapped.flush()


def _fill(target: Any, batches: Iterable[np.ndarray], told: Callable[[int], Any]) -> None:
    start = 0
    for batch in batches:
        target[start : start + len(batch)] = batch
        start += len(batch)
        told(len(batch))
