"""Running out of memory: a batch is then taken in microbatches."""

import logging
import math
from collections.abc import Callable, Sequence

import torch

from multigrid.data.samples import Samples
from multigrid.distributed.processes import ALONE, Processes
from multigrid.errors import UserError

log = logging.getLogger(__name__)

Weighted = Sequence[tuple[Samples, float]]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


class Microbatches:
    """How many samples of a batch are taken at once.

    Args:
        size: Samples at once, as configured.
        batch_size: Samples of a whole batch, in all processes.
        split: Whether to halve that when they do not fit into memory; a single process only.
        processes: The processes that share each batch.

    Attributes:
        size: Samples at once, as far as is known to fit.
    """

    def __init__(
        self, size: int, batch_size: int, split: bool = True, processes: Processes = ALONE
    ) -> None:
        self.size = size
        self.largest_share = processes.largest_share(batch_size)
        self.split = split
        self.processes = processes

    def run(self, backward: Callable[[Weighted], float], samples: Samples, share: float) -> float:
        """Calls ``backward`` with the microbatches of a batch until they fit.

        Args:
            backward: Takes microbatches and their shares of the whole batch, returns the loss.
            samples: This process's samples of the batch.
            share: The share of the whole batch that they are.

        Returns:
            The loss of the whole batch.

        Raises:
            UserError: If there is not enough memory.
        """
        while True:
            try:
                return self.processes.total(backward(self._divide(samples, share)))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._halve(samples)  # here the error no longer keeps tensors alive

    def _divide(self, samples: Samples, share: float) -> Weighted:
        """Returns microbatches with their shares, equally many in all processes."""
        divided = [(micro, share * len(micro) / len(samples)) for micro in samples.split(self.size)]
        if self.processes.size > 1:  # all exchange gradients equally often
            most = math.ceil(self.largest_share / self.size)
            divided += [(samples[:1], 0.0)] * (most - len(divided))
        return divided

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
