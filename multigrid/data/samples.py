"""Pairs of input and output fields: in memory, or on disk to be read batch by batch."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from multigrid.fields import restrict_to
from multigrid.grid import Grid

BLOCK_POINTS = 2**21
CPU = torch.device("cpu")


def block_size(grid: Grid) -> int:
    """Returns how many samples to process at once where all may be too many for the memory."""
    return max(1, BLOCK_POINTS // grid.size)


@dataclass(frozen=True)
class Samples:
    """Input and output fields of N samples on one grid, float32, in physical units."""

    inputs: Tensor  # [N, in, *grid.shape]
    outputs: Tensor  # [N, out, *grid.shape]
    grid: Grid
    features: Sequence[Tensor] | None = None  # what a frozen trunk makes of the inputs, [N, ...]

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: slice | Tensor) -> "Samples":
        features = self.features and [tensor[index] for tensor in self.features]
        return Samples(self.inputs[index], self.outputs[index], self.grid, features)

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""
        return self.inputs.shape[1], self.outputs.shape[1]

    def restrict_to(self, grid: Grid) -> "Samples":
        """Returns the samples restricted to a coarser grid of the same hierarchy."""
        inputs = restrict_to(self.inputs, self.grid, grid)
        outputs = restrict_to(self.outputs, self.grid, grid)
        return Samples(inputs.contiguous(), outputs.contiguous(), grid)

    def to(self, device: torch.device) -> "Samples":
        """Returns the samples on a device."""
        return Samples(self.inputs.to(device), self.outputs.to(device), self.grid)

    def split(self, size: int) -> Iterator["Samples"]:
        """Yields the samples in order, at most ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def batches(self, indices: Sequence[Tensor]) -> Generator["Samples"]:
        """Yields a batch for each index tensor."""
        for index in indices:
            yield self[index.to(self.inputs.device)]


@dataclass(frozen=True)
class StreamedSamples:
    """Samples that are read when they are asked for, restricted to a grid, and not kept.

    Indexing gives the same bits as indexing the same samples held in memory.
    """

    load: Callable[[np.ndarray], Samples]  # reads samples by their numbers, in any order
    count: int
    num_channels: tuple[int, int]  # of inputs and of outputs
    stored_grid: Grid  # of what is read
    grid: Grid  # to restrict it to, of the same hierarchy
    device: torch.device = CPU  # where to put it

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: slice | Tensor) -> Samples:
        numbers = torch.arange(len(self))[index].numpy()
        inputs, outputs = (
            torch.empty(len(numbers), channels, *self.grid.shape) for channels in self.num_channels
        )
        size = block_size(self.stored_grid)
        for start in range(0, len(numbers), size):
            part = slice(start, start + size)
            samples = self.load(numbers[part]).restrict_to(self.grid)
            inputs[part], outputs[part] = samples.inputs, samples.outputs
        return Samples(inputs, outputs, self.grid).to(self.device)

    def to(self, device: torch.device) -> "StreamedSamples":
        """Returns the samples, to be put on a device when they are read."""
        return replace(self, device=device)

    def split(self, size: int) -> Iterator[Samples]:
        """Yields the samples in order, at most ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def batches(self, indices: Sequence[Tensor]) -> Generator[Samples]:
        """Yields a batch for each index tensor; a thread reads one ahead until the last is out."""
        with ThreadPoolExecutor(1, "samples") as reader:
            coming = reader.submit(self.__getitem__, indices[0])
            for index in indices[1:]:
                batch = coming.result()
                coming = reader.submit(self.__getitem__, index)
                yield batch
            yield coming.result()


TrainingSamples = Samples | StreamedSamples
