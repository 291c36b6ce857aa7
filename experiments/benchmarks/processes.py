"""Two processes of one thread against one process of two threads, in samples a second."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from experiments.benchmarks.epoch import ShortEpoch
from experiments.benchmarks.group import THREADS, Group
from multigrid.config import Config, parse_config
from multigrid.distributed import Processes
from multigrid.errors import UserError
from multigrid.hardware import machine
from multigrid.ladder.experiment import Experiment
from multigrid.tables import table

NUM_ROUNDS = 9
NUM_STEPS = 8
"""Steps of an epoch on the finest level; more on coarser ones, if there are samples for so many."""


def measure(config: Config) -> str:
    """Times short epochs on the coarsest and on the finest level both ways, in turn.

    Both are trainings with the batches and samples of the configuration, without validation; the
    processes that have nothing to do meanwhile wait.
    """
    experiment = Experiment(config)
    if experiment.device.type != "cpu":
        raise UserError("compute.device: this compares ways to use a CPU; it must be 'cpu'")
    levels = sorted({stage.level for stage in experiment.plan.stages})
    levels = levels[:: max(1, len(levels) - 1)]
    epochs = {level: short_epoch(experiment, level) for level in levels}  # generates the samples
    threads, processes = (
        Group(partial(epoch_timer, config.model_dump()), size, config.parallel.strategy)
        for size in (1, THREADS)
    )
    rounds: dict[int, list[tuple[float, float]]] = {level: [] for level in levels}
    for _ in range(1 + NUM_ROUNDS):
        for level, times in rounds.items():
            times.append((max(threads.answers(level)), max(processes.answers(level))))
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
    """Returns short epochs that take about equally long on each level.

    The second one is timed, as before the first step of a training several processes try whether
    their memory suffices.
    """
    finest = max(stage.level for stage in experiment.plan.stages)
    return ShortEpoch(experiment, NUM_STEPS * 2 ** (2 * (finest - level)), level, num_epochs=2)


def epoch_timer(config: Mapping[str, Any], processes: Processes) -> Callable[[int], float]:
    """Returns what trains for a short epoch on a level and tells its seconds."""
    experiment = Experiment(parse_config(dict(config)), processes=processes)
    epochs: dict[int, ShortEpoch] = {}

    def seconds(level: int) -> float:
        if level not in epochs:
            epochs[level] = short_epoch(experiment, level)
        epoch = epochs[level]
        return epoch.train(epoch.samples, experiment.options.symmetries)[0].seconds

    return seconds


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
