"""What a network costs, counted without computing anything."""

import copy
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Count = TypeVar("Count")
Network = TypeVar("Network", bound=nn.Module)


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


class Alike(nn.Module):
    """A network that tells which others do the same operations."""

    def signature(self) -> Hashable | None:
        """Returns what is equal for networks that do the same operations, None if unknown."""
        raise NotImplementedError


_COUNTED: dict[Hashable, Any] = {}


def once(count: Callable[..., Count], network: nn.Module, *arguments: Hashable) -> Count:
    """Counts once in a process for all networks that do the same and train the same parts."""
    signature = network.signature() if isinstance(network, Alike) else None
    if signature is None:
        return count(network, *arguments)
    trained = tuple(parameter.requires_grad for parameter in network.parameters())
    key = count, signature, trained, *arguments
    if key not in _COUNTED:
        _COUNTED[key] = count(network, *arguments)
    found: Count = _COUNTED[key]
    return found


def count_flops(network: nn.Module, shape: Sequence[int]) -> Flops:
    """Returns the floating-point operations of a forward and of a training pass.

    Args:
        network: The network; it is not run, only a copy without data is.
        shape: Shape of the input, batch included.
    """
    return once(_count_flops, network, tuple(shape))


def _count_flops(network: nn.Module, shape: Sequence[int]) -> Flops:
    with FlopCounterMode(display=False) as counter:
        output = run_without_data(network, shape)
        forward = counter.get_total_flops()
        output.sum().backward()
    return Flops(forward, counter.get_total_flops())


def training_flops(network: nn.Module, shape: Sequence[int]) -> int:
    """Returns the floating-point operations of one forward and backward pass."""
    return count_flops(network, shape).training


def _run(network: nn.Module, shape: Sequence[int]) -> FlopCounterMode:
    with FlopCounterMode(display=False) as counter:
        run_without_data(network, shape)
    return counter


def without_data(network: Network) -> Network:
    """Returns a copy of a network on the meta device, whose tensors have shapes but no values."""
    copies: dict[int, Any] = {id(b): torch.empty_like(b, device="meta") for b in network.buffers()}
    for parameter in network.parameters():
        empty = torch.empty_like(parameter, device="meta")
        copies[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
    return copy.deepcopy(network, copies)  # which takes as copied what is there already


def run_without_data(network: nn.Module, shape: Sequence[int]) -> torch.Tensor:
    """Returns the output of a copy of a network on the meta device: a shape without values."""
    return without_data(network)(torch.empty(*shape, device="meta"))


def scale_flops(network: nn.Module, shape: Sequence[int]) -> list[int]:
    """Returns the floating-point operations of a forward pass in each of ``network.scales``."""
    counter = _run(network, shape)
    counts = {
        tuple(name.split(".")): sum(by_operator.values())
        for name, by_operator in counter.get_flop_counts().items()
    }
    totals: dict[str, int] = {}
    for name, count in counts.items():
        if len(name) == 4 and name[1] == "scales":
            totals[name[2]] = totals.get(name[2], 0) + count
    return [totals[key] for key in sorted(totals, key=int)]
