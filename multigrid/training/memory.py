"""Running out of memory: the batch is taken in parts."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from multigrid.data.samples import Samples
from multigrid.distributed.processes import ALONE, Processes
from multigrid.errors import UserError

log = logging.getLogger(__name__)

CPU_SIGN = "DefaultCPUAllocator"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on a GPU or here."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and CPU_SIGN in str(error)


@dataclass
class MemoryLimit:
    """How much of a batch fits into the memory at once.

    Attributes:
        planned: Samples at once, as the configuration wants it.
        split_batches: Whether to go on with smaller parts when they do not fit.
        processes: The processes that take part in each step.
        num_parts: In how many parts a process takes its share of a batch as planned.
        limit: Samples at once that may fit, once more did not; None before.
    """

    planned: int
    split_batches: bool = True
    processes: Processes = ALONE
    num_parts: int = 1
    limit: int | None = None
    _known_to_fit: bool = False

    def renew(self) -> None:
        """Forgets that a batch has fitted, as another one may take more from here on."""
        self._known_to_fit = False

    @property
    def part_size(self) -> int:
        """Samples at once, as far as is known."""
        return self.planned if self.limit is None else min(self.planned, self.limit)

    def reduce(self, compute: Callable[[int, bool], float], samples: Samples) -> float:
        """Calls ``compute(part_size, True)``, with smaller and smaller parts until they fit.

        Processes wait for each other in such a call, so where one of them may lack
        memory, each tries alone first, with ``compute(part_size, False)``.

        Raises:
            UserError: If not even one sample fits, or parts are not allowed.
        """
        alone = self.processes.size == 1
        while not (alone or self.processes.shards or self._known_to_fit):
            lacking = self._try(partial(compute, self.part_size, False)) is None
            if self.processes.any(lacking):
                self._halve(samples)
            else:
                self._known_to_fit = True
        while True:
            result = self._try(partial(compute, self.part_size, True))
            if result is not None:
                return result
            if not alone:
                raise UserError(
                    f"{self._lack(samples)}; use a larger parallel.accumulate, "
                    "parallel.checkpoint_activations=true or a smaller schedule.batch_size"
                )
            self._halve(samples)

    def _try(self, compute: Callable[[], float]) -> float | None:
        """Returns the result, or None if the memory does not suffice."""
        try:
            return compute()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return None  # here the error no longer keeps the tensors of the failed attempt alive

    def _size(self, samples: Samples) -> int:
        return min(self.part_size, len(samples)) if self.processes.size == 1 else self.part_size

    def _lack(self, samples: Samples) -> str:
        return (
            f"out of memory with {self._size(samples)} samples at once on the {samples.grid} grid"
        )

    def _halve(self, samples: Samples) -> None:
        half, what = self._size(samples) // 2, self._lack(samples)
        if half == 0:
            raise UserError(f"{what}; not even one fits: use a smaller model.width or grid")
        if not self.split_batches:
            raise UserError(
                f"{what}; try schedule.batch_size="
                f"{half * self.num_parts * self.processes.size}, or "
                "recovery.split_batches=true to take each batch in parts"
            )
        if samples.inputs.device.type == "cuda":
            torch.cuda.empty_cache()
        self.limit = half
        log.warning(
            "%s: each batch is now taken in parts of %d, which gives the same gradient up to "
            "rounding; schedule.batch_size=%d may do without",
            what,
            half,
            half * self.num_parts * self.processes.size,
        )
