"""Layers of a UNet in one, two and three dimensions."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multigrid.grid import Centering, Grid
from multigrid.hardware import full_precision
from multigrid.registry import register_block

OneOutside = Literal["zeros", "replicate", "periodic"]
Padding = OneOutside | Mapping[str, OneOutside]
"""What lies outside the grid: the same across all axes, or that for each of ``x``, ``y``, ``z``."""

Normalization = Literal["none", "group", "instance"]
Activation = Literal["silu", "none"]

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""The layout with the channels last of tensors with so many axes, where there is one."""

_PAD_MODE = {"zeros": "constant", "replicate": "replicate", "periodic": "circular"}
_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"silu": F.silu, "none": lambda x: x}
_INSTANCE = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def conv(
    ndim: int, in_channels: int, out_channels: int, kernel: int, padding: Padding, stride: int = 1
) -> nn.Module:
    """Returns a convolution that keeps the grid: ``[N, in, *grid] -> [N, out, *grid]``."""
    width = (kernel - 1) // 2
    if isinstance(padding, str):
        mode = "circular" if padding == "periodic" else padding
        return _CONV[ndim](in_channels, out_channels, kernel, stride, width, padding_mode=mode)
    layer = _CONV[ndim](in_channels, out_channels, kernel, stride)
    layer.register_forward_pre_hook(partial(_pad_first, width, padding))
    return layer


def _pad_first(width: int, padding: Padding, layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return pad(inputs[0], width, width, padding)


def pad(x: Tensor, before: int, after: int, padding: Padding) -> Tensor:
    """Continues ``[N, C, *grid]`` beyond the grid, axis by axis where these differ."""
    ndim = x.ndim - 2
    if isinstance(padding, str):
        return F.pad(x, (before, after) * ndim, _PAD_MODE[padding])
    for place, axis in enumerate(sorted(padding, reverse=True)):  # counted from the last one
        widths = (0, 0) * place + (before, after) + (0, 0) * (ndim - 1 - place)
        x = F.pad(x, widths, _PAD_MODE[padding[axis]])
    return x


def channels_last(x: Tensor) -> Tensor:
    """Lays a tensor ``[N, C, *grid]`` out with the channels last, the fast way for convolutions."""
    return x.contiguous(memory_format=CHANNELS_LAST.get(x.ndim, torch.contiguous_format))


def wraps(padding: Padding) -> bool | tuple[bool, ...]:
    """Whether fields wrap around the box: across all axes, none, or that for each."""
    if isinstance(padding, str):
        return padding == "periodic"
    axes = tuple(padding[axis] == "periodic" for axis in sorted(padding))
    return axes[0] if len(set(axes)) == 1 else axes


def folding_factors(fine: Grid, coarse: Grid) -> tuple[int, ...]:
    """Returns how many fine points along each axis belong to one of a coarsening of the grid."""
    pairs = zip(coarse.spacing, fine.spacing, strict=True)
    return tuple(round(wide / narrow) for wide, narrow in pairs)


def fold(x: Tensor, factors: Sequence[int]) -> Tensor:
    """Lays blocks of fine values into the channels of a coarse grid (space to depth).

    ``[N, C, *fine]`` becomes ``[N, C f^d, *coarse]``: point i of an axis holds the fine values
    ``f i, ..., f i + f - 1``. Where f does not divide their number, as for nodes with both boundary
    points, the last value is repeated up to a multiple.
    """
    if set(factors) == {1}:
        return x
    fine, ndim = x.shape[2:], len(factors)
    missing = [-n % f for n, f in zip(fine, factors, strict=True)]
    if any(missing):
        x = F.pad(x, [size for n in reversed(missing) for size in (0, n)], mode="replicate")
    for axis, factor in zip(range(2, 2 + 2 * ndim, 2), factors, strict=True):
        x = x.unflatten(axis, (-1, factor))  # [N, C, coarse, factor, coarse, factor, ...]
    order = [*range(3, 3 + 2 * ndim, 2), *range(2, 2 + 2 * ndim, 2)]
    return channels_last(x.permute(0, 1, *order).flatten(1, 1 + ndim))


def unfold(x: Tensor, factors: Sequence[int], fine: Sequence[int]) -> Tensor:
    """Gives back what :func:`fold` was given, of the shape ``fine`` (depth to space)."""
    if set(factors) == {1}:
        return x
    ndim = len(factors)
    x = x.unflatten(1, (-1, *factors))
    x = x.permute(0, 1, *(axis for i in range(ndim) for axis in (2 + ndim + i, 2 + i)))
    for axis, n in enumerate(fine, start=2):
        x = x.flatten(axis, axis + 1).narrow(axis, 0, n)
    return channels_last(x)


class ActivationCheckpointing(nn.Module):
    """A network that can recompute activations going backward instead of keeping them."""

    checkpoint_activations = False

    def compute(self, function: Callable[..., Tensor], *args: Tensor | None) -> Tensor:
        """Returns a function's result; what lies within may be recomputed going backward."""
        if self.checkpoint_activations and self.training:
            return cast(Tensor, checkpoint(function, *args, use_reentrant=False))
        return function(*args)


def set_activation_checkpointing(network: nn.Module, wanted: bool) -> None:
    """Chooses whether a network and those within it recompute activations, where they can."""
    for module in network.modules():
        if isinstance(module, ActivationCheckpointing):
            module.checkpoint_activations = wanted


class Stem(nn.Module):
    """Lifts fields to features.

    The layout is set here, as a single field is laid out channels first and last alike, and torch
    would carry on channels first.
    """

    def __init__(self, ndim: int, in_channels: int, width: int, padding: Padding) -> None:
        super().__init__()
        self.conv = conv(ndim, in_channels, width, 3, padding)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, in, *grid]`` to ``[N, width, *grid]``."""
        return channels_last(self.conv(x))


def normalization(kind: Normalization, ndim: int, channels: int) -> nn.Module:
    """Returns a normalisation layer, the identity for ``none``."""
    if kind == "group":
        return nn.GroupNorm(next(n for n in (8, 6, 4, 3, 2, 1) if channels % n == 0), channels)
    if kind == "instance":
        return _INSTANCE[ndim](channels, affine=True)
    return nn.Identity()


@register_block("residual")
class ResidualBlock(nn.Module):
    """Two convolutions around a skip: ``x + conv(act(conv(x)))``, shapes kept.

    One activation a block, as on a CPU each costs about as much time as a third of a convolution,
    and a second one did not lower the error.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        padding: Padding,
        norm: Normalization,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm1 = normalization(norm, ndim, channels)
        self.conv1 = conv(ndim, channels, channels, 3, padding)
        self.norm2 = normalization(norm, ndim, channels)
        self.conv2 = conv(ndim, channels, channels, 3, padding)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, C, *grid]`` to the same shape."""
        activate = _ACTIVATIONS[self.activation]
        return x + self.conv2(activate(self.norm2(self.conv1(self.norm1(x)))))


class Down(nn.Module):
    """Strided convolution to the next coarser grid, aligned with the restriction of fields.

    Cell-centred: kernel 2, each coarse cell sees the cells it is made of, the last of an odd number
    being repeated. Node-centred: kernel 3 around the node that is kept.
    """

    def __init__(
        self, ndim: int, channels: tuple[int, int], centering: Centering, padding: Padding
    ) -> None:
        super().__init__()
        self.centering = centering
        kernel = 2 if centering == "cell" else 3
        self.conv = conv(ndim, *channels, kernel, padding, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, in, *fine]`` to ``[N, out, *coarse]``."""
        odd = [n % 2 for n in reversed(x.shape[2:])]
        if self.centering == "cell" and any(odd):
            x = F.pad(x, [size for one in odd for size in (0, one)], mode="replicate")
        return self.conv(x)


