"""Generated samples on disk: one HDF5 file for each problem, grid and seed.

A file holds the groups ``train``, ``validation`` and ``test``, each with the datasets ``input``
``[N, in, *grid]`` and ``output`` ``[N, out, *grid]`` in float32, one sample a chunk, and ``sha256``
``[N, 32]``, a checksum of each sample. Its attributes say what the samples depend on. A checksum
of the whole file stands behind its end, where HDF5 does not look, and is verified before HDF5 opens
the file: damaged metadata can make it read other numbers, or never return.

Sample i of a split depends on seed, split and i alone, so splits never overlap, and asking for more
samples adds to a file without changing those it has.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from tqdm import tqdm

from multigrid.data import SPLITS
from multigrid.data.formats.container import (
    SEAL,
    Stamp,
    file_digest,
    is_intact,
    read_seal,
)
from multigrid.data.formats.hdf5 import take
from multigrid.data.generation import BLOCK, Recipe, generate
from multigrid.data.samples import Samples, StreamedSamples
from multigrid.errors import UserError, brief
from multigrid.files import PART, put_in_place
from multigrid.grid import Grid
from multigrid.problems.base import PDE

__all__ = ["BLOCK", "SPLITS", "DataStore", "StoredSplit"]

SIDES = ("input", "output")


class DataStore:
    """The samples of one problem on one grid with one seed.

    Args:
        folder: Folder of their file.
        problem: What to sample.
        grid: Grid of the samples.
        seed: Seed of all splits.

    Attributes:
        recipe: All that the samples depend on.
        path: Where the file is, or will be.
    """

    def __init__(self, folder: Path, problem: PDE, grid: Grid, seed: int) -> None:
        self.problem = problem
        self.grid = grid
        self.recipe = Recipe(problem, grid, seed)
        name = f"{problem.kind}_{grid}_{grid.centering}_seed{seed}_{self.fingerprint[:8]}.h5"
        self.path = folder / name
        self._verified: Stamp | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of everything that the samples depend on."""
        return self.recipe.fingerprint

    def ensure(
        self, counts: Mapping[str, int], progress: bool = False, workers: int | None = None
    ) -> int:
        """Makes sure that every split has at least the given number of samples.

        The file is written aside, block by block, and renamed when it is complete. What an
        interrupted generation has left is continued if it is sound, else discarded.

        Args:
            counts: Number of samples wanted of each split.
            progress: Whether to show a progress bar with the rate.
            workers: Number of processes, on which the samples do not depend; by default one for
                each core if that pays.

        Returns:
            The number of samples that had to be generated.

        Raises:
            UserError: If the file is damaged or cannot be written.
        """
        have = self._counts() if self.path.exists() else dict.fromkeys(SPLITS, 0)
        if all(have[split] >= count for split, count in counts.items()):
            return 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._extend(counts, have, progress, workers)
        except OSError as error:
            reason = error.strerror or str(error).split("\n")[0]
            raise UserError(f"{self.path}: samples could not be written: {reason}") from None

    def read(self, split: str, count: int) -> Samples:
        """Reads the first ``count`` samples of a split.

        Raises:
            UserError: If the file is missing or damaged, or holds fewer.
        """
        return StreamedSamples(self.open(split, count), self.grid)[:]

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
                inputs, outputs = (take(file[split][side], indices) for side in SIDES)
        except (OSError, KeyError, ValueError) as error:
            raise self._damaged(error) from None
        return Samples(torch.from_numpy(inputs), torch.from_numpy(outputs), self.grid)

    def _counts(self) -> dict[str, int]:
        """Returns the number of samples of each split in the file, once its checksum is right."""
        try:
            if self._verified != Stamp.of(self.path) and not is_intact(self.path):
                raise ValueError("its checksum is wrong")
            counts = self._read_counts(self.path)
        except BlockingIOError:
            raise UserError(f"{self.path}: another process is generating these samples") from None
        except (OSError, KeyError, ValueError) as error:
            if isinstance(error, UserError) and self.path.exists():
                raise
            raise self._damaged(error) from None
        self._verified = Stamp.of(self.path)
        return counts

    def _read_counts(self, path: Path) -> dict[str, int]:
        with h5py.File(path, "r") as file:
            if file.attrs["fingerprint"] != self.fingerprint:
                raise UserError(
                    f"{path}: holds samples of other settings than its name says; move it away"
                )
            if file.attrs.get("sealed", False) and path == self.path and read_seal(path) is None:
                raise ValueError("its checksum is not there")
            return {split: int(file[split].attrs["num_complete"]) for split in SPLITS}

    def _damaged(self, error: Exception) -> UserError:
        if not self.path.exists():
            return UserError(f"{self.path}: the file of samples is no longer there")
        return UserError(
            f"{self.path}: unreadable or half-written HDF5 file ({brief(error)}); delete it to "
            "regenerate the samples"
        )

    # --- writing ---

    def _extend(
        self,
        counts: Mapping[str, int],
        have: Mapping[str, int],
        progress: bool,
        workers: int | None,
    ) -> int:
        aside = self.path.with_name(self.path.name + PART)
        if not self._continues(aside, have):
            aside.unlink(missing_ok=True)
            if self.path.exists():
                shutil.copyfile(self.path, aside)
        with h5py.File(aside, "a") as file:
            create_splits(file, self.recipe)
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
                    write_samples(file[block.split], block.start, *fields)
                    file.flush()
                    bar.update(len(block))
        with aside.open("ab") as sealed:
            sealed.write(SEAL + file_digest(aside))
        put_in_place(aside, self.path)
        return total

    def _continues(self, aside: Path, have: Mapping[str, int]) -> bool:
        """Whether an interrupted file is sound and not behind the finished one."""
        if not aside.exists():
            return False
        try:
            counts = self._read_counts(aside)
            self._verify(aside)
        except BlockingIOError:
            raise UserError(f"{aside}: another process is generating these samples") from None
        except (OSError, LookupError, ValueError, RuntimeError) as error:
            if isinstance(error, UserError):
                raise
            return False
        return all(counts[split] >= have[split] for split in SPLITS)

    def _verify(self, path: Path) -> None:
        """Raises an error if samples are not what was written."""
        with h5py.File(path, "r") as file:
            for split in SPLITS:
                group = file[split]
                for index in range(group.attrs["num_complete"]):
                    fields = [group[side][index] for side in SIDES]
                    if sample_digest(*fields).tobytes() != group["sha256"][index].tobytes():
                        raise ValueError(f"sample {index} of {split} is damaged")


