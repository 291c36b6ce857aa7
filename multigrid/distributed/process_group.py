"""Several processes that train one network on PyTorch's distributed engine.

Every process holds the same samples and makes the same decisions, as all of them see the same
sums; each computes its share of every batch. Numbers that decide go through gloo on the CPU,
gradients through NCCL on GPUs.

They notice within a minute that one of them is gone, and say which: once a second each writes a
number into the store that they share. Collective calls alone do not suffice: their time limit
cannot tell a process that is gone from one that compiles.
"""

import itertools
import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
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
from multigrid.errors import UserError, brief
from multigrid.hardware import choose_device
from multigrid.models.unet import UNet
from multigrid.signals import STATUS, Interrupted

T = TypeVar("T")

TO_START = timedelta(seconds=60)
TO_WAIT = timedelta(days=7)
"""For others that generate data, say; the heartbeat tells of those that are gone."""

BEAT_SECONDS = 1.0
PATIENCE = 40
"""For how many beats a process may be silent, as it is while it computes without Python."""
SUSPICION = 8
"""The same once a connection to some process is broken."""
GRACE_SECONDS = 18.0
"""How long the work gets to end by itself once another process is gone."""

JOINS = itertools.count()
"""Numbers the times that this process has joined others, which all do equally often."""


class Heartbeat:
    """Tells the other processes that this one lives, and how it ends; notices who is gone.

    The store must be used by nobody else, and give up after a while. ``gone`` is what to raise once
    another process has ended before its time; ``busy`` is held while this one must not be ended, as
    while it saves.
    """

    def __init__(self, rank: int, size: int, store: dist.Store) -> None:
        self.rank, self.size, self.store = rank, size, store
        self.gone: BaseException | None = None
        self.busy = threading.RLock()
        self._patience = PATIENCE
        self._latest = {other: "" for other in range(size) if other != rank}
        self._silent = dict.fromkeys(self._latest, 0)
        self._noticed, self._over = threading.Event(), threading.Event()
        threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()

    def explain(self) -> BaseException | None:
        """Returns what to raise after a connection broke; waits until it is clear who is gone."""
        self._patience = min(SUSPICION, self._patience)
        self._noticed.wait((PATIENCE + 2) * BEAT_SECONDS)
        return self.gone

    def end(self, kind: str, text: str = "") -> None:
        """Tells the others how this process ends: ``done``, ``failed`` or ``stopped``.

        Whoever fails leaves them time to read it before connections break; whoever is stopped
        waits for process 0, which saves, as some launchers kill all when one has ended.
        """
        self._over.set()
        try:
            self.store.set(f"end/{self.rank}", f"{kind} {text}")
            if kind == "stopped" and self.rank:
                self.store.wait(["end/0"], timedelta(seconds=PATIENCE * BEAT_SECONDS))
        except RuntimeError:
            return  # the process that kept the store is gone, so nobody can be told
        if kind == "failed" or (kind == "stopped" and self.rank == 0):
            self._noticed.wait(2 * BEAT_SECONDS)

    def _beat(self) -> None:
        """Counts silent beats; not seconds, so that a paused process does not count as dead."""
        name = f"(on {socket.gethostname()}, process id {os.getpid()})"
        for number in itertools.count():
            try:
                self.store.set(f"beat/{self.rank}", f"alive {number} {name}")
                for other in self._latest:
                    self._listen_to(other)
            except RuntimeError:  # process 0 keeps the store
                self._silent[0] = PATIENCE + 1
            gone = filter(None, (self._judge(other) for other in self._latest))
            self.gone = next(gone, None)
            if self.gone is not None:
                break
            if self._over.wait(BEAT_SECONDS):
                return
        self._noticed.set()
        self._end_the_work()

    def _listen_to(self, other: int) -> None:
        """Reads the latest message of another process: how it has ended, or that it lives."""
        before = self._latest[other]
        for key in (f"end/{other}", f"beat/{other}"):
            if self.store.check([key]):
                self._latest[other] = self.store.get(key).decode()
                break
        self._silent[other] = 0 if self._latest[other] != before else self._silent[other] + 1

    def _judge(self, other: int) -> BaseException | None:
        """Returns what to raise because of another process, if anything."""
        kind, _, text = self._latest[other].partition(" ")
        process = f"process {other} of {self.size}"
        if kind == "stopped":
            return Interrupted(text)
        if kind == "failed":
            return UserError(f"{process}: {text}")
        if kind == "done" or self._silent[other] <= self._patience:
            return None
        name = text.partition(" ")[2]
        return UserError(
            f"{process} {name} has died or no longer answers; what was saved is sound: --resume "
            "goes on from there"
        )

    def _end_the_work(self) -> None:
        """Ends the process if it does not do so by itself, as it waits for ever for the others."""
        lost = self.rank == 1 and self._latest[0].partition(" ")[0] in ("", "alive")
        if lost and local_rank():
            sys.stderr.write(f"error: {self.gone}\n")  # for process 0, which tells everything else
        if self._over.wait(GRACE_SECONDS):
            return
        with self.busy:
            pass
        if self._over.wait(BEAT_SECONDS):
            return
        if isinstance(self.gone, Interrupted):
            os._exit(STATUS)
        if local_rank() == 0:
            sys.stderr.write(f"error: {self.gone}\n")
        sys.stderr.flush()
        os._exit(2)


