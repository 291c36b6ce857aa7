"""Running out of memory: the batch is taken in parts."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from multigrid.data.samples import Samples
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
        part_size: Samples at once, as far as is known.
        accumulate: Whether to go on with parts when a batch does not fit.
    """

    part_size: int
    accumulate: bool = True

    def reduce(self, compute: Callable[[Samples, int], float], batch: Samples) -> float:
        """Calls ``compute(batch, part_size)``, with smaller and smaller parts until they fit.

        Raises:
            UserError: If not even one sample fits, or parts are not allowed.
        """
        while True:
            try:
                return compute(batch, self.part_size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # here the error no longer keeps the tensors of the failed attempt alive
            self._halve(batch)

    def _halve(self, batch: Samples) -> None:
        tried, half = min(self.part_size, len(batch)), min(self.part_size, len(batch)) // 2
        what = f"out of memory with {tried} samples at once on the {batch.grid} grid"
        if half == 0:
            raise UserError(f"{what}; not even one fits: use a smaller model.width or grid")
        if not self.accumulate:
            raise UserError(
                f"{what}; try schedule.batch_size={half}, or recovery.accumulate=true to take "
                "each batch in parts"
            )
        if batch.inputs.device.type == "cuda":
            torch.cuda.empty_cache()
        self.part_size = half
        log.warning(
            "%s: each batch is now taken in parts of %d, which gives the same gradient up to "
            "rounding; schedule.batch_size=%d may do without",
            what,
            half,
            half,
        )
