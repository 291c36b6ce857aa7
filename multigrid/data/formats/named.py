"""Any HDF5 file, by the names of two datasets."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from multigrid.data.formats import hdf5
from multigrid.data.formats.base import ReaderOptions
from multigrid.data.formats.pairs import PairFile, known_pair
from multigrid.errors import UserError


class Hdf5Pair(PairFile):
    """Two datasets ``[N, ...]`` of an HDF5 file, anywhere in it."""

    reader = "hdf5"
    expects = "HDF5 with two datasets named by 'input' and 'output'"
    takes_names = True

    @classmethod
    def matches(cls, path: Path, options: ReaderOptions) -> bool:
        """Whether it is an HDF5 file and its two datasets are named or have usual names."""
        if not hdf5.is_hdf5(path):
            return False
        with hdf5.open_file(path) as file:
            return options.named or known_pair(dict.fromkeys(file)) is not None

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two datasets."""
        return self._names

    @contextmanager
    def _arrays(self, check: bool = False) -> Iterator[tuple[Any, Any]]:
        with hdf5.open_file(self.path) as file:
            if check:
                self._names = self._choose(file)
            arrays = hdf5.find(file, self.names[0]), hdf5.find(file, self.names[1])
            if check:
                for array in arrays:
                    hdf5.require_complete(file, array)
            yield arrays

    def _choose(self, file: Any) -> tuple[str, str]:
        options = self.options
        if options.input is not None and options.output is not None:
            return options.input, options.output
        pair = None if options.named else known_pair(dict.fromkeys(file))
        if pair is None:
            raise UserError(
                f"{self.path}: name both datasets, 'input' and 'output'; the file holds "
                f"{hdf5.contents(file)}"
            )
        return pair

    def _rows(self, array: Any, indices: np.ndarray) -> np.ndarray:
        return hdf5.take(array, indices)
