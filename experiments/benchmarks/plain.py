"""The same UNet as a plain PyTorch loop: what a training step is compared with.

Written from scratch with PyTorch's functions, with none of the project's layers: float32, PyTorch's
own layout of tensors and its own AdamW.
"""

from collections.abc import Callable
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multigrid.fields import prolong
from multigrid.models.unet import UNet

Layer = Callable[..., Tensor]


class PlainUNet(nn.Module):
    """A cell-centred pyramid with zero padding and no normalisation.

    Args:
        unet: Where the weights are copied from; parameters have its names, dots as underscores.
    """

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.grids = unet.grids
        self.num_blocks = unet.num_blocks
        self.degree = unet.prolongation
        two = self.grids[-1].ndim == 2
        self.conv: Layer = F.conv2d if two else F.conv3d
        self.transposed: Layer = F.conv_transpose2d if two else F.conv_transpose3d
        self.pool: Layer = F.avg_pool2d if two else F.avg_pool3d
        self.weights = nn.ParameterDict(
            {
                name.replace(".", "_"): tensor.detach().clone(memory_format=torch.contiguous_format)
                for name, tensor in unet.named_parameters()
            }
        )

    @staticmethod
    def matches(network: nn.Module) -> TypeGuard[UNet]:
        """Whether a network is of the kind that is known here."""
        return (
            isinstance(network, UNet)
            and network.form == "pyramid"
            and network.block == "residual"
            and not network.is_folded
            and network.padding == "zeros"
            and network.norm == "none"
            and network.activation == "silu"
            and network.grids[-1].centering == "cell"
            and network.grids[-1].ndim in (2, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, in, *grid]`` to ``[N, out, *grid]``."""
        fields = [x]
        for _ in self.grids[1:]:
            fields.insert(0, self.pool(fields[0], 2))
        skips: list[Tensor] = []
        for k in reversed(range(len(self.grids))):
            features = self.conv(fields[k], *self._of(f"scales_{k}_stem_conv"), padding=1)
            if skips:
                down = self._of(f"scales_{k + 1}_down_conv")
                features = features + self.conv(skips[0], *down, stride=2)
            skips.insert(0, self._blocks(features, f"scales_{k}_encoder"))
        features = skips[0]
        output = self._head(features, 0)
        for k in range(1, len(self.grids)):
            up = self.transposed(features, *self._of(f"scales_{k}_up_conv"), stride=2)
            features = self._blocks(skips[k] + up, f"scales_{k}_decoder")
            output = prolong(output, self.grids[k], self.degree) + self._head(features, k)
        return output

    def _of(self, layer: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{layer}_weight"], self.weights[f"{layer}_bias"]

    def _blocks(self, x: Tensor, name: str) -> Tensor:
        for i in range(self.num_blocks):
            hidden = F.silu(self.conv(x, *self._of(f"{name}_{i}_conv1"), padding=1))
            x = x + self.conv(hidden, *self._of(f"{name}_{i}_conv2"), padding=1)
        return x

    def _head(self, features: Tensor, k: int) -> Tensor:
        hidden = F.silu(self.conv(features, *self._of(f"scales_{k}_head_hidden")))
        weight, bias = self._of(f"scales_{k}_head_project")
        return self.conv(hidden, weight[(...,) + (None,) * (hidden.ndim - 2)], bias)


def plain_step(network: PlainUNet, shape: tuple[int, ...]) -> Callable[[], None]:
    """Returns a training step of the plain loop on random fields.

    Args:
        network: Network on its device; the step changes its weights.
        shape: Shape of a batch of inputs ``[N, in, *grid]``.
    """
    x = torch.randn(shape, device=next(network.parameters()).device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()

    return step
