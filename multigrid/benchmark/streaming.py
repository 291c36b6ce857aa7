"""What streaming costs: epochs with samples from disk beside epochs with samples in memory."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from multigrid.config import Config
from multigrid.data.streaming import TrainingSamples
from multigrid.experiment import Experiment
from multigrid.hardware import machine
from multigrid.losses import build_loss
from multigrid.models.surrogate import FieldScaling, Surrogate
from multigrid.schedule import Stage
from multigrid.tables import table
from multigrid.trainer import EpochRecord, Trainer

NUM_ROUNDS = 5
NUM_STEPS = 12


class Stopwatch:
    """Keeps what the only epoch of a training gave."""

    record: EpochRecord

    def step(self, epoch: int, step: int, num_steps: int) -> None:
        """Does nothing."""

    def epoch(self, trainer: Trainer, record: EpochRecord) -> None:
        """Keeps the record."""
        self.record = record


def measure_streaming(config: Config) -> str:
    """Times short epochs on the finest level with held and with streamed samples, in turn.

    Both train the same network on the same batches in the same order. The file has just been
    read, so that it may lie in the system's cache.

    Returns:
        A table with medians over the rounds, and the median of the ratios within each.
    """
    experiment = Experiment(config)
    stage = max(experiment.stages, key=lambda stage: stage.level)
    grid = experiment.hierarchy.levels[stage.level]
    count = min(NUM_STEPS * stage.batch_size, config.samples()[stage.level])
    experiment.source.prepare({**experiment.counts, "train": count})
    held = experiment.source.read("train", grid, count).to(experiment.device)
    streamed = experiment.source.open("train", grid, count).to(experiment.device)
    scaling = FieldScaling.fit(experiment.normalization, held)
    _epoch(experiment, stage, scaling, held)  # the first one is slower
    rounds = [
        [_epoch(experiment, stage, scaling, samples) for samples in (held, streamed)]
        for _ in range(NUM_ROUNDS)
    ]
    alone = statistics.median(
        _reading_seconds(streamed, stage.batch_size) for _ in range(NUM_ROUNDS)
    )
    return (
        f"{experiment.config.name} on {grid}, {count} samples in batches of {stage.batch_size}, "
        f"{experiment.precision} on {machine(experiment.device)}, "
        f"{torch.get_num_threads()} threads, {NUM_ROUNDS} rounds\n{_report(rounds, count, alone)}"
    )


def _epoch(
    experiment: Experiment, stage: Stage, scaling: FieldScaling, samples: TrainingSamples
) -> EpochRecord:
    """Trains a new network for one epoch, without validation."""
    loss = experiment.config.loss
    trainer = Trainer(
        Surrogate(experiment.family.build(stage.level).to(experiment.device), scaling),
        samples,
        lambda surrogate: (0.0, 0.0),
        replace(stage, epochs=1),
        build_loss(loss.name, samples.grid, experiment.problem, loss.residual),
        experiment.options,
    )
    stopwatch = Stopwatch()
    trainer.fit(stopwatch)
    return stopwatch.record


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
