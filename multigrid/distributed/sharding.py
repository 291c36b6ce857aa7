"""Parameters and optimiser state spread over processes (FSDP2), and put together again."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def spread(network: nn.Module, parts: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Spreads a network's parameters over processes.

    Args:
        network: The network, on its device; changed in place, names stay as they are.
        parts: Modules in it whose parameters are gathered when they are called, and no longer.
        mesh: The processes.
    """
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()  # with the channels last is not supported
    for module in [*parts, network]:
        if any(True for _ in module.parameters()):
            fully_shard(module, mesh=mesh, reshard_after_forward=True)


def whole(state: Any) -> Any:
    """Returns nested containers with the tensors that are spread put together.

    All processes must call it alike.
    """
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, Mapping):
        return {key: whole(value) for key, value in state.items()}
    return state


def spread_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Returns a whole tensor spread as a parameter is, if that is and has the same shape."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    here = tensor.to(parameter.device).contiguous()
    mesh, placements = parameter.device_mesh, parameter.placements
    # every process has the tensor, so none needs to send it
    return distribute_tensor(here, mesh, placements, src_data_rank=None)
