"""How a process finds out that there are others, and joins them.

Imports no torch if there are none.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from multigrid.distributed.processes import ALONE, Processes, Strategy, num_processes
from multigrid.errors import UserError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def rank_variables(rank: int, size: int, port: int) -> dict[str, str]:
    """Returns what torchrun sets in the environment of a process, all being on this machine.

    Args:
        rank: Number of the process, from 0.
        size: Number of processes.
        port: Where they meet, see :func:`free_port`.
    """
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


@contextmanager
def joined(device: str, strategy: Strategy) -> Iterator[Processes]:
    """Joins the other processes, if there are any, and leaves them at the end.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        strategy: How the processes share their work.

    Raises:
        UserError: If they cannot be joined, or one of them has failed meanwhile.
    """
    if num_processes() == 1:
        yield ALONE
        return
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {num_processes()}, but {', '.join(missing)} must be set too; torchrun "
            "sets them all"
        )
    from multigrid.distributed.process_group import join

    with join(device, strategy) as processes:
        yield processes
