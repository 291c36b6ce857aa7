"""Several processes that train one network on PyTorch's distributed engine.

Every process holds the same samples and makes the same decisions, as all of them see the same
sums; each computes its share of every batch. Numbers that decide go through gloo on the CPU,
gradients through NCCL on GPUs.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from multigrid import signals
from multigrid.distributed import sharding
from multigrid.distributed.heartbeat import Watch, connect
from multigrid.distributed.processes import (
    Processes,
    Strategy,
    local_rank,
    local_size,
    num_processes,
)
from multigrid.errors import UserError
from multigrid.hardware import choose_device
from multigrid.models.unet import UNet
from multigrid.signals import Interrupted

T = TypeVar("T")

TO_START = timedelta(minutes=5)
TO_WAIT = timedelta(days=7)
"""For others that generate data, say; the watch sees to those that are gone."""


class ProcessGroup(Processes):
    """One of several processes.

    Args:
        device: Where this process computes.
        strategy: ``ddp``: each process holds the whole network; ``fsdp``: parameters, gradients
            and optimiser state are spread.
        watch: Looks after the others.
    """

    def __init__(self, device: torch.device, strategy: Strategy, watch: Watch) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.shards = strategy == "fsdp"
        self.device = device
        self.watch = watch

    def undisturbed(self) -> AbstractContextManager[None]:
        """Returns a context in which this process is not ended because others are gone."""
        return self.watch.held_back()

    def total(self, value: float) -> float:
        """Returns the sum of the processes' values."""
        tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.item()

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is set in any process."""
        return self.total(flag) > 0

    def from_first(self, make: Callable[[], T]) -> T:
        """Returns, in all processes, what a call gives in the first one."""
        found: list[Any] = [make() if self.is_first else None]
        dist.broadcast_object_list(found, device=torch.device("cpu"))
        result: T = found[0]
        return result

    def first_then_others(self, call: Callable[[], T]) -> T:
        """Has the first process make a call before the others make it."""
        if self.is_first:
            result = call()
        self.total(0)
        return result if self.is_first else call()

    def each(self, compute: Callable[[slice], Tensor], count: int) -> Tensor:
        """Returns numbers for each sample; every process computes equally many."""
        length = self.largest_share(count)
        mine = self.rank * length
        start = min(mine, count - length)  # the last ones compute some that are others' too
        values = compute(slice(start, start + length))
        whole = torch.zeros(count, *values.shape[1:], dtype=values.dtype)
        whole[mine : start + length] = values[mine - start :].cpu()
        dist.all_reduce(whole)
        return whole

    def agree(self, flag: bool) -> bool:
        """Returns whether the flag is set in any process; raises if a signal is waiting in any."""
        received = signals.received()
        number = signals.NAMES.index(received) + 1 if received else 0
        tensor = torch.tensor([flag, number])
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        if tensor[1]:
            raise Interrupted(signals.NAMES[int(tensor[1]) - 1])
        return bool(tensor[0])

    def train_together(self, surrogate: nn.Module) -> nn.Module:
        """Returns a surrogate whose gradients become the mean over the processes."""
        if self.shards or not any(p.requires_grad for p in surrogate.parameters()):
            return surrogate
        return DistributedDataParallel(
            surrogate,
            find_unused_parameters=not isinstance(surrogate.network, UNet),
            gradient_as_bucket_view=True,
        )

    def reducing(self, surrogate: nn.Module, reduce: bool) -> AbstractContextManager[None]:
        """Returns the context of a forward and backward pass.

        Spread gradients are exchanged in every pass, as whole ones would need the memory.
        """
        if reduce or not isinstance(surrogate, DistributedDataParallel):
            return nullcontext()
        return surrogate.no_sync()

    def spread(self, network: nn.Module) -> None:
        """Spreads the parameters of a network over the processes, if that is the strategy."""
        if not self.shards:
            return
        chains: list[nn.Module] = [network] if isinstance(network, nn.Sequential) else []
        chains += network.iter_scales() if isinstance(network, UNet) else []
        parts = [module for chain in chains for module in chain.children()]
        sharding.spread(network, parts, init_device_mesh(self.device.type, (self.size,)))

    def whole(self, state: Any) -> Any:
        """Returns nested containers with tensors that are spread over processes put together."""
        if not self.shards:
            return state
        return sharding.whole(state)

    def spread_like(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """Returns a whole tensor spread as a parameter is, if the shapes are equal."""
        if not self.shards:
            return tensor
        return sharding.spread_like(tensor, parameter)


@contextmanager
def join(device_name: str, strategy: Strategy) -> Iterator[Processes]:
    """Joins the other processes and leaves them at the end.

    Raises:
        UserError: If they cannot be joined, or one of them has failed meanwhile.
    """
    device = choose_device(device_name, local_rank(), local_size())
    if device.type == "cuda":
        torch.cuda.set_device(local_rank())
    for harmless in ("Grad strides do not match", "FSDP2-wrapped module .* returned a view"):
        warnings.filterwarnings("ignore", harmless)
    _start(device)
    watch = Watch(dist.get_rank(), dist.get_world_size(), connect())
    processes = ProcessGroup(device, strategy, watch)
    try:
        with _translated(watch):
            yield processes
            processes.total(0)  # nobody leaves before all are done
        watch.end("done")
        dist.destroy_process_group()
    except UserError as error:
        watch.end("failed", str(error))
        raise
    except Interrupted as signal:
        watch.end("stopped", str(signal))
        raise
    except BaseException as error:
        watch.end("failed", f"{type(error).__name__}: {error}")
        raise


@contextmanager
def _translated(watch: Watch) -> Iterator[None]:
    """Tells of the process that is gone instead of the connections that this has broken."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _is_connection(error):
            raise
        gone = watch.explain()
        if gone is None:
            raise
        raise gone from None
    except Interrupted:
        # what starts the processes stops all of them once one has failed
        if isinstance(watch.gone, UserError):
            raise watch.gone from None
        raise


def _is_connection(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("gloo", "nccl", "connection", "socket", "timed out"))


def _start(device: torch.device) -> None:
    needed = {"gloo": dist.is_gloo_available()}
    if device.type == "cuda":
        needed["nccl"] = dist.is_nccl_available()
    for backend, available in needed.items():
        if not available:
            raise UserError(
                f"several processes on {device.type} need PyTorch's backend '{backend}', which "
                "this build of PyTorch lacks; start a single process"
            )
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=TO_START))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TO_WAIT)
        dist.all_reduce(torch.zeros(1))
    except (dist.DistError, RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = str(error).split("\n")[0]
        raise UserError(
            f"the {num_processes()} processes did not find each other at {where}: {reason}"
        ) from None
