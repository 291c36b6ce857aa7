"""What may follow the encoder at the bottleneck; shapes depend on its grid."""

from typing import Literal

import torch
from torch import Tensor, nn

from multigrid.errors import UserError
from multigrid.grid import Grid

Bottleneck = Literal["conv", "dense", "attention"]

MAX_POINTS = 4096


class DenseBottleneck(nn.Module):
    """A linear map between all points of the grid, the same for each channel, around a skip."""

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(grid.size, grid.size)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, C, *grid]`` to the same shape."""
        return x + self.mix(x.flatten(2)).reshape(x.shape)


class AttentionBottleneck(nn.Module):
    """Self-attention over all points of the grid around a skip, with a learned position embedding.

    Pre-normalised, after Vaswani et al., arXiv:1706.03762, and Xiong et al., arXiv:2002.04745.
    """

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()
        self.position = PositionEmbedding(grid.size, width)
        self.norm = nn.LayerNorm(width)
        heads = next(n for n in (4, 3, 2, 1) if width % n == 0)
        self.attend = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, C, *grid]`` to the same shape."""
        points = self.norm(self.position(x.flatten(2).mT))
        mixed, _ = self.attend(points, points, points, need_weights=False)
        return x + mixed.mT.reshape(x.shape)


class PositionEmbedding(nn.Module):
    """Adds a learned vector to each point."""

    def __init__(self, num_points: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_points, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws small random vectors."""
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, points, C]`` to the same shape."""
        return x + self.weight


def build_bottleneck(kind: Bottleneck, grid: Grid, width: int) -> nn.Module | None:
    """Returns what follows the encoder of the coarsest scale; nothing for ``conv``.

    Raises:
        UserError: If the grid has too many points for all of them to be connected.
    """
    if kind == "conv":
        return None
    if grid.size > MAX_POINTS:
        raise UserError(
            f"model.bottleneck: '{kind}' connects all points of the bottleneck's grid, {grid}, of "
            f"which there may be {MAX_POINTS} at most; use 'conv' or more scales (model.depth)"
        )
    return (DenseBottleneck if kind == "dense" else AttentionBottleneck)(grid, width)
