"""The UNet whose number of scales follows the grid."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from multigrid.fields import prolong_to, restrict_to
from multigrid.grid import Grid
from multigrid.hardware import full_precision
from multigrid.models.layers import (
    Activation,
    ActivationCheckpointing,
    Down,
    Head,
    Normalization,
    Padding,
    Stem,
    Up,
    fold,
    folding_factors,
    unfold,
    wraps,
)
from multigrid.registry import BLOCKS

Form = Literal["pyramid", "classic"]

AUTOCAST_POINTS = 64
"""Points of the smallest grid whose features may be in bfloat16: 8x8, or 4x4x4."""


class Scale(nn.Module):
    """Everything a UNet does at one resolution, and its transitions to the next coarser one.

    The grid of its fields may be finer than that of its features: they are folded then. ``down``,
    ``up`` and ``decoder`` are None at the bottleneck; stem and head are None in the classic form
    but at the top.
    """

    def __init__(
        self,
        grid: Grid,
        field_grid: Grid,
        *,
        width: int,
        coarser_width: int | None,
        channels: tuple[int, int] | None,
        num_blocks: int,
        block: str,
        block_options: Mapping[str, Any],
        padding: Padding,
        norm: Normalization,
        activation: Activation,
    ) -> None:
        super().__init__()
        ndim, centering = grid.ndim, grid.centering
        chosen = BLOCKS.configured(block, block_options, "model.options")
        build = partial(chosen, ndim, width, padding, norm)
        if activation != "silu":  # which blocks of the user's need not know
            build = partial(build, activation=activation)
        self.grid = grid
        self.field_grid = field_grid
        self.factors = folding_factors(field_grid, grid)
        folded = math.prod(self.factors)  # values laid into the channels of a point
        self.stem = Stem(ndim, channels[0] * folded, width, padding) if channels else None
        self.encoder = nn.Sequential(*(build() for _ in range(num_blocks)))
        self.down: Down | None = None
        self.up: Up | None = None
        self.decoder: nn.Sequential | None = None
        if coarser_width is not None:
            self.down = Down(ndim, (width, coarser_width), centering, padding)
            self.up = Up(ndim, (coarser_width, width), centering, padding)
            self.decoder = nn.Sequential(*(build() for _ in range(num_blocks)))
        hidden = max(Head.HIDDEN, 2 * folded)
        self.head: Head | None = None
        if channels is not None:
            self.head = Head(ndim, width, channels[1] * folded, hidden, activation)

    def precision(self, device: torch.device) -> AbstractContextManager[None]:
        """Returns the context to compute in: autocast, if it is on, but float32 on small grids.

        There it costs nothing, and rounding errors would reach every point.
        """
        return full_precision(device) if self.grid.size < AUTOCAST_POINTS else nullcontext()

    def encode(self, x: Tensor, finer: Tensor | None) -> Tensor:
        """Returns the encoder's features of fields and of what the next finer scale sent down."""
        if self.grid.size < AUTOCAST_POINTS:
            dtype = next(self.parameters()).dtype
            x, finer = x.to(dtype), None if finer is None else finer.to(dtype)
        if self.stem is not None:
            lifted = self.stem(fold(x, self.factors))
            finer = lifted if finer is None else lifted + finer
        return self.encoder(finer)

    def decode(self, skip: Tensor, coarser: Tensor) -> Tensor:
        """Returns the decoder's features ``[N, width, *grid]``; not for the bottleneck."""
        assert self.up is not None
        assert self.decoder is not None
        return self.decoder(skip + self.up(coarser, tuple(skip.shape[2:])))

    def correct(self, features: Tensor) -> Tensor:
        """Returns the head's output: a correction ``[N, out, *field_grid]``."""
        assert self.head is not None
        return unfold(self.head(features), self.factors, self.field_grid.shape)


