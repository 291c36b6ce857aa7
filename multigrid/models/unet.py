"""The UNet whose outer scales come and go with the grid."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from multigrid.fields import prolong, restrict
from multigrid.grid import Centering, Grid
from multigrid.models.blocks import Down, Normalization, Padding, ResidualBlock, Up, conv
from multigrid.precision import full_precision

Form = Literal["pyramid", "classic"]


class Scale(nn.Module):
    """Everything a UNet does at one resolution, and its transitions to the next coarser one.

    Attributes:
        stem: Lifts the input fields to the width, or None.
        encoder: Residual blocks on the way down.
        down: Strided convolution to the next coarser scale; None at the bottleneck.
        up: Transposed convolution from the next coarser scale; None at the bottleneck.
        decoder: Residual blocks on the way up; none at the bottleneck.
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
    ) -> None:
        super().__init__()
        self.stem = conv(ndim, in_channels, width, 3, padding) if in_channels else None
        self.encoder = _blocks(num_blocks, ndim, width, padding, norm)
        self.down: Down | None = None
        self.up: Up | None = None
        self.decoder: nn.Sequential | None = None
        if coarser_width is not None:
            self.down = Down(ndim, width, coarser_width, centering, padding)
            self.up = Up(ndim, coarser_width, width, centering, padding)
            self.decoder = _blocks(num_blocks, ndim, width, padding, norm)
        self.head = conv(ndim, width, out_channels, 1, padding) if out_channels else None


def _blocks(
    num_blocks: int, ndim: int, width: int, padding: Padding, norm: Normalization
) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(ndim, width, padding, norm) for _ in range(num_blocks)))


class UNet(nn.Module):
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
        norm: Normalisation layer in front of each activation.
        prolongation: Polynomial degree of the prolongation of outputs (pyramid only).
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
    ) -> None:
        super().__init__()
        self.grids = tuple(grids)
        self.widths = tuple(widths)
        self.form = form
        self.padding = padding
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
            )
            for k, grid in enumerate(self.grids)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps input fields ``[N, in, *grid]`` to output fields ``[N, out, *grid]``."""
        skips = self._encode(x)
        features, output = skips[0], None
        for k, scale in enumerate(self.scales):
            if k:
                features = scale.decoder(skips[k] + scale.up(features, self.grids[k].shape))
            if scale.head is not None:
                output = self._add_head(k, features, output)
        return output

    def _encode(self, x: Tensor) -> list[Tensor]:
        """Returns the encoder features of all scales, coarsest first."""
        skips, from_finer = [], None
        for k in reversed(range(len(self.scales))):
            scale = self.scales[k]
            features = scale.stem(x) if scale.stem is not None else None
            if from_finer is not None:
                features = from_finer if features is None else features + from_finer
            features = scale.encoder(features)
            skips.append(features)
            if k:
                from_finer = scale.down(features)
                x = restrict(x, self.grids[k]) if self.form == "pyramid" else x
        return skips[::-1]

    def _add_head(self, k: int, features: Tensor, coarser: Tensor | None) -> Tensor:
        """Adds the correction of scale k to the prolonged output of the coarser scales.

        Done in float32 also under autocast: the sum is the answer, and its small corrections
        would drown in the rounding of bfloat16.
        """
        with full_precision(features.device):
            output = self.scales[k].head(features.float())
            if coarser is None:
                return output
            periodic = self.padding == "periodic"
            return output + prolong(coarser, self.grids[k], self.prolongation, periodic)


def silence(unet: UNet, first: int) -> None:
    """Makes scales ``first`` and above silent, so that the network starts as its coarse part.

    With the transition down into the old network and the new head at zero, a pyramid computes
    exactly ``P F(R x)``, F being the network on the scales below ``first``.
    """
    with torch.no_grad():
        for scale in list(unet.scales)[first:]:
            for module in (scale.down, scale.head):
                for parameter in module.parameters():
                    parameter.zero_()