@dataclass(frozen=True)
class StoredSplit:
    """The first samples of a split of a file, on disk.

    Attributes:
        file: The file.
        split: ``train``, ``validation`` or ``test``.
        count: Number of samples.
    """

    file: DataStore
    split: str
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def grid(self) -> Grid:
        """The grid of the samples."""
        return self.file.grid

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""
        return self.file.problem.num_channels

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
        sealed=True,
    )
    for split in SPLITS:
        group = file.require_group(split)
        if "sha256" in group:
            continue
        group.attrs["num_complete"] = 0  # also of a file of an earlier version, without checksums
        group.create_dataset("sha256", (0, 32), "uint8", maxshape=(None, 32), chunks=(256, 32))
        for name, fields in (("input", problem.input_names), ("output", problem.output_names)):
            shape = (len(fields), *recipe.grid.shape)
            if name in group:
                del group[name]
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
    digests = [sample_digest(*fields) for fields in zip(inputs, outputs, strict=True)]
    for name, values in (("input", inputs), ("output", outputs), ("sha256", np.stack(digests))):
        group[name].resize(stop, axis=0)
        group[name][start:stop] = values
    group.attrs["num_complete"] = stop


def sample_digest(*fields: np.ndarray) -> np.ndarray:
    """Returns the SHA-256 of an input and an output field in float32, ``[32]`` bytes."""
    digest = hashlib.sha256()
    for values in fields:
        digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
