"""Runs of the command in several processes, as ``torchrun`` would start them, but quickly."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from experiments.benchmarks.group import free_port, rank_variables

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["together_preload"])


def _work(
    rank: int,
    size: int,
    port: int,
    arguments: Sequence[str],
    errors: Path,
    prepare: Callable[[int], None] | None,
) -> None:
    os.environ |= rank_variables(rank, size, port)
    for target, number in ((os.devnull, 1), (errors, 2)):
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, number)
    import torch

    from multigrid import report
    from multigrid.run import main

    torch.set_num_threads(1)
    report.write_report = lambda *args: []
    if prepare is not None:
        prepare(rank)
    status = main(arguments)
    sys.stderr.flush()
    os._exit(status)


def start(
    arguments: Sequence[str],
    folder: Path,
    size: int = 2,
    prepare: Callable[[int], None] | None = None,
    started: int | None = None,
    port: int | None = None,
) -> list[BaseProcess]:
    """Starts the processes; each writes its standard error to ``folder/<rank>.stderr``.

    Args:
        arguments: Those of the command, or those of each process.
        folder: For results, data and standard errors.
        size: Number of processes.
        prepare: Called in each of them with its rank, before the command.
        started: Number of processes that are started at all, by default all of them.
        port: Where they meet, by default one that is free.
    """
    port = port or free_port()
    more = [f"output.folder={folder / 'results'}", f"data.folder={folder / 'data'}"]
    processes = []
    for rank in range(size if started is None else started):
        errors = folder / f"{rank}.stderr"
        each = arguments[rank] if isinstance(arguments[0], list) else arguments
        command = [*map(str, each), *more]
        process = CONTEXT.Process(
            target=_work, args=(rank, size, port, command, errors, prepare), daemon=True
        )
        process.start()
        processes.append(process)
    return processes


def finish(processes: Sequence[BaseProcess], limit: float = 240.0) -> list[int]:
    """Returns the exit statuses; kills what hangs."""
    until = time.monotonic() + limit
    for process in processes:
        process.join(max(0.1, until - time.monotonic()))
        if process.exitcode is None:
            for other in processes:
                other.kill()
            raise AssertionError("the processes hang")
    return [process.exitcode for process in processes]


def run_together(arguments: Sequence[str], folder: Path, **options: object) -> list[int]:
    """Runs the command in several processes and returns their statuses."""
    return finish(start(arguments, folder, **options))