class _ProcessGroup(Processes):
    """One of several processes; what its methods are for is told in :class:`Processes`."""

    def __init__(self, device: torch.device, strategy: Strategy, heartbeat: Heartbeat) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.shards = strategy == "fsdp"
        self.device = device
        self.undisturbed = heartbeat.busy

    def total(self, value: float) -> float:
        tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.item()

    def from_first(self, make: Callable[[], T]) -> T:
        values: list[Any] = [make() if self.is_first else None]
        dist.broadcast_object_list(values, 0)
        result: T = values[0]
        return result

    def require_equal(self, facts: Mapping[str, Any]) -> None:
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, dict(facts))
        first = everyone[0]
        for rank, other in enumerate(everyone):
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
        length = self.largest_share(count)
        mine = self.rank * length
        start = min(mine, count - length)  # the last ones compute some that are others' too
        values = compute(slice(start, start + length))
        whole = torch.zeros(count, *values.shape[1:], dtype=values.dtype)
        whole[mine : start + length] = values[mine - start :].cpu()
        dist.all_reduce(whole)
        return whole

    def check_signals(self) -> None:
        received = signals.received()
        number = torch.tensor(signals.NAMES.index(received) + 1 if received else 0)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        if number:
            raise Interrupted(signals.NAMES[int(number) - 1])

    def train_together(self, surrogate: nn.Module) -> nn.Module:
        if self.shards or not any(p.requires_grad for p in surrogate.parameters()):
            return surrogate
        return DistributedDataParallel(
            surrogate,
            find_unused_parameters=not isinstance(surrogate.network, UNet),
            gradient_as_bucket_view=True,
        )

    def reducing(self, surrogate: nn.Module, reduce: bool) -> AbstractContextManager[None]:
        # spread gradients are exchanged in every pass, as whole ones would need the memory
        if reduce or not isinstance(surrogate, DistributedDataParallel):
            return nullcontext()
        return surrogate.no_sync()

    def spread(self, network: nn.Module) -> None:
        if not self.shards:
            return
        for parameter in network.parameters():
            parameter.data = parameter.data.contiguous()  # with the channels last is not supported
        chains: list[nn.Module] = [network] if isinstance(network, nn.Sequential) else []
        chains += network.iter_scales() if isinstance(network, UNet) else []
        mesh = init_device_mesh(self.device.type, (self.size,))
        # names stay as they are; the parameters of a part are gathered when it is called
        for module in [*(part for chain in chains for part in chain.children()), network]:
            if any(True for _ in module.parameters()):
                fully_shard(module, mesh=mesh, reshard_after_forward=True)

    def whole(self, state: Any) -> Any:
        if isinstance(state, DTensor):
            return state.full_tensor()
        if self.shards and isinstance(state, Mapping):
            return {key: self.whole(value) for key, value in state.items()}
        return state

    def spread_like(self, tensor: Any, parameter: Tensor) -> Any:
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
            processes = _ProcessGroup(device, strategy, heartbeat)
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
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if not dist.is_backend_available(backend):
        raise UserError(
            f"several processes on {device.type} need PyTorch's backend '{backend}', which this "
            "build of PyTorch lacks; start a single process"
        )
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    try:
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
            f"{TO_START.seconds} s ({brief(error)}); all must be started, with the MASTER_ADDR of "
            "process 0 (RANK=0)"
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
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return outcome.result(2 * TO_START.total_seconds() + 10)  # PyTorch gives up sooner
