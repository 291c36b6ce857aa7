"""A file of generated samples, in HDF5.

It holds the groups ``train``, ``validation`` and ``test``, each with the datasets ``input``
``[N, in, *grid]`` and ``output`` ``[N, out, *grid]`` in float32, one sample a chunk, and says what
the samples depend on.
"""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import torch

from multigrid.data import SPLITS
from multigrid.data.formats.hdf5 import take
from multigrid.data.generation import Recipe
from multigrid.data.samples import Samples
from multigrid.errors import UserError, brief
from multigrid.grid import Grid


class DamagedFileError(UserError):
    """A file of samples cannot be read."""


@dataclass(frozen=True)
class SampleFile:
    """The file of what a recipe gives.

    Attributes:
        path: Where it is, or will be.
        recipe: All that its samples depend on.
    """

    path: Path
    recipe: Recipe

    def counts(self) -> dict[str, int]:
        """Returns the number of complete samples of each split; none if there is no file.

        Raises:
            UserError: If the file is damaged, of other settings, or being written.
        """
        return self._counts() if self.path.exists() else dict.fromkeys(SPLITS, 0)

    def open(self, split: str, count: int) -> "StoredSplit":
        """Returns the first ``count`` samples of a split, to be read later.

        Raises:
            UserError: If the file is missing or damaged, or holds fewer.
        """
        available = self._counts()[split]
        if available < count:
            raise UserError(f"{self.path}: holds {available} {split} samples, not {count}")
        return StoredSplit(self, split, count)

    def load(self, split: str, indices: np.ndarray) -> Samples:
        """Reads samples of a split, in any order.

        Raises:
            UserError: If the file is missing or damaged.
        """
        try:
            with h5py.File(self.path, "r") as file:
                inputs, outputs = (
                    torch.from_numpy(take(file[split][name], indices))
                    for name in ("input", "output")
                )
        except (OSError, KeyError, ValueError) as error:
            raise self._damaged(error) from None
        return Samples(inputs, outputs, self.recipe.grid)

    def verify(self) -> None:
        """Reads all samples: those that never reached the disk are NaN or fail their checksum.

        Raises:
            DamagedFileError: If there are such.
        """
        try:
            with h5py.File(self.path, "r") as file:
                for split, name in product(SPLITS, ("input", "output")):
                    dataset = file[split][name]
                    for index in range(file[split].attrs["num_complete"]):
                        if not np.isfinite(dataset[index]).all():
                            raise ValueError(f"sample {index} of {split} is incomplete")
        except (OSError, LookupError, ValueError, RuntimeError) as error:
            raise self._damaged(error) from None

    def _counts(self) -> dict[str, int]:
        try:
            with h5py.File(self.path, "r") as file:
                if file.attrs["fingerprint"] != self.recipe.fingerprint:
                    raise UserError(
                        f"{self.path}: holds samples of other settings than its name says; move it "
                        "away"
                    )
                return {split: int(file[split].attrs["num_complete"]) for split in SPLITS}
        except BlockingIOError:
            raise UserError(f"{self.path}: another process is generating these samples") from None
        except (OSError, KeyError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> DamagedFileError:
        if not self.path.exists():
            return DamagedFileError(f"{self.path}: the file of samples is no longer there")
        return DamagedFileError(
            f"{self.path}: unreadable or half-written HDF5 file ({brief(error)}); delete it to "
            "have the samples generated anew"
        )


@dataclass(frozen=True)
class StoredSplit:
    """The first samples of a split of a file, on disk.

    Attributes:
        file: The file.
        split: ``train``, ``validation`` or ``test``.
        count: Number of samples.
    """

    file: SampleFile
    split: str
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def grid(self) -> Grid:
        """The grid of the samples."""
        return self.file.recipe.grid

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""
        return self.file.recipe.problem.num_channels

    def load(self, indices: np.ndarray) -> Samples:
        """Reads samples, in any order.

        Raises:
            UserError: If the file is missing or damaged.
        """
        return self.file.load(self.split, indices)


def create_splits(file: h5py.File, recipe: Recipe) -> None:
    """Makes the groups and datasets that an open file still lacks, and notes what is in it."""
    problem, settings = recipe.problem, recipe.settings
    file.attrs.update(
        {**settings, "parameters": json.dumps(settings["parameters"])},
        fingerprint=recipe.fingerprint,
    )
    for split in SPLITS:
        group = file.require_group(split)
        if "num_complete" in group.attrs:
            continue
        group.attrs["num_complete"] = 0
        for name, fields in (("input", problem.input_names), ("output", problem.output_names)):
            shape = (len(fields), *recipe.grid.shape)
            dataset = group.create_dataset(
                name,
                shape=(0, *shape),
                maxshape=(None, *shape),
                chunks=(1, *shape),
                dtype="float32",
                shuffle=True,
                compression="lzf",
                fletcher32=True,
                fillvalue=np.nan,
            )
            dataset.attrs["fields"] = list(fields)


def write_samples(group: h5py.Group, start: int, inputs: np.ndarray, outputs: np.ndarray) -> None:
    """Writes samples ``[n, channels, *grid]`` from number ``start`` on; what is behind is lost."""
    stop = start + len(inputs)
    for name, values in (("input", inputs), ("output", outputs)):
        group[name].resize(stop, axis=0)
        group[name][start:stop] = values
    group.attrs["num_complete"] = stop
