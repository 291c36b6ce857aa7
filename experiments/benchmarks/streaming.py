"""What streaming costs: epochs with samples from disk beside epochs with samples in memory."""

import statistics
import time
from collections.abc import Sequence

import torch

from experiments.benchmarks.epoch import ShortEpoch
from multigrid.config import Config
from multigrid.data.samples import TrainingSamples
from multigrid.ladder.experiment import Experiment
from multigrid.tables import table
from multigrid.training.callbacks import EpochRecord

NUM_ROUNDS = 5
NUM_STEPS = 12


def measure_streaming(config: Config) -> str:
    """Times short epochs on the finest level with held and with streamed samples, in turn.

    Both train the same network on the same batches in the same order. The file has just been
    read, so that it may lie in the system's cache.

    Returns:
        A table with medians over the rounds, and the median of the ratios within each.
    """
    experiment = Experiment(config)
    short = ShortEpoch(experiment, NUM_STEPS)
    held, symmetries = short.samples, experiment.options.symmetries
    streamed = experiment.source.open("train", held.grid, len(held)).to(experiment.device)
    short.train(held, symmetries)  # the first one is slower
    rounds = [
        [short.train(samples, symmetries)[0] for samples in (held, streamed)]
        for _ in range(NUM_ROUNDS)
    ]
    alone = statistics.median(
        _reading_seconds(streamed, short.stage.batch_size) for _ in range(NUM_ROUNDS)
    )
    return f"{short}, {NUM_ROUNDS} rounds\n{_report(rounds, len(held), alone)}"


def _reading_seconds(samples: TrainingSamples, batch_size: int) -> float:
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    started = time.perf_counter()
    for _ in samples.batches(order.split(batch_size)):
        pass
    return time.perf_counter() - started


def _report(rounds: Sequence[Sequence[EpochRecord]], count: int, alone: float) -> str:
    rows = []
    for index, name in enumerate(("held in memory", "streamed from disk")):
        seconds = statistics.median(records[index].seconds for records in rounds)
        waiting = statistics.median(records[index].data_fraction for records in rounds)
        rows.append([name, f"{seconds:.3f}", f"{count / seconds:.1f}", f"{100 * waiting:.2f}"])
    rows.append(["reading alone", f"{alone:.3f}", f"{count / alone:.1f}", "-"])
    ratio = statistics.median(streamed.seconds / held.seconds for held, streamed in rounds)
    header = ["Samples", "s/epoch", "Samples/s", "Waiting %"]
    return f"{table(header, rows)}\nstreamed over held: {ratio:.3f}"
