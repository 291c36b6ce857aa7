"""This project's own files: a group for each split."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from multigrid.data import SPLITS
from multigrid.data.formats import hdf5
from multigrid.data.formats.base import Description, FieldFile, ReaderOptions, channel_names
from multigrid.errors import UserError

NAMES = ("input", "output")


class StoreFile(FieldFile):
    """Groups ``train``, ``validation`` and ``test``, each with ``[N, channels, *grid]`` twice.

    Samples are counted through the splits in this order.
    """

    reader = "store"
    expects = "HDF5 written by multigrid, with the groups train, validation and test"

    @classmethod
    def matches(cls, path: Path, options: ReaderOptions) -> bool:
        """Whether it is an HDF5 file with the groups and our fingerprint."""
        if not hdf5.is_hdf5(path):
            return False
        with hdf5.open_file(path) as file:
            return set(SPLITS) <= set(file) and "fingerprint" in file.attrs

    def _examine(self) -> Description:
        with hdf5.open_file(self.path) as file:
            starts = [0]
            for split in SPLITS:
                count = hdf5.find_group(file, split).attrs.get("num_complete", 0)
                starts.append(starts[-1] + int(count))
                for name in NAMES:
                    self._require_rows(file, f"{split}/{name}", int(count))
            first = [hdf5.find(file, f"train/{name}") for name in NAMES]
            shapes = [dataset.shape for dataset in first]
            dtypes = [str(dataset.dtype) for dataset in first]
            names = [_fields(dataset, name) for dataset, name in zip(first, NAMES, strict=True)]
            centering = file.attrs.get("centering")
        self._ranges = dict(zip(SPLITS, map(range, starts, starts[1:]), strict=True))
        if min(map(len, shapes)) < 3 or shapes[0][2:] != shapes[1][2:]:
            raise UserError(
                f"{self.path}: the shapes of input {list(shapes[0])} and output "
                f"{list(shapes[1])} disagree"
            )
        return Description(
            shapes[0][2:],
            names[0],
            names[1],
            dtypes[0],
            dtypes[1],
            starts[-1],
            centering=centering if centering in ("cell", "node") else None,
            named_splits=self._ranges,
        )

    def _require_rows(self, file: h5py.File, path: str, count: int) -> None:
        dataset = hdf5.find(file, path)
        hdf5.require_complete(file, dataset)
        expected = hdf5.find(file, f"train/{path.rpartition('/')[2]}").shape[1:]
        if dataset.ndim < 1 or len(dataset) < count or dataset.shape[1:] != expected:
            raise UserError(
                f"{self.path}: '{path}' {list(dataset.shape)} must have {count} samples "
                f"{list(expected)}"
            )

    def _load(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with hdf5.open_file(self.path) as file:
            inputs, outputs = (self._column(file, name, indices) for name in NAMES)
        return inputs, outputs

    def _column(self, file: h5py.File, name: str, indices: np.ndarray) -> np.ndarray:
        shape = hdf5.find(file, f"train/{name}").shape[1:]
        column = np.empty((len(indices), *shape), np.float32)
        for split, numbers in self._ranges.items():
            mine = (indices >= numbers.start) & (indices < numbers.stop)
            if mine.any():
                dataset = hdf5.find(file, f"{split}/{name}")
                column[mine] = hdf5.take(dataset, indices[mine] - numbers.start)
        return column


def _fields(dataset: h5py.Dataset, name: str) -> tuple[str, ...]:
    """Returns the names of the channels, as the file says if it does."""
    count = dataset.shape[1] if dataset.ndim > 1 else 1
    named: Any = dataset.attrs.get("fields", ())
    names = tuple(str(item) for item in np.atleast_1d(named))
    return names if len(names) == count else channel_names(name, count)
