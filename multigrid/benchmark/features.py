"""What featurised training saves: epochs on features beside epochs on fields, heads trained."""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from multigrid.benchmark.streaming import Stopwatch
from multigrid.config import Config
from multigrid.data.samples import Samples
from multigrid.experiment import Experiment
from multigrid.featurization import FeaturizedSamples, FeaturizedSurrogate
from multigrid.hardware import machine
from multigrid.losses import build_loss
from multigrid.models.surrogate import FieldScaling, Surrogate
from multigrid.regimes import Regime, Thaw
from multigrid.tables import si, table
from multigrid.trainer import EpochRecord, Trainer

NUM_ROUNDS = 5
NUM_STEPS = 8


def measure_features(config: Config) -> str:
    """Times short epochs on the finest level, all frozen but the heads, both ways in turn.

    Returns:
        A table with medians over the rounds, and the largest difference between the losses.
    """
    experiment = Experiment(config)
    stage = max(experiment.stages, key=lambda stage: stage.level)
    grid = experiment.hierarchy.levels[stage.level]
    count = min(NUM_STEPS * stage.batch_size, config.samples()[stage.level])
    experiment.source.prepare({**experiment.counts, "train": count})
    samples = experiment.source.read("train", grid, count).to(experiment.device)
    network = experiment.family.build(stage.level)
    regime = Regime(thaw={k: Thaw() for k in network.state_dict() if ".head." not in k})
    with tempfile.TemporaryDirectory() as folder:
        surrogate = _surrogate(experiment, stage.level, samples)
        featurized = FeaturizedSurrogate(surrogate, regime.always_frozen)
        path = Path(folder) / "features.h5"
        file = featurized.compute(samples, path, stage.batch_size, experiment.precision)
        size = path.stat().st_size
        data: dict[str, Samples | FeaturizedSamples] = {
            "fields": samples,
            "features in memory": FeaturizedSamples(samples, file, hold=True),
            "features from disk": FeaturizedSamples(samples, file, hold=False),
        }
        rounds = [
            {
                name: _epoch(experiment, stage.level, samples, train, regime)
                for name, train in data.items()
            }
            for _ in range(NUM_ROUNDS + 1)
        ][1:]  # the first one is slower
    return (
        f"{config.name} on {grid}, {count} samples in batches of {stage.batch_size}, "
        f"{si(size)}B of features, {experiment.precision} on {machine(experiment.device)}, "
        f"{torch.get_num_threads()} threads, {NUM_ROUNDS} rounds\n{_report(rounds)}"
    )


def _surrogate(experiment: Experiment, level: int, samples: Samples) -> Surrogate:
    scaling = FieldScaling.fit(experiment.normalization, samples)
    return Surrogate(experiment.family.build(level).to(experiment.device), scaling)


def _epoch(
    experiment: Experiment,
    level: int,
    samples: Samples,
    train: Samples | FeaturizedSamples,
    regime: Regime,
) -> tuple[EpochRecord, float]:
    """Trains the heads of a new network for one epoch; returns it with its FLOPs."""
    stage = max(experiment.stages, key=lambda stage: stage.level)
    surrogate = _surrogate(experiment, level, samples)
    known = FeaturizedSurrogate(surrogate, regime.always_frozen)
    trainer = Trainer(
        surrogate,
        train,
        lambda _: (0.0, 0.0),
        replace(stage, epochs=1),
        build_loss(experiment.config.loss.name, samples.grid, experiment.problem),
        replace(experiment.options, symmetries=None),
        regime,
        featurized=known if isinstance(train, FeaturizedSamples) else None,
    )
    stopwatch = Stopwatch()
    trainer.fit(stopwatch)
    return stopwatch.record, trainer.progress.flops


def _report(rounds: Sequence[Mapping[str, tuple[EpochRecord, float]]]) -> str:
    rows = []
    for name in rounds[0]:
        seconds = statistics.median(records[name][0].seconds for records in rounds)
        ratio = statistics.median(
            records["fields"][0].seconds / records[name][0].seconds for records in rounds
        )
        flops = rounds[0][name][1]
        faster = rounds[0]["fields"][1] / flops
        rows.append([name, f"{seconds:.3f}", f"{ratio:.1f}", si(flops), f"{faster:.1f}"])
    losses = [{name: r.train_loss for name, (r, _) in records.items()} for records in rounds]
    error = max(abs(loss / each["fields"] - 1) for each in losses for loss in each.values())
    header = ["Training on", "s/epoch", "Times faster", "FLOPs/epoch", "Times fewer"]
    return f"{table(header, rows)}\nlargest relative difference of a loss: {error:.1e}"
