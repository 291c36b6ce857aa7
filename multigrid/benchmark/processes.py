"""Two processes of one thread against one process of two threads, in samples a second."""

import os
import statistics
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import torch

from multigrid.allocator import keep_large_buffers
from multigrid.benchmark.epoch import ShortEpoch
from multigrid.config import Config
from multigrid.distributed.launch import free_port, joined, rank_variables
from multigrid.errors import UserError
from multigrid.hardware import machine
from multigrid.ladder.experiment import Experiment
from multigrid.tables import table

NUM_ROUNDS = 9
NUM_STEPS = 8
"""Steps of an epoch on the finest level; more on coarser ones, if there are samples for so many."""
THREADS = 2


class Group:
    """Processes that train together whenever they are told to.

    Args:
        config: The experiment.
        size: Number of processes, which share :data:`THREADS` threads.
    """

    def __init__(self, config: Config, size: int) -> None:
        context, port = get_context("spawn"), free_port()
        self.pipes: list[Connection] = []
        self.processes: list[BaseProcess] = []
        for rank in range(size):
            ours, theirs = context.Pipe()
            work = (theirs, config, rank, size, port)
            self.processes.append(context.Process(target=_serve, args=work, daemon=True))
            self.processes[-1].start()
            theirs.close()
            self.pipes.append(ours)

    def seconds(self, level: int) -> float:
        """Returns how long a short epoch on a level takes.

        Raises:
            UserError: If a process is gone.
        """
        try:
            for pipe in self.pipes:
                pipe.send(level)
            return float(max([pipe.recv() for pipe in self.pipes]))
        except (EOFError, OSError):
            raise UserError("a process of the benchmark has ended; see above for why") from None

    def end(self) -> None:
        """Lets the processes end, and waits for them."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join()


def measure_processes(config: Config) -> str:
    """Times short epochs on the coarsest and on the finest level both ways, in turn.

    Both are trainings with the batches and samples of the configuration, without validation; the
    processes that have nothing to do meanwhile wait.

    Returns:
        A table.

    Raises:
        UserError: If the device is no CPU.
    """
    experiment = Experiment(config)
    if experiment.device.type != "cpu":
        raise UserError("compute.device: this compares ways to use a CPU; it must be 'cpu'")
    levels = sorted({stage.level for stage in experiment.stages})
    levels = levels[:: max(1, len(levels) - 1)]
    epochs = {level: short_epoch(experiment, level) for level in levels}  # generates the samples
    threads, processes = Group(config, 1), Group(config, THREADS)
    rounds: dict[int, list[tuple[float, float]]] = {level: [] for level in levels}
    for _ in range(1 + NUM_ROUNDS):
        for level, times in rounds.items():
            times.append((threads.seconds(level), processes.seconds(level)))
    threads.end()
    processes.end()
    rows = [_row(epochs[level], times[1:]) for level, times in rounds.items()]
    header = ["Grid", "Batch", f"1 x {THREADS} threads", f"{THREADS} x 1 thread", "ratio"]
    return (
        f"{config.name}, {experiment.precision} on {machine(experiment.device)}, samples/s, "
        f"medians of {NUM_ROUNDS} rounds\n{table(header, rows)}\n"
        "ratio: of several processes of one thread over one process of several threads"
    )


def short_epoch(experiment: Experiment, level: int) -> ShortEpoch:
    """Returns short epochs that take about equally long on each level."""
    finest = max(stage.level for stage in experiment.stages)
    return ShortEpoch(experiment, NUM_STEPS * 2 ** (2 * (finest - level)), level)


def _row(epoch: ShortEpoch, times: Sequence[tuple[float, float]]) -> list[str]:
    count = len(epoch.samples)
    rates = [statistics.median(count / each for each in way) for way in zip(*times, strict=True)]
    ratio = statistics.median(threads / processes for threads, processes in times)
    return [
        str(epoch.samples.grid),
        str(epoch.stage.batch_size),
        *(f"{rate:.4g}" for rate in rates),
        f"{ratio:.2f}",
    ]


def _serve(pipe: Connection, config: Config, rank: int, size: int, port: int) -> None:
    """Trains on a level whenever it is told which, until nobody is there to tell."""
    keep_large_buffers()
    os.environ |= rank_variables(rank, size, port)
    torch.set_num_threads(THREADS // size)
    with joined(config.compute.device, config.parallel.strategy) as team:
        experiment = Experiment(config, team=team)
        epochs: dict[int, ShortEpoch] = {}
        for level in _orders(pipe):
            if level not in epochs:
                epochs[level] = short_epoch(experiment, level)
            epoch = epochs[level]
            pipe.send(epoch.train(epoch.samples, experiment.options.symmetries)[0].seconds)


def _orders(pipe: Connection) -> Iterator[int]:
    while True:
        try:
            yield pipe.recv()
        except EOFError:
            return
