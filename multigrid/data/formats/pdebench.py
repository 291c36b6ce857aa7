"""PDEBench's HDF5 files.

Its authors test on the first tenth of the samples, ``int(0.1 N)``, and reduce the resolution by
striding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from multigrid.data.formats import hdf5
from multigrid.data.formats.base import ReaderOptions
from multigrid.data.formats.pairs import PairFile
from multigrid.data.formats.trajectories import Field, Trajectories, TrajectoryFile
from multigrid.errors import UserError

LEADING_TEST = 0.1
FLUID_FIELDS = ("density", "pressure", "Vx", "Vy", "Vz")


class PdebenchPair(PairFile):
    """Stationary problems: ``nu [N, x, y]`` gives ``tensor [N, 1, x, y]``."""

    reader = "pdebench"
    expects = "HDF5 with 'nu' [N,x,y] and 'tensor' [N,1,x,y]"
    names = ("nu", "tensor")
    leading_test = LEADING_TEST

    @classmethod
    def matches(cls, path: Path, options: ReaderOptions) -> bool:
        """Whether it is an HDF5 file with both datasets."""
        if not hdf5.is_hdf5(path):
            return False
        with hdf5.open_file(path) as file:
            return {"nu", "tensor"} <= set(file)

    @contextmanager
    def _arrays(self, check: bool = False) -> Iterator[tuple[Any, Any]]:
        with hdf5.open_file(self.path) as file:
            arrays = hdf5.find(file, "nu"), hdf5.find(file, "tensor")
            if check:
                for array in arrays:
                    hdf5.require_complete(file, array)
            yield arrays

    def _rows(self, array: Any, indices: np.ndarray) -> np.ndarray:
        return hdf5.take(array, indices)


class PdebenchTrajectories(TrajectoryFile):
    """Time-dependent problems: ``tensor [N, t, x, y]``, or one alike for each field of a fluid."""

    reader = "pdebench"
    expects = "HDF5 with 'tensor' [N,t,x,y] or with 'density', 'pressure', 'Vx', ... alike"
    leading_test = LEADING_TEST

    @classmethod
    def matches(cls, path: Path, options: ReaderOptions) -> bool:
        """Whether it is an HDF5 file with the dataset ``tensor`` alone or the fluid fields."""
        if not hdf5.is_hdf5(path):
            return False
        with hdf5.open_file(path) as file:
            names = set(file)
        return "nu" not in names and bool({"tensor", "density"} & names)

    def _survey(self, file: h5py.File) -> Trajectories:
        names = ["tensor"] if "tensor" in set(file) else [n for n in FLUID_FIELDS if n in set(file)]
        shape = hdf5.find(file, names[0]).shape
        if len(shape) < 3:
            raise UserError(f"{self.path}: '{names[0]}' {list(shape)} must be [N, t, x, ...]")
        fields = []
        for name in names:
            dataset = hdf5.find(file, name)
            if dataset.shape != shape:
                raise UserError(
                    f"{self.path}: '{name}' {list(dataset.shape)} and '{names[0]}' {list(shape)} "
                    "disagree"
                )
            axes = (True,) * (len(shape) - 2)
            fields.append(Field(name, (name,), str(dataset.dtype), True, True, axes))
        return Trajectories(shape[0], shape[1], shape[2:], tuple(fields))
