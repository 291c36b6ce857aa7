"""Generated samples, kept on disk: one HDF5 file for each problem, grid and seed.

A file holds the groups ``train``, ``validation`` and ``test``, each with the datasets ``input``
``[N, in, *grid]`` and ``output`` ``[N, out, *grid]`` in float32, one sample a chunk. Its attributes
say what the samples depend on. A checksum of the whole file stands behind its end, and is verified
before HDF5 opens the file: damaged metadata can make it read other numbers, or never return.

Sample i of a split depends on seed, split and i alone, so splits never overlap, and asking for more
samples adds to a file without changing those it has.
"""

import errno
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from multigrid.data import SPLITS
from multigrid.data.arrays import is_sealed, reserved_hdf5, seal, stamp, take
from multigrid.data.generation import Arrays, Block, Recipe, generate
from multigrid.data.samples import Samples, StreamedSamples
from multigrid.data.source import NUM_TRAJECTORIES, SampleSource
from multigrid.data.time import TimeSetup, Trajectories
from multigrid.errors import UserError, brief
from multigrid.files import reason, require_space, write_file, written_aside
from multigrid.grid import Grid
from multigrid.problems.base import PDE

SIDES = ("input", "output")
# What replaces a progress bar outside a terminal: a line a minute.
LINES = {
    "delay": 60,
    "mininterval": 60,
    "maxinterval": 60,
    "leave": False,
    "bar_format": "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left\n",
}