class Up(nn.Module):
    """Transposed convolution to the next finer grid, aligned like :class:`Down`."""

    def __init__(
        self, ndim: int, channels: tuple[int, int], centering: Centering, padding: Padding
    ) -> None:
        super().__init__()
        self.centering = centering
        self.padding = padding
        kernel = 2 if centering == "cell" else 3
        self.conv = _TRANSPOSED[ndim](*channels, kernel, stride=2, padding=kernel // 3)

    def forward(self, x: Tensor, fine: tuple[int, ...]) -> Tensor:
        """Maps ``[N, in, *coarse]`` to ``[N, out, *fine]``."""
        if self.centering == "cell":
            x = self._spread(x)
            for axis, n in enumerate(fine, start=2):
                x = x.narrow(axis, 0, n)
            return x
        x = pad(x, 0, 1, self.padding)
        return self.conv(x)[(..., *(slice(n) for n in fine))]

    def _spread(self, x: Tensor) -> Tensor:
        """Convolves by a matrix product, as each fine cell belongs to a single coarse one.

        Going backward, that is several times faster than the transposed convolution.
        """
        weight, bias = self.conv.weight, self.conv.bias
        assert bias is not None
        ndim, kernel = x.ndim - 2, weight.shape[2:]
        matrix = weight.movedim(1, -1).flatten(1).T
        cells = F.linear(x.movedim(1, -1), matrix, bias.repeat(kernel.numel()))
        cells = cells.unflatten(-1, (*kernel, len(bias)))
        # [N, *coarse, *kernel, out] to [N, coarse, kernel, coarse, kernel, ..., out]
        pairs = [axis for i in range(ndim) for axis in (1 + i, 1 + ndim + i)]
        cells = cells.permute(0, *pairs, -1)
        for axis in range(1, 1 + ndim):
            cells = cells.flatten(axis, axis + 1)
        return cells.movedim(-1, 1)


class Head(nn.Module):
    """Projects features to fields point by point, the last step in the weights' own precision.

    Never in bfloat16: the fields are the answer, and small corrections to them would drown in its
    rounding. The hidden layer is narrow, so that float32 is needed for few channels only.
    """

    HIDDEN = 16

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        hidden: int = HIDDEN,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        self.activation = activation
        self.hidden = conv(ndim, in_channels, hidden, 1, "zeros")
        self.project = nn.Linear(hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, in, *grid]`` to ``[N, out, *grid]``."""
        hidden = _ACTIVATIONS[self.activation](self.hidden(x)).movedim(1, -1)
        with full_precision(x.device):
            return self.project(hidden.to(self.project.weight.dtype)).movedim(-1, 1)
