"""What a network costs, counted on a copy without data: nothing is computed."""

import copy
import math
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from multigrid.models.layers import set_activation_checkpointing

Network = TypeVar("Network", bound=nn.Module)

aten = torch.ops.aten


def count_parameters(module: nn.Module) -> int:
    """Returns the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_named(module: nn.Module, names: Collection[str]) -> int:
    """Returns the number of those parameters that have one of the names."""
    return sum(p.numel() for name, p in module.named_parameters() if name in names)


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of a network.

    Attributes:
        forward: Of a forward pass.
        training: Of a forward and a backward pass.
    """

    forward: int
    training: int


def count_flops(network: nn.Module, shape: Sequence[int]) -> Flops:
    """Returns the floating-point operations of a forward and of a training pass.

    Those that are done twice to save memory count once.

    Args:
        network: The network; it is not run, only a copy without data is.
        shape: Shape of the input, batch included.
    """
    with FlopCounter() as counter:
        output = run_without_data(network, shape)
        forward = counter.get_total_flops()
        output.sum().backward()
    return Flops(forward, counter.get_total_flops())


def training_flops(network: nn.Module, shape: Sequence[int]) -> int:
    """Returns the floating-point operations of one forward and backward pass."""
    return count_flops(network, shape).training


def scale_flops(network: nn.Module, shape: Sequence[int]) -> list[int]:
    """Returns the floating-point operations of a forward pass in each of ``network.scales``."""
    with FlopCounter() as counter:
        run_without_data(network, shape)
    totals: dict[str, int] = {}
    for name, by_operator in counter.get_flop_counts().items():
        path = name.split(".")
        if len(path) == 4 and path[1] == "scales":
            totals[path[2]] = totals.get(path[2], 0) + sum(by_operator.values())
    return [totals[key] for key in sorted(totals, key=int)]


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


class PeakMeter(TorchDispatchMode):
    """Counts the bytes of live tensors created within the context, on any device, meta included.

    Args:
        before: Tensors that were there before and do not count.

    Attributes:
        live: Bytes alive now.
        peak: The most there were at once.
    """

    def __init__(self, before: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._counted = {tensor.untyped_storage()._cdata for tensor in before}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._counted:
            return
        self._counted.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.live -= size


def activation_bytes(
    network: nn.Module, shape: Sequence[int], element_size: int, checkpointed: bool = False
) -> float:
    """Returns the most memory that a forward and backward pass takes for activations at once.

    Counts every tensor on the way, gradients of activations included, as if all had the precision
    given; parameters and their gradients are left out, and what kernels need for themselves.

    Args:
        network: The network; it is not run, only a copy without data is.
        shape: Shape of the input, batch included.
        element_size: Bytes of a number.
        checkpointed: Whether the backward pass recomputes activations.
    """
    twin = without_data(network).train()
    set_activation_checkpointing(twin, checkpointed)
    for parameter in twin.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    before = [t for p in twin.parameters() for t in (p, p.grad) if t is not None]
    with PeakMeter(before) as meter:
        twin(torch.empty(*shape, device="meta")).sum().backward()
    return meter.peak * element_size / 4
