"""Compiling the networks of a run by ``torch.compile``, with a way back where that fails."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from multigrid.data.samples import Samples
from multigrid.data.streaming import TrainingSamples
from multigrid.distributed.processes import Processes
from multigrid.grid import Grid
from multigrid.models.layers import channels_layout
from multigrid.training.batches import Batch
from multigrid.training.featurization import FeaturizedSamples
from multigrid.training.gradient import Gradient

log = logging.getLogger(__name__)

GRAPH_POINTS = 64**2
"""Points of the largest grid on which a GPU is kept waiting by the start of its operations."""


class Compiler:
    """Compiles the networks of a run, one for each visit to a level, until that fails once.

    Shapes are fixed, so that each size of a batch is compiled for itself. What has been compiled is
    kept on disk by PyTorch, and is used again when the same network is trained on the same grid.
    On CUDA, grids up to 64x64 are run as CUDA graphs; that is untested, as no GPU was at hand.

    Args:
        processes: The processes that train together.

    Attributes:
        has_failed: Whether to leave networks as they are from here on.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.has_failed = False

    def compile(self, network: nn.Module, grid: Grid) -> Callable[[Tensor], Tensor]:
        """Returns what does the same as a network, compiled once it is called.

        What was compiled before is forgotten.

        Args:
            network: Maps ``[N, in, *grid]`` to ``[N, out, *grid]``.
            grid: Grid of the fields.
        """
        torch.compiler.reset()  # PyTorch gives up after some shapes of the same code
        on_gpu = next(network.parameters()).device.type == "cuda"
        mode = "reduce-overhead" if on_gpu and grid.size <= GRAPH_POINTS else "default"
        compiled = torch.compile(network, dynamic=False, mode=mode)
        return lambda x: compiled(_with_usual_strides(x))

    def give_up(self, grid: Grid, reason: str) -> None:
        """Says that networks are not compiled from here on."""
        self.has_failed = True
        log.warning(
            "compute.compile: the network on %s could not be compiled, so training goes on "
            "without: %s",
            grid,
            reason,
        )


class Compiled:
    """The network of one stage, compiled or not.

    Every size of a batch is tried out before the first step that needs it, so that nothing is lost
    where the compilation fails, for want of a C++ compiler for instance.

    Args:
        gradient: Computes gradients with the network.
        train: The training samples.
        compiler: Compiles it, or None.
    """

    def __init__(
        self,
        gradient: Gradient,
        train: TrainingSamples | FeaturizedSamples,
        compiler: Compiler | None,
    ) -> None:
        self.gradient = gradient
        self.train = train
        self.compiler = compiler
        self._sizes: set[int] = set()

    @property
    def active(self) -> bool:
        """Whether the network is compiled."""
        return self.gradient.compiled is not None

    def renew(self) -> None:
        """Takes note of that other parameters are trained from here on."""
        self._sizes.clear()

    def prepare(self, planned: Sequence[Batch]) -> float:
        """Compiles for batches to come; returns the seconds that it took."""
        compiler = self.compiler
        if compiler is None or compiler.has_failed:
            return 0.0
        started, num_known, reason = time.perf_counter(), len(self._sizes), None
        try:
            for samples in self._new(planned):
                self._try_out(samples, compiler)
        except Exception as error:  # whatever it is, training does not need it
            reason = _first_line(error)
        if compiler.processes.any(reason is not None):
            self.gradient.compiled = None
            compiler.give_up(self.train.grid, reason or "it failed in another process")
        seconds = time.perf_counter() - started
        if self.active and len(self._sizes) > num_known:
            log.info("compiled for %s in %.1f s", self.train.grid, seconds)
        return seconds

    def _new(self, planned: Sequence[Batch]) -> Iterator[Samples]:
        """Yields a batch of every size that has not been tried out."""
        batches = {len(batch.places): batch for batch in reversed(planned)}
        for size in sorted(batches.keys() - self._sizes, reverse=True):
            batch = batches[size]
            (sources,) = self.train.batches([batch.sources])
            yield batch.make(sources)
            self._sizes.add(size)

    def _try_out(self, samples: Samples, compiler: Compiler) -> None:
        gradient = self.gradient
        if gradient.compiled is None:
            gradient.rehearse(samples[:1])  # what is computed once is not to be traced
            gradient.compiled = compiler.compile(gradient.surrogate.network, samples.grid)
        gradient.rehearse(samples)


def _with_usual_strides(x: Tensor) -> Tensor:
    """Lays fields out such that equal shapes have equal strides, as each is compiled for itself.

    Along axes of one element, strides mean nothing, but depend on where the fields come from.
    """
    layout = channels_layout(x.ndim)
    strides = torch.empty(x.shape, device="meta", memory_format=layout).stride()
    return x.contiguous(memory_format=layout).as_strided(x.shape, strides)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
