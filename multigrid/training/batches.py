"""The samples of each step and their augmentation: pure functions of the seed."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.distributed import ALONE, Processes
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.problems.base import Symmetries
from multigrid.schedule import Stage
from multigrid.training.augmentation import Augmentation, draw

log = logging.getLogger(__name__)


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


Weighted = Sequence[tuple[Samples, float]]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


class Microbatches:
    """How many samples of a batch are taken at once, as far as is known to fit."""

    def __init__(self, stage: Stage, split: bool, processes: Processes) -> None:
        self.size = stage.part_size(processes)
        self.largest_share = processes.largest_share(stage.batch_size)
        self.split = split
        self.processes = processes

    def run(self, backward: Callable[[Weighted], float], samples: Samples, share: float) -> float:
        """Calls ``backward`` with the microbatches of a batch until they fit; returns the loss."""
        while True:
            try:
                return self.processes.total(backward(self._divide(samples, share)))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._halve(samples)  # here the error no longer keeps tensors alive

    def _divide(self, samples: Samples, share: float) -> Weighted:
        """Returns microbatches with their shares, equally many in all processes."""
        if self.processes.size == 1 and len(samples) <= self.size:
            return [(samples, share)]
        divided = [(micro, share * len(micro) / len(samples)) for micro in samples.split(self.size)]
        most = math.ceil(self.largest_share / self.size)  # all exchange gradients equally often
        return divided + [(samples[:1], 0.0)] * (most - len(divided))

    def _halve(self, samples: Samples) -> None:
        size = min(self.size, len(samples))
        what = f"out of memory with {size} samples at once on the {samples.grid} grid"
        if self.processes.size > 1:
            raise UserError(
                f"{what}; use a larger parallel.accumulate, "
                "parallel.checkpoint_activations=true or a smaller schedule.batch_size"
            )
        if size == 1:
            raise UserError(f"{what}; not even one fits: use a smaller model.width or grid")
        if not self.split:
            raise UserError(
                f"{what}; try schedule.batch_size={size // 2}, or recovery.split_batches=true to "
                "take each batch in microbatches"
            )
        if samples.inputs.device.type == "cuda":
            torch.cuda.empty_cache()
        self.size = size // 2
        log.warning(
            "%s: each batch is now taken in microbatches of %d, which gives the same gradient up "
            "to rounding",
            what,
            self.size,
        )
