"""Arrays of inputs in files of any kind, and arrays of outputs written without holding all."""

from collections.abc import Callable, Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from multigrid.data.formats import Container, FieldFile, ReaderOptions, open_container
from multigrid.data.formats.hdf5 import reserved_hdf5
from multigrid.errors import UserError, nearest
from multigrid.files import require_space, reserve, written_aside


class ArrayInputs:
    """An array ``[N, in, *grid]`` of a file; nothing stays open between two reads."""

    def __init__(self, container: Container, name: str) -> None:
        self.container = container
        self.name = name
        self.shape = container.info(name).shape
        with container.open(check=True) as arrays:
            arrays(name)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        with self.container.open() as arrays:
            return np.asarray(arrays(self.name)[(rows, *(slice(None),) * (len(self.shape) - 1))])


class FileInputs:
    """The inputs of the samples that a reader finds in a file, as for training."""

    def __init__(self, file: FieldFile) -> None:
        self.file = file
        self.shape = (file.num_samples, len(file.input_names), *file.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.file.fetch(range(len(self))[rows])[0]


Inputs = ArrayInputs | FileInputs


def open_array(path: Path, name: str | None = None) -> ArrayInputs:
    """Opens an array of any kind of file that can be sliced."""
    container = open_container(path, ReaderOptions())
    if container.kind == "unknown":
        raise UserError(f"{path}: is not a file of arrays (.npy, .npz, HDF5, .pt, .mat)")
    if container.kind == "npy":  # a second file, of outputs, may lie beside it
        if name is not None:
            raise UserError(f"{path}: holds one array without a name, not '{name}'")
        name = container.names[0]
    names = [n for n in container.names if n not in container.coordinates]
    inputs = ArrayInputs(container, _choose(path, names, name))
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
    """Writes batches as one float32 array, aside first and then renamed into place."""
    with written_aside(path) as aside:
        require_space(path.parent, 4 * prod(shape))
        if path.suffix in (".h5", ".hdf5", ".hdf"):
            with reserved_hdf5(aside, 4 * prod(shape), shape[0]) as file:
                target = file.create_dataset("output", shape, "float32", chunks=(1, *shape[1:]))
                target.attrs["fields"] = list(fields)
                _fill(target, batches, told)
        else:
            mapped = np.lib.format.open_memmap(aside, "w+", np.float32, shape)
            reserve(aside, aside.stat().st_size)
            _fill(mapped, batches, told)
            mapped.flush()


def _fill(target: Any, batches: Iterable[np.ndarray], told: Callable[[int], Any]) -> None:
    start = 0
    for batch in batches:
        target[start : start + len(batch)] = batch
        start += len(batch)
        told(len(batch))