class DataStore:
    """The samples of one problem on one grid with one seed, in a file of a folder.

    With more than one step, outputs are those of ``num_steps`` steps, one after the other.
    """

    def __init__(
        self, folder: Path, problem: PDE, grid: Grid, seed: int, num_steps: int = 1
    ) -> None:
        self.problem = problem
        self.grid = grid
        self.recipe = Recipe(problem, grid, seed, num_steps)
        self.fingerprint = self.recipe.fingerprint
        name = f"{problem.kind}_{grid}_{grid.centering}_seed{seed}_{self.fingerprint[:8]}.h5"
        self.path = folder / name
        self._aside = folder / f"{name}.blocks"
        self._verified: tuple[int, int, int] | None = None

    def ensure(self, counts: Mapping[str, int]) -> int:
        """Generates the samples that the splits lack of the given numbers; returns how many.

        Each block of samples is kept in a file with a checksum until all are there, so that an
        interrupted generation goes on from the sound ones.
        """
        if self.has(counts):
            return 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._alone():
                return 0 if self.has(counts) else self._extend(counts)
        except OSError as error:
            raise UserError(f"{self.path}: samples could not be written: {reason(error)}") from None

    def open(self, split: str, count: int) -> StreamedSamples:
        """Returns the first ``count`` samples of a split, to be read later.

        Raises:
            UserError: If the file is missing or damaged, or holds fewer.
        """
        available = self._counts()[split]
        if available < count:
            raise UserError(f"{self.path}: holds {available} {split} samples, not {count}")
        load = partial(self.load, split)
        return StreamedSamples(load, count, self.recipe.num_channels, self.grid, self.grid)

    def load(self, split: str, indices: np.ndarray) -> Samples:
        """Reads samples of a split, in any order."""
        with self._reading(), h5py.File(self.path, "r") as file:
            inputs, outputs = (take(file[split][side], indices) for side in SIDES)
        return Samples(torch.from_numpy(inputs), torch.from_numpy(outputs), self.grid)

    def has(self, counts: Mapping[str, int]) -> bool:
        """Whether the file is there and has so many samples."""
        have = self._counts() if self.path.exists() else None
        return have is not None and all(have[split] >= count for split, count in counts.items())

    def _counts(self) -> dict[str, int]:
        """Returns the number of samples of each split in the file, once its checksum is right."""
        with self._reading():
            now = stamp(self.path)
            if self._verified != now and not is_sealed(self.path):
                raise ValueError("its checksum is wrong or missing")
            with h5py.File(self.path, "r") as file:
                if file.attrs["fingerprint"] != self.fingerprint:
                    raise UserError(
                        f"{self.path}: holds samples of other settings than its name says; move it "
                        "away"
                    )
                counts = {split: int(file[split].attrs["num_complete"]) for split in SPLITS}
            self._verified = now
        return counts

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Tells what prevents reading the file in one sentence."""
        try:
            yield
        except (OSError, LookupError, ValueError, RuntimeError) as error:
            if not self.path.exists():
                raise UserError(f"{self.path}: the file of samples is no longer there") from None
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{self.path}: unreadable or half-written HDF5 file ({brief(error)}); delete it to "
                "regenerate the samples"
            ) from None

    # --- writing ---

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps other processes from generating the same samples."""
        path = self.path.with_name(self.path.name + ".lock")
        try:
            with FileLock(path, timeout=0):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
        except Timeout:
            raise UserError(f"{self.path}: another process is generating these samples") from None

    def _extend(self, counts: Mapping[str, int]) -> int:
        have = self._counts() if self.path.exists() else dict.fromkeys(SPLITS, 0)
        several = (self.recipe.blocks(split, have[split], n) for split, n in counts.items())
        blocks = list(chain.from_iterable(several))
        missing = [block for block in blocks if self._read_block(block) is None]
        total, in_file = sum(map(len, missing)), sum(map(len, blocks)) + sum(have.values())
        sample = 4 * sum(self.recipe.num_channels) * self.grid.size
        require_space(self.path.parent, sample * (total + in_file))
        look: dict[str, Any] = {} if sys.stderr.isatty() else LINES
        with tqdm(total=total, desc=f"samples {self.grid}", unit="sample", **look) as bar:
            for block, fields in generate(self.recipe, missing):
                if block == missing[0]:
                    self.recipe.check_alone(block, fields)
                    self._aside.mkdir(exist_ok=True)
                self._write_block(block, *fields)
                bar.update(len(block))
        with written_aside(self.path) as aside:
            if self.path.exists():
                shutil.copyfile(self.path, aside)
            self._put_together(aside, blocks, sample * in_file, in_file)
            seal(aside)
        shutil.rmtree(self._aside)
        return total

    def _put_together(
        self, path: Path, blocks: Iterable[Block], num_bytes: int, num_samples: int
    ) -> None:
        """Adds blocks of samples to the HDF5 file that the others are in, if there is one."""
        try:
            with reserved_hdf5(path, num_bytes, num_samples) as file:
                if not file.attrs:
                    create_splits(file, self.recipe)
                for block in blocks:
                    fields = self._read_block(block)
                    if fields is None:
                        raise OSError(errno.EIO, f"{self._place(block)} is damaged")
                    group = file[block.split]
                    for side, values in zip(SIDES, fields, strict=True):
                        group[side].resize(block.stop, axis=0)
                        group[side][block.start :] = values
                    group.attrs["num_complete"] = block.stop
        except RuntimeError as error:  # what h5py raises on closing a file on a full disk
            raise OSError(errno.EIO, brief(error)) from None

    # a block: the bytes of its inputs and outputs, and a checksum

    def _place(self, block: Block) -> Path:
        return self._aside / f"{block.split}_{block.start}_{block.stop}"

    def _checksum(self, block: Block, content: bytes) -> bytes:
        return hashlib.sha256(f"{self.fingerprint} {block}".encode() + content).digest()

    def _write_block(self, block: Block, inputs: np.ndarray, outputs: np.ndarray) -> None:
        content = inputs.tobytes() + outputs.tobytes()
        write_file(self._place(block), content + self._checksum(block, content))

    def _read_block(self, block: Block) -> Arrays | None:
        """Returns a block that was generated earlier, None if it is not there or damaged."""
        place = self._place(block)
        content = place.read_bytes() if place.exists() else b""
        content, checksum = content[:-32], content[-32:]
        if checksum != self._checksum(block, content):
            return None
        cut = len(block) * self.recipe.num_channels[0] * self.grid.size
        sides = np.split(np.frombuffer(content, np.float32), [cut])
        inputs, outputs = (side.reshape(len(block), -1, *self.grid.shape) for side in sides)
        return inputs, outputs


