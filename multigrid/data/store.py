"""Generated samples, kept on disk: one HDF5 file for each problem, grid and seed.

A file holds the groups ``train``, ``validation`` and ``test``, each with the datasets ``input``
``[N, in, *grid]`` and ``output`` ``[N, out, *grid]`` in float32, one sample a chunk. Its attributes
say what the samples depend on. A checksum of the whole file stands behind its end, and is verified
before HDF5 opens the file: damaged metadata can make it read other numbers, or never return.

Sample i of a split depends on seed, split and i alone, so splits never overlap, and asking for more
samples adds to a file without changing those it has.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch
from tqdm import tqdm

from multigrid.data import SPLITS
from multigrid.data.formats.container import is_sealed, seal, stamp
from multigrid.data.formats.hdf5 import take
from multigrid.data.generation import Recipe, generate
from multigrid.data.samples import Samples, StreamedSamples
from multigrid.data.time import TimeSetup, Trajectories
from multigrid.errors import UserError, brief
from multigrid.files import PART, put_in_place
from multigrid.grid import Grid
from multigrid.problems.base import PDE

SIDES = ("input", "output")
NUM_TRAJECTORIES = 16


class DataStore:
    """The samples of one problem on one grid with one seed, in a file of a folder."""

    def __init__(self, folder: Path, problem: PDE, grid: Grid, seed: int) -> None:
        self.problem = problem
        self.grid = grid
        self.recipe = Recipe(problem, grid, seed)
        name = f"{problem.kind}_{grid}_{grid.centering}_seed{seed}_{self.fingerprint[:8]}.h5"
        self.path = folder / name
        self._verified: tuple[int, int, int] | None = None

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

        Returns:
            The number of samples that had to be generated.
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
        """Reads the first samples of a split as :meth:`open` gives them."""
        return self.open(split, count)[:]

    def open(self, split: str, count: int) -> StreamedSamples:
        """Returns the first ``count`` samples of a split, to be read later.

        Raises:
            UserError: If the file is missing or damaged, or holds fewer.
        """
        available = self._counts()[split]
        if available < count:
            raise UserError(f"{self.path}: holds {available} {split} samples, not {count}")
        load = partial(self.load, split)
        return StreamedSamples(load, count, self.problem.num_channels, self.grid, self.grid)

    def load(self, split: str, indices: np.ndarray) -> Samples:
        """Reads samples of a split, in any order."""
        with self._reading(self.path), h5py.File(self.path, "r") as file:
            inputs, outputs = (take(file[split][side], indices) for side in SIDES)
        return Samples(torch.from_numpy(inputs), torch.from_numpy(outputs), self.grid)

    def _counts(self) -> dict[str, int]:
        """Returns the number of samples of each split in the file, once its checksum is right."""
        with self._reading(self.path):
            now = stamp(self.path)
            sealed = self._verified == now or is_sealed(self.path)
            if sealed is False:
                raise ValueError("its checksum is wrong")
            with h5py.File(self.path, "r") as file:
                if sealed is None and file.attrs.get("sealed", False):
                    raise ValueError("its checksum is not there")
                counts = self._read_counts(file)
            self._verified = now if sealed else None
        return counts

    def _read_counts(self, file: h5py.File) -> dict[str, int]:
        if file.attrs["fingerprint"] != self.fingerprint:
            raise UserError(
                f"{file.filename}: holds samples of other settings than its name says; move it away"
            )
        return {split: int(file[split].attrs["num_complete"]) for split in SPLITS}

    @contextmanager
    def _reading(self, path: Path) -> Iterator[None]:
        """Tells what prevents reading a file in one sentence."""
        try:
            yield
        except BlockingIOError:
            raise UserError(f"{path}: another process is generating these samples") from None
        except (OSError, LookupError, ValueError, RuntimeError) as error:
            if not path.exists():
                raise UserError(f"{path}: the file of samples is no longer there") from None
            if isinstance(error, UserError):
                raise
            raise DamagedFileError(
                f"{path}: unreadable or half-written HDF5 file ({brief(error)}); delete it to "
                "regenerate the samples"
            ) from None

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
            hidden = None if progress else True  # None: only a terminal gets a bar
            with tqdm(
                total=total, desc=f"samples {self.grid}", unit="sample", disable=hidden
            ) as bar:
                for block, fields in generate(self.recipe, blocks, workers):
                    write_samples(file[block.split], block.start, *fields)
                    file.flush()
                    bar.update(len(block))
        seal(aside)
        put_in_place(aside, self.path)
        return total

    def _continues(self, aside: Path, have: Mapping[str, int]) -> bool:
        """Whether an interrupted file is sound and not behind the finished one.

        HDF5 has a checksum of each chunk, and what was never written reads as NaN.
        """
        if not aside.exists():
            return False
        try:
            with self._reading(aside), h5py.File(aside, "r") as file:
                counts = self._read_counts(file)
                for split, count in counts.items():
                    for dataset in (file[split][side] for side in SIDES):
                        if not all(np.isfinite(dataset[index]).all() for index in range(count)):
                            return False
        except DamagedFileError:
            return False
        return all(counts[split] >= have[split] for split in SPLITS)


class DamagedFileError(UserError):
    """A file of samples that must be generated anew."""


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


class GeneratedSource:
    """Samples of a PDE, generated on the finest grid and restricted to the others.

    Those that have been read on the finest grid are kept. Without ``labelled``, training samples
    have no solutions, which are not even computed.
    """

    remarks = ()  # a PDE leaves nothing to guess

    def __init__(self, store: DataStore, labelled: bool = True) -> None:
        self.store = store
        self.labelled = labelled
        self.centering = store.grid.centering
        self.place = str(store.path)
        self._finest: dict[str, Samples] = {}
        problem = store.problem
        self.time = TimeSetup(len(problem.output_names)) if problem.time_dependent else None

    @property
    def fingerprint(self) -> str:
        """Hash of everything that the samples depend on."""
        return self.store.fingerprint

    def prepare(self, counts: Mapping[str, int]) -> int:
        """Generates what is missing."""
        return self.store.ensure(self.wanted(counts), progress=True)

    def wanted(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Returns how many samples of each split are generated: none that need no solution."""
        return dict(counts) if self.labelled else {**counts, "train": 0}

    def read(self, split: str, grid: Grid, count: int) -> Samples:
        """Returns the first samples of a split, restricted to a grid block by block."""
        if len(self._finest.get(split, ())) >= count:
            return self._finest[split][:count].restrict_to(grid)
        samples = self.open(split, grid, count)[:]
        if grid == self.store.grid:
            self._finest[split] = samples
        return samples

    def open(self, split: str, grid: Grid, count: int) -> StreamedSamples:
        """Returns the first samples of a split, restricted to a grid when they are read."""
        if self.labelled or split != "train":
            return replace(self.store.open(split, count), grid=grid)
        channels = self.store.problem.num_channels
        return StreamedSamples(self._draw, count, channels, self.store.grid, grid)

    def groups(self, split: str, grid: Grid, count: int) -> None:
        """Nothing: the samples are independent."""

    def trajectories(self, split: str, grid: Grid, num_steps: int) -> Trajectories | None:
        """Returns 16 trajectories from random numbers that no split uses, whatever the split."""
        if self.time is None:
            return None
        keys = [(len(SPLITS), index) for index in range(NUM_TRAJECTORIES)]
        seed, problem = self.store.recipe.seed, self.store.problem
        rngs = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=k)) for k in keys]
        arrays = np.stack([problem.trajectory(grid, rng, num_steps) for rng in rngs])
        states = torch.from_numpy(arrays).float()
        return Trajectories(states[:, 0].contiguous(), states, self.time)

    def _draw(self, indices: np.ndarray) -> Samples:
        """Draws training inputs; nothing is solved or stored.

        They are the inputs that the solved samples have. In place of the solutions stand the
        problem's initial outputs, so that statistics can be taken as if there were solutions.
        """
        problem, grid, recipe = self.store.problem, self.store.grid, self.store.recipe
        inputs = torch.empty(len(indices), problem.num_channels[0], *grid.shape)
        for place, index in zip(inputs, indices.tolist(), strict=True):
            # one by one, as rounding may differ between samples that are drawn together
            drawn = problem.draw_inputs(grid, recipe.rngs("train", [index]))
            place.copy_(torch.from_numpy(drawn[0]))
        outputs = torch.from_numpy(problem.initial_outputs(grid).copy()).float()
        return Samples(inputs, outputs.expand(len(indices), *outputs.shape), grid)