class UNet(ActivationCheckpointing):
    """A UNet on the scales of a hierarchy, whose coarse part is a network in its own right.

    In the *pyramid* form every scale has a stem, fed with the restricted input, and a head; the
    outputs of all heads are summed, each prolonged to the grid of the top,
    ``u_h = P u_H + head_h(d_h)``, like a coarse-grid correction. The network on fewer scales is
    a sub-network, parameter for parameter. In the *classic* form only the top scale has a stem
    and a head.

    *Folded* scales take the fields of a finer grid with each block of values laid into channels,
    and give their output likewise, so that a network on coarse grids sees and predicts all of the
    fine fields; see :func:`multigrid.models.layers.fold`. The scales below them work on restricted
    fields. A further folded scale adds to the output on the fine grid itself.

    Parameters are named ``scales.<k>.<part>...`` with k counted from the bottleneck, so a name
    means the same in a network of any size.

    Args:
        grids: Grids of the scales, coarsest first; neighbours differ by one halving.
        widths: Number of channels of each scale, coarsest first.
        num_blocks: Blocks per encoder and per decoder of a scale.
        padding: What lies outside the grid for the convolutions.
        norm: Normalisation layer in front of each convolution of a block.
        block: Registered name of the blocks, built as ``block(ndim, width, padding, norm)`` with
            ``block_options`` by keyword.
        activation: That of blocks and heads; ``none`` makes the network an affine map, for problems
            that are linear.
        prolongation: Polynomial degree of the prolongation of outputs (pyramid only).
        field_grid: Grid of the fields that the network takes and gives; by default that of the top
            scale. A finer one, of which that is a coarsening, is folded.
        first_folded: The first scale that works on the fields of ``field_grid``; by default the
            top one.

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
        block: str = "residual",
        prolongation: int = 4,
        field_grid: Grid | None = None,
        first_folded: int | None = None,
        activation: Activation = "silu",
        block_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_blocks = num_blocks
        self.norm: Normalization = norm
        self.block = block
        self.block_options = dict(block_options or {})
        self.activation: Activation = activation
        self.grids = tuple(grids)
        self.widths = tuple(widths)
        self.form: Form = form
        self.padding: Padding = padding
        self.prolongation = prolongation
        top = len(self.grids) - 1
        self.field_grid = field_grid or self.grids[top]
        self.first_folded = top if first_folded is None else first_folded
        self.scales = nn.ModuleList(
            Scale(
                grid,
                self._grid_of_fields(k),
                width=widths[k],
                coarser_width=widths[k - 1] if k else None,
                channels=(in_channels, out_channels) if form == "pyramid" or k == top else None,
                num_blocks=num_blocks,
                padding=padding,
                norm=norm,
                block=block,
                block_options=self.block_options,
                activation=activation,
            )
            for k, grid in enumerate(self.grids)
        )

    def iter_scales(self) -> list[Scale]:
        """Returns the scales, coarsest first."""
        return cast(list[Scale], list(self.scales))

    @property
    def is_folded(self) -> bool:
        """Whether some scale works on the folded fields of a finer grid."""
        return self.field_grid.shape != self.grids[self.first_folded].shape

    def forward(self, x: Tensor) -> Tensor:
        """Maps input fields ``[N, in, *field_grid]`` to output fields ``[N, out, *field_grid]``."""
        return self.finish(self.features(x))

    def features(self, x: Tensor) -> list[Tensor]:
        """Returns what the heads are given, ``[N, width, *grid]`` of each scale, coarsest first."""
        skips: list[Tensor] = []
        from_finer = None
        for k, scale in reversed([*enumerate(self.iter_scales())]):
            with scale.precision(x.device):
                skips.append(self.compute(scale.encode, x, from_finer))
                from_finer = scale.down(skips[-1]) if scale.down is not None else None
            if k and self.form == "pyramid":
                x = restrict_to(x, scale.field_grid, self._grid_of_fields(k - 1))
        features = [skips.pop()]
        for scale in self.iter_scales()[1:]:
            with scale.precision(x.device):
                features.append(self.compute(scale.decode, skips.pop(), features[-1]))
        return features

    def finish(self, features: Sequence[Tensor]) -> Tensor:
        """Returns the output fields ``[N, out, *field_grid]``: all corrections, prolonged."""
        output, grid, periodic = None, self.field_grid, wraps(self.padding)
        for scale, decoded in zip(self.iter_scales(), features, strict=True):
            if scale.head is None:
                continue
            with scale.precision(decoded.device):
                correction = self.compute(scale.correct, decoded)
            if output is not None:
                with full_precision(decoded.device):
                    to = scale.field_grid
                    output = prolong_to(output, grid, to, self.prolongation, periodic)
                correction = output + correction
            output, grid = correction, scale.field_grid
        assert output is not None
        return output

    def _grid_of_fields(self, k: int) -> Grid:
        """Returns the grid of the fields that a scale takes and gives."""
        return self.field_grid if k >= self.first_folded else self.grids[k]
