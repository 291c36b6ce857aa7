"""CNO's HDF5 files: a group for each sample."""

import re
from pathlib import Path

import h5py
import numpy as np

from multigrid.data.formats import hdf5
from multigrid.data.formats.base import Description, FieldFile, ReaderOptions, channel_names
from multigrid.data.formats.layout import choose_layouts
from multigrid.errors import UserError

SAMPLE = re.compile(r"sample_(\d+)")
NAMES = ("input", "output")


class Cno(FieldFile):
    """Groups ``sample_0``, ``sample_1``, ..., each with ``input`` and ``output`` ``[x, y]``."""

    reader = "cno"
    expects = "HDF5 with the groups sample_0, sample_1, ..., each with 'input' and 'output'"

    @classmethod
    def matches(cls, path: Path, options: ReaderOptions) -> bool:
        """Whether it is an HDF5 file with a group for a sample."""
        if not hdf5.is_hdf5(path):
            return False
        with hdf5.open_file(path) as file:
            return any(SAMPLE.fullmatch(name) for name in file)

    def _examine(self) -> Description:
        with hdf5.open_file(self.path) as file:
            numbers = (SAMPLE.fullmatch(name) for name in file)
            self._samples = sorted((m.group() for m in numbers if m), key=lambda s: int(s[7:]))
            first = [hdf5.find(file, f"{self._samples[0]}/{name}") for name in NAMES]
            dtypes = [str(dataset.dtype) for dataset in first]
            self._shapes = [dataset.shape for dataset in first]
        count = len(self._samples)
        inputs, outputs = ((count, *shape) for shape in self._shapes)
        self._layouts = choose_layouts(self.path, inputs, outputs, self.options.ndim)
        return Description(
            self._layouts[0].grid(inputs),
            channel_names("input", self._layouts[0].num_channels(inputs)),
            channel_names("output", self._layouts[1].num_channels(outputs)),
            dtypes[0],
            dtypes[1],
            count,
        )

    def _load(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with hdf5.open_file(self.path) as file:
            inputs, outputs = (
                layout.apply(
                    np.stack([self._sample(file, i, name, shape) for i in indices])
                    if len(indices)
                    else np.empty((0, *shape))
                )
                for name, shape, layout in zip(NAMES, self._shapes, self._layouts, strict=True)
            )
        return inputs, outputs

    def _sample(self, file: h5py.File, index: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
        path = f"{self._samples[index]}/{name}"
        dataset = hdf5.find(file, path)
        if dataset.shape != shape:
            raise UserError(
                f"{self.path}: '{path}' {list(dataset.shape)} and '{self._samples[0]}/{name}' "
                f"{list(shape)} disagree"
            )
        hdf5.require_complete(file, dataset)
        values: np.ndarray = dataset[()]
        return values
