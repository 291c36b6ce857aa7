"""The UNet whose outer scales come and go with the grid."""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn

from multigrid.fields import prolong, restrict
from multigrid.grid import Centering, Grid
from multigrid.hardware import full_precision
from multigrid.models.blocks import Down, Head, Normalization, Padding, ResidualBlock, Stem, Up
from multigrid.models.bottleneck import Bottleneck, build_bottleneck
from multigrid.models.cost import Alike, count_parameters, scale_flops
from multigrid.models.steps import INPUT, ActivationCheckpointing, Step, run_steps
from multigrid.tables import si, table

Form = Literal["pyramid", "classic"]

AUTOCAST_POINTS = 64
"""Points of the smallest grid whose features may be in bfloat16: 8x8, or 4x4x4."""


class Scale(nn.Module):
    """Everything a UNet does at one resolution, and its transitions to the next coarser one.

    Attributes:
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
        *,
        ndim: int,
        width: int,
        coarser_width: int | None,
        in_channels: int | None,
        out_channels: int | None,
        num_blocks: int,
        centering: Centering,
        padding: Padding,
        norm: Normalization,
        bottleneck: nn.Module | None = None,
    ) -> None:
        super().__init__()
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
        lifted = parts if self.stem is None else (self.stem(parts[0]), *parts[1:])
        features = self.encoder(sum(lifted[1:], start=lifted[0]))
        return features if self.bottleneck is None else self.bottleneck(features)

    def merge(self, skip: Tensor, coarser: Tensor) -> Tensor:
        """Returns what the decoder takes; not to be called at the bottleneck.

        Args:
            skip: The encoder's features ``[N, width, *grid]``.
            coarser: Decoder features of the next coarser scale.
        """
        assert self.up is not None
        return skip + self.up(coarser, tuple(skip.shape[2:]))


def _blocks(
    num_blocks: int, ndim: int, width: int, padding: Padding, norm: Normalization
) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(ndim, width, padding, norm) for _ in range(num_blocks)))


KNOWN = ("torch.nn.", "multigrid.models.")


class UNet(Alike, ActivationCheckpointing):
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
        checkpoint_activations: Whether the backward pass computes the activations within encoders,
            decoders and heads anew instead of keeping them.
    """

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
                ndim=grid.ndim,
                width=widths[k],
                coarser_width=widths[k - 1] if k else None,
                in_channels=in_channels if form == "pyramid" or k == top else None,
                out_channels=out_channels if form == "pyramid" or k == top else None,
                num_blocks=num_blocks,
                centering=grid.centering,
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

    def signature(self) -> Hashable | None:
        """Returns what is equal for networks that do the same operations.

        None if a part has been replaced by a module of others, which may do anything.
        """
        modules = dict(self.named_modules())
        if not all(type(m).__module__.startswith(KNOWN) for m in modules.values()):
            return None
        parts = tuple((name, type(m), m.extra_repr()) for name, m in modules.items())
        shapes = tuple((name, parameter.shape) for name, parameter in self.named_parameters())
        checkpointed = self.checkpoint_activations and self.training
        return self.grids, self.form, self.padding, self.prolongation, checkpointed, parts, shapes

    def iter_scales(self) -> Iterator[Scale]:
        """Yields the scales, coarsest first."""
        return (cast(Scale, scale) for scale in self.scales)

    def forward(self, x: Tensor) -> Tensor:
        """Maps input fields ``[N, in, *grid]`` to output fields ``[N, out, *grid]``."""
        return run_steps(self.steps(), {INPUT: x}, self.checkpoint_activations and self.training)

    def steps(self) -> list[Step]:
        """Returns the steps of a forward pass: down to the coarsest scale and up again."""
        return [*self._steps_down(), *self._steps_up()]

    def _steps_down(self) -> Iterator[Step]:
        """Yields ``encode.<k>``, the encoder features, and ``down.<k>``, what they send down."""
        inputs, from_finer = INPUT, None
        scales = list(enumerate(zip(self.iter_scales(), self.grids, strict=True)))
        for k, (scale, grid) in reversed(scales):
            needs = [inputs] if scale.stem is not None else []
            needs += [from_finer] if from_finer is not None else []
            own = [m for m in (scale.stem, scale.encoder, scale.bottleneck) if m is not None]
            yield Step(f"encode.{k}", tuple(needs), partial(_encode, scale, grid), tuple(own))
            if scale.down is None:
                continue
            from_finer = f"down.{k}"
            down = partial(_down, scale, grid)
            yield Step(from_finer, (f"encode.{k}",), down, (scale.down,), keeps=False)
            if self.form == "pyramid":
                yield Step(f"restrict.{k}", (inputs,), partial(_restrict, grid))
                inputs = f"restrict.{k}"

    def _steps_up(self) -> Iterator[Step]:
        """Yields ``merge.<k>``, ``decode.<k>`` and ``output.<k>``.

        What the decoder takes, its features, and the sum of the heads.
        """
        features, output = "encode.0", None
        for k, (scale, grid) in enumerate(zip(self.iter_scales(), self.grids, strict=True)):
            if scale.up is not None and scale.decoder is not None:
                merged, needs = f"merge.{k}", (f"encode.{k}", features)
                yield Step(merged, needs, partial(_merge, scale, grid), (scale.up,), keeps=False)
                features = f"decode.{k}"
                yield Step(features, (merged,), partial(_decode, scale, grid), (scale.decoder,))
            if scale.head is None:
                continue
            correction = f"head.{k}"
            yield Step(correction, (features,), partial(_correct, scale, grid), (scale.head,))
            if output is not None:
                yield Step(f"output.{k}", (output, correction), partial(self._add, grid))
                correction = f"output.{k}"
            output = correction

    def _add(self, grid: Grid, output: Tensor, correction: Tensor) -> Tensor:
        return self._prolong(output, grid) + correction

    def _prolong(self, output: Tensor, grid: Grid) -> Tensor:
        with full_precision(output.device):
            return prolong(output, grid, self.prolongation, periodic=self.padding == "periodic")


