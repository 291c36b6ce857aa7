"""One resolution of a UNet, with its transitions to the next coarser one."""

from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from multigrid.grid import Grid
from multigrid.hardware import full_precision
from multigrid.models.blocks import Down, Head, Normalization, Padding, ResidualBlock, Stem, Up

AUTOCAST_POINTS = 64
"""Points of the smallest grid whose features may be in bfloat16: 8x8, or 4x4x4."""


class Scale(nn.Module):
    """Everything a UNet does at one resolution, and its transitions to the next coarser one.

    Args:
        grid: The grid.
        width: Number of channels of its features.
        coarser_width: That of the next coarser scale; None at the bottleneck.
        in_channels: Number of input fields, or None for no stem.
        out_channels: Number of output fields, or None for no head.
        num_blocks: Residual blocks in the encoder and in the decoder.
        padding: What lies outside the grid for the convolutions.
        norm: Normalisation layer in front of each convolution of a block.
        bottleneck: What follows the encoder, or None.

    Attributes:
        grid: The grid.
        stem: Lifts the input fields to the width, or None.
        encoder: Residual blocks on the way down.
        bottleneck: What follows them at the bottleneck, or None.
        down: Strided convolution to the next coarser scale; None at the bottleneck.
        up: Transposed convolution from the next coarser scale; None at the bottleneck.
        decoder: Residual blocks on the way up; None at the bottleneck.
        head: Projects features to the output fields, or None.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        width: int,
        coarser_width: int | None,
        in_channels: int | None,
        out_channels: int | None,
        num_blocks: int,
        padding: Padding,
        norm: Normalization,
        bottleneck: nn.Module | None = None,
    ) -> None:
        super().__init__()
        ndim, centering = grid.ndim, grid.centering
        self.grid = grid
        self.stem = Stem(ndim, in_channels, width, padding) if in_channels else None
        self.encoder = _blocks(num_blocks, ndim, width, padding, norm)
        self.bottleneck = bottleneck
        self.down: Down | None = None
        self.up: Up | None = None
        self.decoder: nn.Sequential | None = None
        if coarser_width is not None:
            self.down = Down(ndim, width, coarser_width, centering, padding)
            self.up = Up(ndim, coarser_width, width, centering, padding)
            self.decoder = _blocks(num_blocks, ndim, width, padding, norm)
        self.head = Head(ndim, width, out_channels) if out_channels else None

    def encode(self, *parts: Tensor) -> Tensor:
        """Returns the encoder's features.

        Args:
            parts: The input fields on this grid ``[N, in, *grid]`` if there is a stem, and the
                features that came down from the next finer scale ``[N, width, *grid]`` if there
                is one.
        """
        with self._precision(parts[0].device):
            if self.grid.size < AUTOCAST_POINTS:
                parts = tuple(part.to(next(self.parameters()).dtype) for part in parts)
            lifted = parts if self.stem is None else (self.stem(parts[0]), *parts[1:])
            features = self.encoder(sum(lifted[1:], start=lifted[0]))
            return features if self.bottleneck is None else self.bottleneck(features)

    def send_down(self, features: Tensor) -> Tensor:
        """Returns what the encoder's features add to those of the next coarser scale."""
        assert self.down is not None
        with self._precision(features.device):
            return cast(Tensor, self.down(features))

    def merge(self, skip: Tensor, coarser: Tensor) -> Tensor:
        """Returns what the decoder takes; not to be called at the bottleneck.

        Args:
            skip: The encoder's features ``[N, width, *grid]``.
            coarser: Decoder features of the next coarser scale.
        """
        assert self.up is not None
        with self._precision(skip.device):
            return skip + self.up(coarser, tuple(skip.shape[2:]))

    def decode(self, merged: Tensor) -> Tensor:
        """Returns the decoder's features ``[N, width, *grid]``; not to be called at the bottleneck.

        Args:
            merged: What :meth:`merge` gave.
        """
        assert self.decoder is not None
        with self._precision(merged.device):
            return self.decoder(merged)

    def correct(self, features: Tensor) -> Tensor:
        """Returns what the head makes of features: a correction ``[N, out, *grid]``."""
        assert self.head is not None
        with self._precision(features.device):
            return self.head(features)

    def _precision(self, device: torch.device) -> AbstractContextManager[None]:
        """Returns the context to compute in: autocast, if it is on at all, but for small grids.

        There float32 costs nothing, and what they do reaches every point.
        """
        return full_precision(device) if self.grid.size < AUTOCAST_POINTS else nullcontext()


def _blocks(
    num_blocks: int, ndim: int, width: int, padding: Padding, norm: Normalization
) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(ndim, width, padding, norm) for _ in range(num_blocks)))
