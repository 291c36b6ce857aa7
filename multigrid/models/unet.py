"""The UNet whose outer scales come and go with the grid."""

from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn

from multigrid.fields import prolong, restrict
from multigrid.grid import Grid
from multigrid.hardware import full_precision
from multigrid.models.blocks import Head, Normalization, Padding, are_plain
from multigrid.models.bottleneck import Bottleneck, build_bottleneck
from multigrid.models.cost import Alike, count_parameters, scale_flops
from multigrid.models.scale import Scale
from multigrid.models.steps import INPUT, ActivationCheckpointing, Step, run_steps
from multigrid.tables import si, table

Form = Literal["pyramid", "classic"]

KNOWN = ("torch.nn.", "multigrid.models.")
"""Where the modules come from whose class, settings and shapes say what they do."""


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
        for k, scale in reversed(list(enumerate(self.iter_scales()))):
            needs = [inputs] if scale.stem is not None else []
            needs += [from_finer] if from_finer is not None else []
            own = [m for m in (scale.stem, scale.encoder, scale.bottleneck) if m is not None]
            yield Step(f"encode.{k}", tuple(needs), scale.encode, tuple(own))
            if scale.down is None:
                continue
            from_finer = f"down.{k}"
            yield Step(from_finer, (f"encode.{k}",), scale.send_down, (scale.down,), keeps=False)
            if self.form == "pyramid":
                yield Step(f"restrict.{k}", (inputs,), partial(restrict, grid=scale.grid))
                inputs = f"restrict.{k}"

    def _steps_up(self) -> Iterator[Step]:
        """Yields ``merge.<k>``, ``decode.<k>`` and ``output.<k>``.

        What the decoder takes, its features, and the sum of the heads.
        """
        features, output = "encode.0", None
        for k, scale in enumerate(self.iter_scales()):
            if scale.up is not None and scale.decoder is not None:
                merged, needs = f"merge.{k}", (f"encode.{k}", features)
                yield Step(merged, needs, scale.merge, (scale.up,), keeps=False)
                features = f"decode.{k}"
                keeps = not are_plain(scale.decoder)
                yield Step(features, (merged,), scale.decode, (scale.decoder,), keeps)
            if scale.head is None:
                continue
            correction = f"head.{k}"
            pointwise = isinstance(scale.head, Head)
            yield Step(
                correction, (features,), scale.correct, (scale.head,), is_pointwise=pointwise
            )
            if output is not None:
                yield Step(f"output.{k}", (output, correction), partial(self._add, scale.grid))
                correction = f"output.{k}"
            output = correction

    def _add(self, grid: Grid, output: Tensor, correction: Tensor) -> Tensor:
        """Adds a head's correction on a grid to the output of the scales below, prolonged to it."""
        with full_precision(output.device):
            output = prolong(output, grid, self.prolongation, periodic=self.padding == "periodic")
        return output + correction


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