def _encode(scale: Scale, grid: Grid, *parts: Tensor) -> Tensor:
    with _precision(grid, parts[0].device):
        if grid.size < AUTOCAST_POINTS:
            parts = tuple(part.to(next(scale.parameters()).dtype) for part in parts)
        return scale.encode(*parts)


def _down(scale: Scale, grid: Grid, features: Tensor) -> Tensor:
    assert scale.down is not None
    with _precision(grid, features.device):
        return cast(Tensor, scale.down(features))


def _restrict(grid: Grid, x: Tensor) -> Tensor:
    return restrict(x, grid)


def _merge(scale: Scale, grid: Grid, skip: Tensor, coarser: Tensor) -> Tensor:
    with _precision(grid, skip.device):
        return scale.merge(skip, coarser)


def _decode(scale: Scale, grid: Grid, merged: Tensor) -> Tensor:
    assert scale.decoder is not None
    with _precision(grid, merged.device):
        return scale.decoder(merged)


def _correct(scale: Scale, grid: Grid, features: Tensor) -> Tensor:
    assert scale.head is not None
    with _precision(grid, features.device):
        return scale.head(features)


def _precision(grid: Grid, device: torch.device) -> AbstractContextManager[None]:
    """Returns the context of a scale: autocast, if it is on at all, but for the smallest grids.

    There float32 costs nothing, and what they do reaches every point.
    """
    return full_precision(device) if grid.size < AUTOCAST_POINTS else nullcontext()


def silence(unet: UNet, first: int) -> None:
    """Makes scales ``first`` and above silent, so that the network starts as its coarse part.

    With the transition down into the old network and the new head's projection at zero, a pyramid
    computes exactly ``P F(R x)``, F being the network on the scales below ``first``.
    """
    with torch.no_grad():
        for scale in list(unet.iter_scales())[first:]:
            assert scale.down is not None
            assert scale.head is not None
            for module in (scale.down, scale.head.project):
                for parameter in module.parameters():
                    parameter.zero_()
