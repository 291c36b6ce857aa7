"""The memory of a training step's activations, counted without computing anything."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from multigrid.models.cost import once, without_data
from multigrid.models.steps import set_activation_checkpointing


class PeakMeter(TorchDispatchMode):
    """Counts the bytes of the tensors made meanwhile that are alive, on any device, meta included.

    Attributes:
        live: Bytes alive now.
        peak: The most there were at once.
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._counted = {tensor.untyped_storage()._cdata for tensor in known}

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
        checkpointed: Whether the backward pass computes activations anew.
    """
    return once(_peak, network, tuple(shape), checkpointed) * element_size / 4


def _peak(network: nn.Module, shape: Sequence[int], checkpointed: bool) -> int:
    """Returns the bytes at the peak in single precision."""
    twin = without_data(network).train()
    set_activation_checkpointing(twin, checkpointed)
    for parameter in twin.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    known = [t for p in twin.parameters() for t in (p, p.grad) if t is not None]
    with PeakMeter(known) as meter:
        twin(torch.empty(*shape, device="meta")).sum().backward()
    return meter.peak
