"""The samples of each step and their augmentation: pure functions of the seed."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.distributed import ALONE, Processes
from multigrid.grid import Grid
from multigrid.problems.base import Symmetries
from multigrid.training.augmentation import Augmentation, draw


@dataclass(frozen=True)
class Batch:
    """One process's part of the batch of a step, which has its samples at ``places``.

    ``share`` is the part of the batch they stand for: 0 for a process that has no samples and
    borrows one, so as to keep in step with the others.
    """

    indices: Tensor
    places: np.ndarray
    share: float
    augmentation: Augmentation | None

    @property
    def sources(self) -> Tensor:
        """Numbers of the samples that this process needs."""
        if len(self.places) == len(self.indices):
            return self.indices
        drawn = self.augmentation
        places = drawn.sources(self.places) if drawn else self.places
        return self.indices[torch.from_numpy(places)]

    def make(self, sources: Samples) -> Samples:
        """Returns this process's samples, augmented, from those that it needs."""
        return self.augmentation.apply(sources, self.places) if self.augmentation else sources


@dataclass(frozen=True)
class Batches:
    """The batches of every epoch of a stage; ``key`` is the seed and the number of the stage.

    All processes draw the same for the whole batch, and each takes its share.
    """

    count: int
    grid: Grid
    size: int
    key: tuple[int, int]
    symmetries: Symmetries | None
    processes: Processes = ALONE
    mode_shifts: float = 0.0

    @property
    def num_steps(self) -> int:
        """Number of steps of an epoch."""
        return math.ceil(self.count / self.size)

    def epoch(self, epoch: int, first: int = 0) -> list[Batch]:
        """Returns the batches of an epoch, from step ``first`` on."""
        order = torch.from_numpy(self.rng(epoch).permutation(self.count))
        parts = list(enumerate(order.split(self.size)))
        return [self._batch(epoch, step, indices) for step, indices in parts[first:]]

    def rng(self, *key: int) -> np.random.Generator:
        """Returns random numbers that depend on seed, stage and key alone."""
        seed, stage = self.key
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stage, *key)))

    def _batch(self, epoch: int, step: int, indices: Tensor) -> Batch:
        places = np.arange(len(indices))[self.processes.share(len(indices))]
        share = len(places) / len(indices)
        drawn = None
        if self.symmetries is not None:
            rng = self.rng(epoch, step)
            drawn = draw(len(indices), self.grid, self.symmetries, rng, self.mode_shifts)
        return Batch(indices, places if share else np.arange(1), share, drawn)
