"""One short epoch on a level, to be timed in several ways."""

from dataclasses import replace

import torch

from multigrid.data.samples import Samples, TrainingSamples
from multigrid.hardware import machine
from multigrid.ladder.experiment import Experiment
from multigrid.models.scaling import FieldScaling, Surrogate
from multigrid.problems import Symmetries
from multigrid.schedule import Stage
from multigrid.training.callbacks import Callback, Callbacks, EpochRecord
from multigrid.training.finetuning import FeaturizedSamples, Finetuning
from multigrid.training.trainer import Trainer


class ShortEpoch:
    """Short epochs of new networks on one level, without validation.

    Args:
        experiment: The experiment.
        num_steps: Steps of an epoch, if there are samples for so many.
        level: The level, by default the finest.
        num_epochs: Epochs of each training; the last one is what is timed.

    Attributes:
        experiment: The experiment.
        stage: The stage on the level, as short as the epochs.
        samples: The training samples, in memory.
    """

    def __init__(
        self,
        experiment: Experiment,
        num_steps: int,
        level: int | None = None,
        num_epochs: int = 1,
    ) -> None:
        self.experiment = experiment
        stages = {stage.level: stage for stage in experiment.plan.stages}
        stage = stages[max(stages) if level is None else level]
        self.stage: Stage = replace(stage, epochs=num_epochs)
        grid = experiment.family.input_grid(stage.level)
        count = min(num_steps * stage.batch_size, experiment.config.samples()[stage.level])
        experiment.source.prepare({**experiment.counts, "train": count})
        self.samples: Samples = experiment.source.read("train", grid, count).to(experiment.device)
        self._scaling = FieldScaling.fit(experiment.normalization, self.samples)

    def surrogate(self) -> Surrogate:
        """Returns the level's surrogate with its initial weights."""
        network = self.experiment.family.build(self.stage.level)
        return Surrogate(network.to(self.experiment.device), self._scaling)

    def train(
        self,
        samples: TrainingSamples | FeaturizedSamples,
        symmetries: Symmetries | None,
        finetuning: Finetuning | None = None,
    ) -> tuple[EpochRecord, float]:
        """Trains a new surrogate; returns what its last epoch gave and the FLOPs of all.

        Args:
            samples: What to train on; of featurised ones the features are used.
            symmetries: What to augment with, or None.
            finetuning: How the network's tensors are trained.
        """
        experiment = self.experiment
        trainer = Trainer(
            self.surrogate(),
            samples,
            lambda surrogate: (0.0, 0.0),
            self.stage,
            experiment.loss(samples.grid, self.stage.level, self._scaling.fields),
            replace(experiment.options, symmetries=symmetries),
            finetuning,
        )
        stopwatch = _Stopwatch()
        trainer.fit(Callbacks([stopwatch]))
        return stopwatch.record, trainer.progress.flops

    def __str__(self) -> str:
        experiment = self.experiment
        return (
            f"{experiment.config.name} on {self.samples.grid}, {len(self.samples)} samples in "
            f"batches of {self.stage.batch_size}, {experiment.precision} on "
            f"{machine(experiment.device)}, {torch.get_num_threads()} threads"
        )


class _Stopwatch(Callback):
    """Keeps what the last epoch of a training gave."""

    record: EpochRecord

    def on_epoch(self, trainer: Trainer, record: EpochRecord) -> None:
        """Keeps the record."""
        self.record = record
