"""The UNet whose outer scales come and go with the grid."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, cast

import torch
from torch import Tensor, nn

from multigrid.fields import prolong, restrict
from multigrid.grid import Grid
from multigrid.hardware import full_precision
from multigrid.models.cost import count_parameters, scale_flops
from multigrid.models.layers import (
    ActivationCheckpointing,
    Bottleneck,
    Down,
    Head,
    Normalization,
    Padding,
    ResidualBlock,
    Stem,
    Up,
    build_bottleneck,
)
from multigrid.tables import si, table

Form = Literal["pyramid", "classic"]

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

    def encode(self, x: Tensor, finer: Tensor | None) -> Tensor:
        """Returns the encoder's features ``[N, width, *grid]``.

        Args:
            x: The input fields on this grid ``[N, in, *grid]``; not looked at without a stem.
            finer: What the next finer scale sent down ``[N, width, *grid]``, or None.
        """
        with self._precision(x.device):
            if self.grid.size < AUTOCAST_POINTS:
                dtype = next(self.parameters()).dtype
                x, finer = x.to(dtype), None if finer is None else finer.to(dtype)
            lifted = [] if self.stem is None else [self.stem(x)]
            lifted += [] if finer is None else [finer]
            features = self.encoder(sum(lifted[1:], start=lifted[0]))
            return features if self.bottleneck is None else self.bottleneck(features)

    def send_down(self, features: Tensor) -> Tensor:
        """Returns what the encoder's features add to those of the next coarser scale."""
        assert self.down is not None
        with self._precision(features.device):
            return cast(Tensor, self.down(features))

    def decode(self, skip: Tensor, coarser: Tensor) -> Tensor:
        """Returns the decoder's features ``[N, width, *grid]``; not to be called at the bottleneck.

        Args:
            skip: The encoder's features ``[N, width, *grid]``.
            coarser: Decoder features of the next coarser scale.
        """
        assert self.up is not None
        assert self.decoder is not None
        with self._precision(skip.device):
            return self.decoder(skip + self.up(coarser, tuple(skip.shape[2:])))

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


class UNet(ActivationCheckpointing):
    """A UNet on the scales of a hierarchy, whose coarse part is a network in its own right.

    In the *pyramid* form every scale has a stem, fed with the restricted input, and a head; the
    outputs of all heads are summed, each prolonged to the grid of the top,
    ``u_h = P u_H + head_h(d_h)``, like a coarse-grid correction. The network on fewer scales is
    a sub-network, parameter for parameter. In the *classic* form only the top scale has a stem
    and a head.

    Parameters are named ``scales.<k>.<part>...`` with k counted from the bottleneck, so a name
    means the same in a network of any size.

    Args:
        grids: Grids of the scales, coarsest first; neighbours differ by one halving. The network
            takes fields on the last one.
        widths: Number of channels of each scale, coarsest first.
        in_channels: Number of input fields.
        out_channels: Number of output fields.
        form: ``pyramid`` or ``classic``.
        num_blocks: Residual blocks per encoder and per decoder of a scale.
        padding: What lies outside the grid for the convolutions.
        norm: Normalisation layer in front of each convolution of a block.
        prolongation: Polynomial degree of the prolongation of outputs (pyramid only).
        bottleneck: ``conv``, or what else follows the encoder of the coarsest scale.

    Attributes:
        tail: Patterns of the names of what turns features into fields.
        checkpoint_activations: Whether the backward pass of a training step recomputes the
            activations within encoders, decoders and heads instead of keeping them.
    """

    tail = ("*.head",)

    def __init__(
        self,
        grids: Sequence[Grid],
        widths: Sequence[int],
        in_channels: int,
        out_channels: int,
        form: Form = "pyramid",
        num_blocks: int = 1,
        padding: Padding = "zeros",
        norm: Normalization = "none",
        prolongation: int = 4,
        bottleneck: Bottleneck = "conv",
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_blocks = num_blocks
        self.norm: Normalization = norm
        self.bottleneck: Bottleneck = bottleneck
        self.grids = tuple(grids)
        self.widths = tuple(widths)
        self.form: Form = form
        self.padding: Padding = padding
        self.prolongation = prolongation
        top = len(self.grids) - 1
        self.scales = nn.ModuleList(
            Scale(
                grid,
                width=widths[k],
                coarser_width=widths[k - 1] if k else None,
                in_channels=in_channels if form == "pyramid" or k == top else None,
                out_channels=out_channels if form == "pyramid" or k == top else None,
                num_blocks=num_blocks,
                padding=padding,
                norm=norm,
                bottleneck=None if k else build_bottleneck(bottleneck, grid, widths[0]),
            )
            for k, grid in enumerate(self.grids)
        )

    def __str__(self) -> str:
        flops = scale_flops(self, (1, self.in_channels, *self.grids[-1].shape))
        rows = [
            [str(k), str(grid), str(width), f"{count_parameters(scale):,}", si(count)]
            for k, (grid, width, scale, count) in enumerate(
                zip(self.grids, self.widths, self.scales, flops, strict=True)
            )
        ]
        return table(["Scale", "Grid", "Width", "Parameters", "FLOPs/sample"], rows)

    def iter_scales(self) -> Iterator[Scale]:
        """Yields the scales, coarsest first."""
        return (cast(Scale, scale) for scale in self.scales)

    def forward(self, x: Tensor) -> Tensor:
        """Maps input fields ``[N, in, *grid]`` to output fields ``[N, out, *grid]``."""
        return self.finish(self.features(x))

    def features(self, x: Tensor) -> list[Tensor]:
        """Returns what the heads are given: each scale's features ``[N, width, *grid]``.

        Down to the coarsest scale and up again. The list has an entry for every scale, coarsest
        first.

        Args:
            x: Input fields ``[N, in, *grid]``.
        """
        skips: list[Tensor] = []
        from_finer = None
        for scale in reversed(list(self.iter_scales())):
            skips.append(self.compute(scale.encode, x, from_finer))
            if scale.down is not None:
                from_finer = scale.send_down(skips[-1])
                x = restrict(x, scale.grid) if self.form == "pyramid" else x
        features = [skips.pop()]
        for scale in list(self.iter_scales())[1:]:
            features.append(self.compute(scale.decode, skips.pop(), features[-1]))
        return features

    def finish(self, features: Sequence[Tensor]) -> Tensor:
        """Returns the output fields ``[N, out, *grid]``: all heads' corrections, prolonged.

        Args:
            features: What :meth:`features` gave.
        """
        output = None
        for scale, decoded in zip(self.iter_scales(), features, strict=True):
            if scale.head is not None:
                correction = self.compute(scale.correct, decoded)
                output = correction if output is None else self._add(output, correction, scale.grid)
        assert output is not None
        return output

    def _add(self, output: Tensor, correction: Tensor, grid: Grid) -> Tensor:
        """Adds a head's correction on a grid to the output of the scales below, prolonged to it."""
        with full_precision(output.device):
            output = prolong(output, grid, self.prolongation, periodic=self.padding == "periodic")
        return output + correction


def _blocks(
    num_blocks: int, ndim: int, width: int, padding: Padding, norm: Normalization
) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(ndim, width, padding, norm) for _ in range(num_blocks)))
