"""Arrays of inputs in files of any kind, and arrays of outputs written without holding all."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from multigrid.data.formats import FieldFile, ReaderOptions, open_container
from multigrid.data.formats.array_files import written_npy
from multigrid.data.formats.hdf5 import reserved_hdf5
from multigrid.errors import UserError, nearest
from multigrid.files import require_space, written_aside


@dataclass(frozen=True)
class Inputs:
    """Inputs ``[N, in, *grid]`` of a file, read where they are sliced."""

    shape: tuple[int, ...]
    read: Callable[[slice], np.ndarray]

    @classmethod
    def of(cls, file: FieldFile) -> "Inputs":
        """Returns those of the samples that a reader finds in a file, as for training."""
        numbers = range(file.num_samples)
        shape = (len(numbers), len(file.input_names), *file.shape)
        return cls(shape, lambda rows: file.fetch(numbers[rows])[0])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.read(rows)


def open_array(path: Path, name: str | None = None) -> Inputs:
    """Opens an array of any kind of file that can be sliced."""
    container = open_container(path, ReaderOptions())
    if container.kind == "unknown":
        raise UserError(f"{path}: is not a file of arrays (.npy, .npz, HDF5, .pt, .mat)")
    if container.kind == "npy":  # a second file, of outputs, may lie beside it
        if name is not None:
            raise UserError(f"{path}: holds one array without a name, not '{name}'")
        name = container.names[0]
    names = [n for n in container.names if n not in container.coordinates]
    held = ", ".join(names) or "no array"
    if name is None and len(names) != 1:
        raise UserError(f"{path}: holds {held}; say with --input which is the input")
    array = names[0] if name is None else name
    if array not in names:
        raise UserError(f"{path}: holds no array '{name}' but {held}{nearest(name, names)}")
    shape = container.shape(array)
    if not shape:
        raise UserError(f"{path}: an array of samples is needed, not a single value")
    if shape[0] == 0:
        raise UserError(f"{path}: holds no sample")

    def read(rows: slice, check: bool = False) -> np.ndarray:
        with container.open(check) as arrays:
            return np.asarray(arrays(array)[rows, ...])

    read(slice(0), check=True)
    return Inputs(shape, read)


def write_array(
    path: Path,
    shape: tuple[int, ...],
    batches: Iterable[np.ndarray],
    told: Callable[[int], Any],
    fields: Sequence[str],
) -> None:
    """Writes batches as one float32 array, aside first and then renamed into place."""
    if path.suffix == ".npy":
        with written_npy(path, shape, np.float32) as target:
            _fill(target, batches, told)
        return
    with written_aside(path) as aside:
        require_space(path.parent, 4 * prod(shape))
        with reserved_hdf5(aside, 4 * prod(shape), shape[0]) as file:
            target = file.create_dataset("output", shape, "float32", chunks=(1, *shape[1:]))
            target.attrs["fields"] = list(fields)
            _fill(target, batches, told)


def _fill(target: Any, batches: Iterable[np.ndarray], told: Callable[[int], Any]) -> None:
    start = 0
    for batch in batches:
        target[start : start + len(batch)] = batch
        start += len(batch)
        told(len(batch))
