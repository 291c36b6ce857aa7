"""What a network costs, counted on a copy without data: nothing is computed."""

import copy
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from multigrid.models.layers import set_activation_checkpointing

Network = TypeVar("Network", bound=nn.Module)

aten = torch.ops.aten

SAVED_BY_CHECKPOINTS = 1.7
"""How many times less memory activations take that are recomputed; measured: 1.7 to 2.1."""


def count_parameters(module: nn.Module) -> int:
    """Returns the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_named(module: nn.Module, names: Collection[str]) -> int:
    """Returns the number of those parameters that have one of the names."""
    return sum(p.numel() for name, p in module.named_parameters() if name in names)


class Flops(NamedTuple):
    """Floating-point operations of a forward pass, and of a forward and a backward pass."""

    forward: int
    training: int


def count_flops(network: nn.Module, shape: Sequence[int]) -> Flops:
    """Returns the operations of one pass; those that are done twice to save memory count once."""
    with FlopCounter() as counter:
        output = run_without_data(network, shape)
        forward = counter.get_total_flops()
        output.sum().backward()
    return Flops(forward, counter.get_total_flops())


class FlopCounter(FlopCounterMode):
    """Counts as PyTorch does, and Fourier transforms and complex products besides.

    A transform of N points costs ``5 N log2 N``, half of that from or to real numbers; a product
    of complex matrices four real ones.
    """

    def __init__(self) -> None:
        products = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution)
        custom = {operator: _complex_product(flop_registry[operator]) for operator in products}
        transforms = {aten._fft_c2c: 1.0, aten._fft_r2c: 0.5, aten._fft_c2r: 0.5}
        custom |= {operator: _transform(factor) for operator, factor in transforms.items()}
        super().__init__(display=False, custom_mapping=custom)


def _complex_product(count: Callable[..., int]) -> Callable[..., int]:
    def counted(*args: Any, **kwargs: Any) -> int:
        is_complex = torch.is_complex(kwargs["out_val"])
        return count(*args, **kwargs) * (4 if is_complex else 1)

    counted._get_raw = True  # type: ignore[attr-defined]
    return counted


def _transform(factor: float) -> Callable[..., int]:
    def counted(x: torch.Tensor, dim: Sequence[int], *args: Any, out_val: torch.Tensor) -> int:
        larger = max(x, out_val, key=torch.Tensor.numel)  # the real one where there is one
        points = math.prod(larger.shape[axis] for axis in dim)
        return round(factor * 5 * larger.numel() * math.log2(max(points, 1)))

    counted._get_raw = True  # type: ignore[attr-defined]
    return counted


def without_data(network: Network) -> Network:
    """Returns a copy of a network on the meta device, whose tensors have shapes but no values."""
    copies: dict[int, Any] = {id(b): torch.empty_like(b, device="meta") for b in network.buffers()}
    for parameter in network.parameters():
        empty = torch.empty_like(parameter, device="meta")
        copies[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
    return copy.deepcopy(network, copies)  # which takes as copied what is there already


def run_without_data(network: nn.Module, shape: Sequence[int]) -> torch.Tensor:
    """Returns the output of a copy of a network on the meta device: a shape without values."""
    twin = without_data(network)
    set_activation_checkpointing(twin, False)
    return twin(torch.empty(*shape, device="meta"))


def activation_bytes(
    network: nn.Module, shape: Sequence[int], element_size: int, checkpointed: bool = False
) -> float:
    """Returns about how many bytes the activations of a training step take, parameters left out.

    What is kept for the backward pass, and the largest of it once more for gradients; within 10 %
    of the peak for UNets. What kernels need for themselves is left out.
    """
    twin = without_data(network).train()
    set_activation_checkpointing(twin, False)
    parameters = {parameter.untyped_storage()._cdata for parameter in twin.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        output = twin(torch.empty(*shape, device="meta"))
    del output  # until here, as storages that are gone may have namesakes
    total = sum(sizes.values()) + max(sizes.values(), default=0)
    return total * element_size / 4 / (SAVED_BY_CHECKPOINTS if checkpointed else 1.0)
