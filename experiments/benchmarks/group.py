"""Processes of a benchmark that work together whenever they are told to."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from multigrid.distributed import Processes, Strategy, joined
from multigrid.errors import UserError
from multigrid.hardware import keep_large_buffers

THREADS = 2
"""Threads that the processes of a group share."""

Prepare = Callable[[Processes], Callable[[Any], Any]]


class Group:
    """Processes on the CPU that stay alive, and idle, from one order to the next.

    Args:
        prepare: Returns what answers orders; called in every process, so it must be importable.
        size: Number of processes, which share :data:`THREADS` threads.
        strategy: How they train one network.
    """

    def __init__(self, prepare: Prepare, size: int, strategy: Strategy = "ddp") -> None:
        context, port = get_context("spawn"), free_port()
        self.pipes: list[Connection] = []
        self.processes: list[BaseProcess] = []
        for rank in range(size):
            ours, theirs = context.Pipe()
            work = (theirs, prepare, strategy, rank, size, port)
            self.processes.append(context.Process(target=_serve, args=work, daemon=True))
            self.processes[-1].start()
            theirs.close()
            self.pipes.append(ours)

    def answers(self, order: Any) -> list[Any]:
        """Returns what each process answers; raises a UserError if one is gone."""
        try:
            for pipe in self.pipes:
                pipe.send(order)
            return [pipe.recv() for pipe in self.pipes]
        except (EOFError, OSError):
            raise UserError("a process of the benchmark has ended; see above for why") from None

    def end(self) -> None:
        """Lets the processes end, and waits for them."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join()


def rank_variables(rank: int, size: int, port: int) -> dict[str, str]:
    """Returns what torchrun sets in the environment of one of ``size`` processes of a machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _serve(
    pipe: Connection, prepare: Prepare, strategy: Strategy, rank: int, size: int, port: int
) -> None:
    """Answers whenever it is told to, until nobody is there to tell."""
    keep_large_buffers()
    os.environ |= rank_variables(rank, size, port)
    torch.set_num_threads(THREADS // size)
    with joined("cpu", strategy) as processes:
        answer = prepare(processes)
        with suppress(EOFError):
            while True:
                pipe.send(answer(pipe.recv()))
