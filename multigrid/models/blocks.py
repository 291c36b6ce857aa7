"""Building blocks that work alike in two and three dimensions."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multigrid.grid import Centering
from multigrid.hardware import full_precision
from multigrid.models.residual import frugal_residual
from multigrid.models.steps import ActivationCheckpointing

Padding = Literal["zeros", "replicate", "periodic"]
Normalization = Literal["none", "group", "instance"]

_TORCH_PADDING: dict[Padding, Literal["zeros", "replicate", "circular"]] = {
    "zeros": "zeros",
    "replicate": "replicate",
    "periodic": "circular",
}
_PAD_MODE = {"zeros": "constant", "replicate": "replicate", "periodic": "circular"}
_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_INSTANCE = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def conv(
    ndim: int, in_channels: int, out_channels: int, kernel: int, padding: Padding
) -> nn.Module:
    """Returns a convolution that keeps the grid: ``[N, in, *grid] -> [N, out, *grid]``."""
    return _CONV[ndim](
        in_channels,
        out_channels,
        kernel,
        padding=kernel // 2,
        padding_mode=_TORCH_PADDING[padding],
    )


def channels_last(x: Tensor) -> Tensor:
    """Lays a tensor ``[N, C, *grid]`` out with the channels last, the fast way for convolutions."""
    return x.contiguous(memory_format=channels_layout(x.ndim))


def channels_layout(ndim: int) -> torch.memory_format:
    """Returns the layout with the channels last of tensors with so many axes, if there is one."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    return layouts.get(ndim, torch.contiguous_format)


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
        return nn.GroupNorm(_num_groups(channels), channels)
    if kind == "instance":
        return _INSTANCE[ndim](channels, affine=True)
    return nn.Identity()


def _num_groups(channels: int) -> int:
    return next(groups for groups in (8, 6, 4, 3, 2, 1) if channels % groups == 0)


class ResidualBlock(ActivationCheckpointing):
    """Two convolutions around a skip: ``x + conv(act(conv(x)))``, shapes kept.

    One activation a block, as on a CPU each costs about as much time as a third of a convolution,
    and a second one did not lower the error.

    Attributes:
        is_plain: Whether there is nothing but convolutions with zeros outside. If so it keeps
            nothing but its input when activations are checkpointed; else what runs it has to see
            to that.
    """

    def __init__(self, ndim: int, channels: int, padding: Padding, norm: Normalization) -> None:
        super().__init__()
        self.norm1 = normalization(norm, ndim, channels)
        self.conv1 = conv(ndim, channels, channels, 3, padding)
        self.norm2 = normalization(norm, ndim, channels)
        self.conv2 = conv(ndim, channels, channels, 3, padding)
        self.is_plain = norm == "none" and padding == "zeros"

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, C, *grid]`` to the same shape."""
        if self.checkpoint_activations and self.is_plain and self.training:
            return frugal_residual(x, self.conv1, self.conv2)
        return x + self.conv2(F.silu(self.norm2(self.conv1(self.norm1(x)))))


def are_plain(blocks: nn.Sequential) -> bool:
    """Whether blocks keep nothing but their inputs when activations are checkpointed."""
    return all(isinstance(block, ResidualBlock) and block.is_plain for block in blocks)


class Down(nn.Module):
    """Strided convolution to the next coarser grid, aligned with the restriction of fields.

    Cell-centred: kernel 2, each coarse cell sees the cells it is made of. Node-centred: kernel 3
    around the node that is kept.
    """

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        centering: Centering,
        padding: Padding,
    ) -> None:
        super().__init__()
        kernel = 2 if centering == "cell" else 3
        self.conv = _CONV[ndim](
            in_channels,
            out_channels,
            kernel,
            stride=2,
            padding=kernel // 3,
            padding_mode=_TORCH_PADDING[padding],
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, in, *fine]`` to ``[N, out, *coarse]``."""
        return self.conv(x)


class Up(nn.Module):
    """Transposed convolution to the next finer grid, aligned like :class:`Down`."""

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        centering: Centering,
        padding: Padding,
    ) -> None:
        super().__init__()
        self.centering = centering
        self.pad_mode = _PAD_MODE[padding]
        kernel = 2 if centering == "cell" else 3
        self.conv = _TRANSPOSED[ndim](
            in_channels, out_channels, kernel, stride=2, padding=kernel // 3
        )

    def forward(self, x: Tensor, fine: tuple[int, ...]) -> Tensor:
        """Maps ``[N, in, *coarse]`` to ``[N, out, *fine]``."""
        if self.centering == "cell":
            return self._spread(x)
        x = F.pad(x, (0, 1) * len(fine), mode=self.pad_mode)
        return self.conv(x)[(..., *(slice(n) for n in fine))]

    def _spread(self, x: Tensor) -> Tensor:
        """Convolves as a matrix product: each coarse cell alone decides on those it is made of.

        Going backward, that is several times faster than the transposed convolution.
        """
        weight, bias = self.conv.weight, self.conv.bias
        assert bias is not None
        ndim, kernel = x.ndim - 2, weight.shape[2:]
        matrix = weight.movedim(1, -1).flatten(1).T
        cells = F.linear(x.movedim(1, -1), matrix, bias.repeat(kernel.numel()))
        cells = cells.unflatten(-1, (*kernel, len(bias)))
        # [N, *coarse, *kernel, out] to [N, coarse, kernel, coarse, kernel, ..., out]
        pairs = (axis for i in range(ndim) for axis in (1 + i, 1 + ndim + i))
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

    def __init__(self, ndim: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.hidden = conv(ndim, in_channels, self.HIDDEN, 1, "zeros")
        self.project = nn.Linear(self.HIDDEN, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, in, *grid]`` to ``[N, out, *grid]``."""
        hidden = F.silu(self.hidden(x)).movedim(1, -1)
        with full_precision(x.device):
            return self.project(hidden.to(self.project.weight.dtype)).movedim(-1, 1)