def create_splits(file: h5py.File, recipe: Recipe) -> None:
    """Makes the groups and datasets of a new file, and notes what is in it."""
    problem, settings = recipe.problem, recipe.settings
    file.attrs.update(
        {**settings, "parameters": json.dumps(settings["parameters"])},
        fingerprint=recipe.fingerprint,
        sealed=True,  # so that readers miss a checksum that is lost
    )
    for split in SPLITS:
        file.create_group(split).attrs["num_complete"] = 0
        outputs = problem.output_names * recipe.num_steps
        for side, fields in zip(SIDES, (problem.input_names, outputs), strict=True):
            shape = (len(fields), *recipe.grid.shape)
            dataset = file[split].create_dataset(
                side,
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


class GeneratedSource(SampleSource):
    """Samples of a PDE, generated on the finest grid and restricted to the others.

    Those that have been read on the finest grid are kept. Without ``labelled``, training samples
    have no solutions, which are not even computed. Training samples come from a store of their own,
    if there is one, as for several steps.
    """

    def __init__(
        self, store: DataStore, labelled: bool = True, training: DataStore | None = None
    ) -> None:
        self.store = store
        self.training = training or store
        self.labelled = labelled
        self.centering = store.grid.centering
        self.place = str(store.path)
        self._finest: dict[str, Samples] = {}
        problem = store.problem
        self.time = TimeSetup(len(problem.output_names)) if problem.time_dependent else None

    @property
    def fingerprint(self) -> str:
        """Hash of the settings and the code of the PDE."""
        return self.store.fingerprint

    def prepare(self, counts: Mapping[str, int]) -> int:
        """Generates what is missing of so many samples of each split; returns how many."""
        counts = self.wanted(counts)
        if self.training is self.store:
            return self.store.ensure(counts)
        others = self.store.ensure({**counts, "train": 0})
        return others + self.training.ensure({"train": counts["train"]})

    def wanted(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Returns how many samples of each split are generated: none that need no solution."""
        return dict(counts) if self.labelled else {**counts, "train": 0}

    def first(self, grid: Grid, count: int) -> Samples:
        """Returns a few validation samples on the finest grid; what is not stored is not kept."""
        if self.store.has({"validation": count}):
            return self.store.open("validation", count)[:]
        fields = self.store.recipe.make(Block("validation", 0, count))
        inputs, outputs = map(torch.from_numpy, fields)
        return Samples(inputs, outputs, grid)

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
            store = self.training if split == "train" else self.store
            return replace(store.open(split, count), grid=grid)
        channels = self.store.problem.num_channels
        return StreamedSamples(self._draw, count, channels, self.store.grid, grid)

    def trajectories(self, split: str, grid: Grid, num_steps: int) -> Trajectories | None:
        """Returns 16 trajectories from random numbers that no split uses, whatever the split."""
        if self.time is None:
            return None
        recipe = replace(self.store.recipe, grid=grid)
        rngs = recipe.rngs("trajectories", range(NUM_TRAJECTORIES))
        states = torch.from_numpy(np.stack([recipe.trajectory(rng, num_steps) for rng in rngs]))
        return Trajectories(states[:, 0].contiguous(), states, self.time)

    def _draw(self, indices: np.ndarray) -> Samples:
        """Draws training inputs; nothing is solved or stored.

        They are the inputs that the solved samples have. In place of the solutions stand the
        problem's initial outputs, so that statistics can be taken as if there were solutions.
        """
        grid, recipe = self.store.grid, self.store.recipe
        # one by one, as rounding may differ between samples that are drawn together
        drawn = [recipe.inputs("train", [index]) for index in indices.tolist()]
        inputs = torch.from_numpy(np.concatenate(drawn))
        outputs = torch.from_numpy(recipe.initial_outputs())
        return Samples(inputs, outputs.expand(len(indices), *outputs.shape), grid)
