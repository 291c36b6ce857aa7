"""Several processes that train one network on PyTorch's distributed engine.

Every process holds the same samples and makes the same decisions, as all of them see the same
sums; each computes its share of every batch. Numbers that decide go through gloo on the CPU,
gradients through NCCL on GPUs.
"""

import itertools
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from multigrid import signals
from multigrid.distributed import Processes, Strategy, local_rank, local_size, num_processes
from multigrid.distributed.heartbeat import BEAT_SECONDS, PATIENCE, Heartbeat
from multigrid.errors import UserError, brief
from multigrid.hardware import choose_device
from multigrid.models.unet import UNet
from multigrid.signals import Interrupted

T = TypeVar("T")

TO_START = timedelta(seconds=60)
TO_WAIT = timedelta(days=7)
"""For others that generate data, say; the heartbeat tells of those that are gone."""

JOINS = itertools.count()
"""Numbers the times that this process has joined others, which all do equally often."""


class ProcessGroup(Processes):
    """One of several processes."""

    def __init__(self, device: torch.device, strategy: Strategy, heartbeat: Heartbeat) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.shards = strategy == "fsdp"
        self.device = device
        self.heartbeat = heartbeat

    def undisturbed(self) -> AbstractContextManager[Any]:
        """Returns a context in which this process is not ended because others are gone."""
        return self.heartbeat.busy

    def total(self, value: float) -> float:
        """Returns the sum of the processes' values."""
        tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.item()

    def from_first(self, make: Callable[[], T]) -> T:
        """Returns, in all processes, what a call gives in the first one."""
        result: T = self._broadcast(make() if self.is_first else None, 0)
        return result

    def _broadcast(self, value: Any, rank: int) -> Any:
        values = [value]
        dist.broadcast_object_list(values, rank, device=torch.device("cpu"))
        return values[0]

    def require_equal(self, facts: Mapping[str, Any]) -> None:
        """Checks that all processes have the same facts, plain values by name."""
        first, *others = [self._broadcast(dict(facts), rank) for rank in range(self.size)]
        for rank, other in enumerate(others, 1):
            differences = [
                f"{name} ({other.get(name)} instead of {first.get(name)})"
                for name in {**first, **other}
                if other.get(name) != first.get(name)
            ]
            if differences:
                raise UserError(
                    f"process {rank} of {self.size} was started otherwise than process 0: "
                    f"{', '.join(differences)}"
                )

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
        """Spreads the parameters of a network over the processes, if that is the strategy.

        Names stay as they are. The parameters of a part are gathered when it is called.
        """
        if not self.shards:
            return
        for parameter in network.parameters():
            parameter.data = parameter.data.contiguous()  # with the channels last is not supported
        chains: list[nn.Module] = [network] if isinstance(network, nn.Sequential) else []
        chains += network.iter_scales() if isinstance(network, UNet) else []
        mesh = init_device_mesh(self.device.type, (self.size,))
        for module in [*(part for chain in chains for part in chain.children()), network]:
            if any(True for _ in module.parameters()):
                fully_shard(module, mesh=mesh, reshard_after_forward=True)

    def whole(self, state: Any) -> Any:
        """Returns nested containers with tensors that are spread over processes put together."""
        if self.shards and isinstance(state, DTensor):
            return state.full_tensor()
        if self.shards and isinstance(state, Mapping):
            return {key: self.whole(value) for key, value in state.items()}
        return state

    def spread_like(self, tensor: Any, parameter: Tensor) -> Any:
        """Returns a whole tensor spread as a parameter is, if the shapes are equal."""
        if not isinstance(parameter, DTensor) or getattr(tensor, "shape", None) != parameter.shape:
            return tensor
        here = tensor.to(parameter.device).contiguous()
        mesh, placements = parameter.device_mesh, parameter.placements
        # every process has the tensor, so none needs to send it
        return distribute_tensor(here, mesh, placements, src_data_rank=None)


@contextmanager
def join(device_name: str, strategy: Strategy) -> Iterator[Processes]:
    """Joins the other processes and leaves them at the end."""
    device = choose_device(device_name, local_rank(), local_size())
    if device.type == "cuda":
        torch.cuda.set_device(local_rank())
    heartbeat = _start(device)
    try:
        with warnings.catch_warnings(), _explained(heartbeat):
            warnings.filterwarnings("ignore", "Grad strides do not match")  # both do no harm
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
            processes = ProcessGroup(device, strategy, heartbeat)
            yield processes
            processes.total(0)  # nobody leaves before all are done
        heartbeat.end("done")
        dist.destroy_process_group()
    except BaseException as error:
        kind = "stopped" if isinstance(error, Interrupted) else "failed"
        plain = isinstance(error, UserError | Interrupted)
        heartbeat.end(kind, str(error) if plain else f"{type(error).__name__}: {error}")
        raise


@contextmanager
def _explained(heartbeat: Heartbeat) -> Iterator[None]:
    """Tells of the process that is gone instead of the connections that this has broken."""
    try:
        yield
    except RuntimeError as error:
        words = ("gloo", "nccl", "connection", "socket", "timed out")
        broken = any(word in str(error).lower() for word in words)
        if not (broken or isinstance(error, dist.DistError)):
            raise
        gone = heartbeat.explain()
        if gone is None:
            raise
        raise gone from None
    except Interrupted:
        # what starts the processes stops all of them once one has failed
        if isinstance(heartbeat.gone, UserError):
            raise heartbeat.gone from None
        raise


def _start(device: torch.device) -> Heartbeat:
    """Meets the other processes; returns what looks after them."""
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
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    try:
        if os.environ["RANK"] != "0":
            _await_listener(address, int(port))
        store, rank, size = _bounded(lambda: next(dist.rendezvous("env://", timeout=TO_START)))
        patience = timedelta(seconds=PATIENCE * BEAT_SECONDS)
        connection = dist.TCPStore(address, int(port), is_master=False, timeout=patience)
        prefix = f"multigrid/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{next(JOINS)}"
        heartbeat = Heartbeat(rank, size, dist.PrefixStore(prefix, connection))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TO_WAIT)
        dist.all_reduce(torch.zeros(1))
    except (RuntimeError, ValueError, OSError) as error:
        sentence = (
            f"the {num_processes()} processes did not find each other at {address}:{port} within "
            f"{TO_START.seconds} s: {brief(error)}"
        )
        if local_rank():  # no other process can tell for it, as the command expects
            sys.stderr.write(f"error: {sentence}\n")
        raise UserError(sentence) from None
    return heartbeat


def _bounded(call: Callable[[], T]) -> T:
    """Returns what a call gives; it would wait for ever if something else listens on the port."""
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except (RuntimeError, ValueError, OSError) as error:
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    wait([outcome], TO_START.total_seconds() + 2)
    if not outcome.done():
        raise TimeoutError("what listens there is no process of this run")
    return outcome.result()


def _await_listener(address: str, port: int) -> None:
    """Waits until something listens where process 0 should, which PyTorch would wait for aloud."""
    until = time.monotonic() + TO_START.total_seconds()
    while True:
        try:
            socket.create_connection((address, port), timeout=5).close()
            return
        except socket.gaierror as error:
            reason = f"the name '{address}' is not known ({error.strerror})"
        except OSError:
            reason = "nothing listens there; process 0 (RANK=0) must run, with the same MASTER_ADDR"
        if time.monotonic() > until:
            raise TimeoutError(reason)
        time.sleep(0.2)
