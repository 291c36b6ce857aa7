"""Generated samples on disk: one HDF5 file for each problem, grid and seed.

A file holds the groups ``train``, ``validation`` and ``test``, each with the datasets ``input``
``[N, in, *grid]`` and ``output`` ``[N, out, *grid]`` in float32, one sample a chunk. Sample i of a
split depends on seed, split and i alone, so splits never overlap, and asking for more samples
adds to a file without changing those it has.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from tqdm import tqdm

from multigrid.data.generation import BLOCK, SPLITS, Recipe, generate
from multigrid.data.readers.hdf5 import take
from multigrid.data.samples import Samples
from multigrid.data.streaming import StreamedSamples
from multigrid.errors import UserError, brief
from multigrid.grid import Grid
from multigrid.problems.base import PDE

__all__ = ["BLOCK", "SPLITS", "DataStore"]


class DamagedFileError(UserError):
    """A file of samples cannot be read."""


class DataStore:
    """The file of one problem on one grid with one seed.

    Args:
        folder: Where the file lives.
        problem: What to sample.
        grid: Grid of the samples.
        seed: Seed of all splits.
    """

    def __init__(self, folder: Path, problem: PDE, grid: Grid, seed: int) -> None:
        self.problem = problem
        self.grid = grid
        self.seed = seed
        self.recipe = Recipe(problem, grid, seed)
        name = f"{problem.kind}_{grid}_{grid.centering}_seed{seed}_{self.fingerprint[:8]}.h5"
        self.path = folder / name

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the samples depend on, as plain values."""
        return {
            "problem": self.problem.kind,
            "version": self.problem.version,
            "parameters": self.problem.parameters,
            "grid": list(self.grid.shape),
            "centering": self.grid.centering,
            "seed": self.seed,
        }

    @property
    def fingerprint(self) -> str:
        """Hash of the settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def ensure(
        self, counts: Mapping[str, int], progress: bool = False, workers: int | None = None
    ) -> int:
        """Makes sure that every split has at least the given number of samples.

        The file is written aside, block by block, and renamed when it is complete. What an
        interrupted generation has left is continued where it is sound, else thrown away.

        Args:
            counts: Number of samples wanted of each split.
            progress: Whether to show a progress bar with the rate.
            workers: Number of processes, of which the samples do not depend; by default one for
                each core if that pays.

        Returns:
            The number of samples that had to be generated.

        Raises:
            UserError: If the file is damaged or cannot be written.
        """
        have = self._counts(self.path) if self.path.exists() else dict.fromkeys(SPLITS, 0)
        if all(have[split] >= count for split, count in counts.items()):
            return 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._extend(counts, progress, workers)
        except OSError as error:
            reason = error.strerror or str(error).split("\n")[0]
            raise UserError(f"{self.path}: samples could not be written: {reason}") from None

    def read(self, split: str, count: int) -> Samples:
        """Reads the first ``count`` samples of a split.

        Raises:
            UserError: If the file is missing or damaged.
        """
        return StreamedSamples(self.open(split, count), self.grid)[:]

    def open(self, split: str, count: int) -> "StoredSplit":
        """Returns the first ``count`` samples of a split, to be read later.

        Raises:
            UserError: If the file is missing or damaged, or holds fewer.
        """
        available = self._counts(self.path)[split]
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
            raise self._damaged(self.path, error) from None
        return Samples(inputs, outputs, self.grid)

    def _extend(self, counts: Mapping[str, int], progress: bool, workers: int | None) -> int:
        aside = self.path.with_name(self.path.name + ".part")
        if not self._continues(aside):
            aside.unlink(missing_ok=True)
            if self.path.exists():
                shutil.copyfile(self.path, aside)
        with h5py.File(aside, "a") as file:
            self._create(file)
            blocks = [
                block
                for split, count in counts.items()
                for block in self.recipe.blocks(split, file[split].attrs["num_complete"], count)
            ]
            total = sum(len(block) for block in blocks)
            bar = tqdm(
                total=total,
                desc=f"samples {self.grid}",
                unit="sample",
                disable=None if progress else True,  # None: only a terminal gets a bar
            )
            with bar:
                for block, fields in generate(self.recipe, blocks, workers):
                    self._write(file[block.split], block.start, *fields)
                    file.flush()
                    bar.update(len(block))
        aside.replace(self.path)
        return total

    def _continues(self, aside: Path) -> bool:
        """Whether an interrupted file is sound and not behind the finished one."""
        if not aside.exists():
            return False
        try:
            have = self._counts(aside)
            self._verify(aside)
        except DamagedFileError:
            return False
        finished = self._counts(self.path) if self.path.exists() else dict.fromkeys(SPLITS, 0)
        return all(have[split] >= finished[split] for split in SPLITS)

    def _verify(self, path: Path) -> None:
        """Reads all samples: those that never reached the disk are NaN or fail their checksum."""
        try:
            with h5py.File(path, "r") as file:
                for split, name in product(SPLITS, ("input", "output")):
                    dataset = file[split][name]
                    for index in range(file[split].attrs["num_complete"]):
                        if not np.isfinite(dataset[index]).all():
                            raise ValueError(f"sample {index} of {split} is incomplete")
        except (OSError, LookupError, ValueError, RuntimeError) as error:
            raise self._damaged(path, error) from None

    def _create(self, file: h5py.File) -> None:
        file.attrs.update(
            {**self.settings, "parameters": json.dumps(self.problem.parameters)},
            fingerprint=self.fingerprint,
        )
        for split in SPLITS:
            group = file.require_group(split)
            if "num_complete" in group.attrs:
                continue
            group.attrs["num_complete"] = 0
            for name, fields in (
                ("input", self.problem.input_names),
                ("output", self.problem.output_names),
            ):
                shape = (len(fields), *self.grid.shape)
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

    @staticmethod
    def _write(group: h5py.Group, start: int, inputs: np.ndarray, outputs: np.ndarray) -> None:
        stop = start + len(inputs)
        for name, values in (("input", inputs), ("output", outputs)):
            group[name].resize(stop, axis=0)
            group[name][start:stop] = values
        group.attrs["num_complete"] = stop

    def _counts(self, path: Path) -> dict[str, int]:
        try:
            with h5py.File(path, "r") as file:
                if file.attrs["fingerprint"] != self.fingerprint:
                    raise UserError(
                        f"{path}: holds samples of other settings than its name says; move it away"
                    )
                return {split: int(file[split].attrs["num_complete"]) for split in SPLITS}
        except BlockingIOError:
            raise UserError(f"{path}: another process is generating these samples") from None
        except (OSError, KeyError) as error:
            raise self._damaged(path, error) from None

    @staticmethod
    def _damaged(path: Path, error: Exception) -> DamagedFileError:
        if not path.exists():
            return DamagedFileError(f"{path}: the file of samples is no longer there")
        return DamagedFileError(
            f"{path}: unreadable or half-written HDF5 file ({brief(error)}); delete it to have the "
            "samples generated anew"
        )


@dataclass(frozen=True)
class StoredSplit:
    """The first samples of a split of a store, on disk."""

    store: DataStore
    split: str
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def grid(self) -> Grid:
        """The grid of the store."""
        return self.store.grid

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""
        return self.store.problem.num_channels

    def load(self, indices: np.ndarray) -> Samples:
        """Reads samples, in any order."""
        return self.store.load(self.split, indices)
