"""Where samples come from: the common interface."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from multigrid.data import SPLITS
from multigrid.data.samples import Samples, StreamedSamples
from multigrid.data.store import DataStore
from multigrid.data.time import TimeSetup, Trajectories
from multigrid.grid import Centering, Grid

NUM_TRAJECTORIES = 16


class SampleSource(Protocol):
    """Samples by split, on the grid of any level."""

    @property
    def fingerprint(self) -> str:
        """Changes when the samples do."""

    @property
    def centering(self) -> Centering:
        """Where the points of all grids lie."""

    @property
    def place(self) -> str:
        """Where the samples lie, for the log."""

    def prepare(self, counts: Mapping[str, int]) -> int:
        """Makes sure that there are enough samples; returns how many were generated."""

    def read(self, split: str, grid: Grid, count: int) -> Samples:
        """Returns the first samples of a split on a grid, in memory."""

    def open(self, split: str, grid: Grid, count: int) -> StreamedSamples:
        """Returns the first samples of a split on a grid, to be read when they are needed."""

    @property
    def time(self) -> TimeSetup | None:
        """How states become inputs, if what is predicted can be rolled out."""

    @property
    def remarks(self) -> Sequence[str]:
        """What is to be said of how the samples are read, for the log."""

    def groups(self, split: str, grid: Grid, count: int) -> Sequence[int] | None:
        """Returns the trajectory of each of the first samples; None if they are independent."""

    def trajectories(self, split: str, grid: Grid, num_steps: int) -> Trajectories | None:
        """Returns true trajectories of a split on a grid; None if there are none so long."""


class GeneratedSource:
    """Samples of a PDE, generated on the finest grid and restricted to the others.

    Those that have been read on the finest grid are kept. Without ``labelled``, training samples
    have no solutions, which are not even computed.
    """

    remarks = ()  # a PDE leaves nothing to guess

    def __init__(self, store: DataStore, labelled: bool = True) -> None:
        self.store = store
        self.labelled = labelled
        self.fingerprint = store.fingerprint
        self.centering = store.grid.centering
        self.place = str(store.path)
        self._finest: dict[str, Samples] = {}
        problem = store.problem
        self.time = TimeSetup(len(problem.output_names)) if problem.time_dependent else None

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
            place.copy_(
                torch.from_numpy(problem.draw_inputs(grid, recipe.rngs("train", [index]))[0])
            )
        outputs = torch.from_numpy(problem.initial_outputs(grid).copy()).float()
        return Samples(inputs, outputs.expand(len(indices), *outputs.shape), grid)
