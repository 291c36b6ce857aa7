"""Pairs of input and output fields in memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from multigrid.fields import restrict_to
from multigrid.grid import Grid


@dataclass(frozen=True)
class Samples:
    """Input and output fields of N samples on one grid, float32, in physical units.

    Attributes:
        inputs: Tensor ``[N, in, *grid.shape]``.
        outputs: Tensor ``[N, out, *grid.shape]``.
        grid: Their grid.
    """

    inputs: Tensor
    outputs: Tensor
    grid: Grid

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: slice | Tensor) -> "Samples":
        return Samples(self.inputs[index], self.outputs[index], self.grid)

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
