"""Pairs of input and output fields in memory."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multigrid.fields import restrict_to
from multigrid.grid import Grid

BLOCK_POINTS = 2**21


def block_size(grid: Grid) -> int:
    """Returns how many samples to work on at once where all of them may be too many."""
    return max(1, BLOCK_POINTS // grid.size)


@dataclass(frozen=True)
class Samples:
    """Input and output fields of N samples on one grid, float32, in physical units.

    Attributes:
        inputs: Tensor ``[N, in, *grid.shape]``.
        outputs: Tensor ``[N, out, *grid.shape]``.
        grid: Their grid.
        features: Results of the frozen part of a network on a batch, by name, if they are known.
    """

    inputs: Tensor
    outputs: Tensor
    grid: Grid
    features: Mapping[str, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: slice | Tensor) -> "Samples":
        features = self.features
        if features is not None:
            features = {name: tensor[index] for name, tensor in features.items()}
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
