"""Several processes that train one network."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from multigrid.distributed.processes import ALONE, Processes, Strategy, num_processes
from multigrid.errors import UserError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def joined(device: str, strategy: Strategy) -> Iterator[Processes]:
    """Joins the other processes, if there are any, and leaves them at the end.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        strategy: How the processes share their work.

    Raises:
        UserError: If they cannot be joined, or one of them fails within the context.
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
