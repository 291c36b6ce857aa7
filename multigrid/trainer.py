"""Training of one surrogate on one grid. Knows nothing of ladders.

All randomness is a pure function of seed, stage, epoch and step, and the learning rate one of the
step, so a run continues exactly from the weights, the optimiser's state and a few counters.
"""

import math
import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from multigrid.augmentation import augment
from multigrid.data.samples import Samples
from multigrid.data.streaming import TrainingSamples
from multigrid.errors import UserError
from multigrid.featurization import FeaturizedSamples, FeaturizedSurrogate
from multigrid.freezing import Freezer
from multigrid.hardware import PrecisionName, autocast
from multigrid.losses import Loss
from multigrid.models.cost import training_flops
from multigrid.models.surrogate import Surrogate
from multigrid.optimizers import NamedOptimizer, OptimizerName
from multigrid.problems.base import Symmetries
from multigrid.regimes import Regime
from multigrid.schedule import Decay, Stage, learning_rate_curve


class DivergedError(UserError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class TrainerOptions:
    """What is the same on all levels.

    Attributes:
        optimizer: ``muon`` or ``adamw``.
        weight_decay: Decoupled weight decay.
        betas: AdamW's decay rates.
        decay: Shape of the learning-rate curve.
        final_rate: Last learning rate over the highest.
        clip: Largest norm of the gradient, or None.
        precision: Number format of the network.
        symmetries: What to augment with, or None.
        patience: Epochs without improvement after which to stop, or None.
        seed: Seed of the data order and the augmentation.
    """

    optimizer: OptimizerName = "muon"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    decay: Decay = "cosine"
    final_rate: float = 0.01
    clip: float | None = 1.0
    precision: PrecisionName = "float32"
    symmetries: Symmetries | None = None
    patience: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Attributes:
        epoch: Number of finished epochs.
        best: Lowest validation error so far.
        best_epoch: The epoch that reached it.
        seconds: Training time, evaluation left out.
        data_seconds: The part of it spent waiting for data.
        evaluation_seconds: Time spent on validation.
        flops: Floating-point operations, evaluation left out.
    """

    epoch: int = 0
    best: float = math.inf
    best_epoch: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    flops: float = 0.0


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave.

    Attributes:
        epoch: Number of the epoch in its stage, from 1.
        train_loss: Mean loss over its steps.
        val_rel_l2: Mean relative L2 error of the validation samples on the own grid.
        val_finest_rel_l2: The same of the predictions prolonged to the finest grid.
        learning_rate: Rate of new weights at the last step.
        gradient_norm: Norm of the gradient before clipping, mean over the steps.
        seconds: Training time of the epoch.
        data_fraction: The part of it spent waiting for data.
        improved: Whether the validation error is the lowest so far.
    """

    epoch: int
    train_loss: float
    val_rel_l2: float
    val_finest_rel_l2: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    data_fraction: float
    improved: bool


class Validator(Protocol):
    """Measures a surrogate on the validation samples."""

    def __call__(self, surrogate: Surrogate) -> tuple[float, float]:
        """Returns the mean relative L2 error on the own and on the finest grid."""


class Observer(Protocol):
    """Is told of the progress of a training."""

    def step(self, epoch: int, step: int, num_steps: int) -> None:
        """Called after every optimiser step."""

    def epoch(self, trainer: "Trainer", record: EpochRecord) -> None:
        """Called after every epoch, validation included."""


class Trainer:
    """Trains a surrogate in one stage.

    Args:
        surrogate: The surrogate, initialised.
        train: Training samples on its grid, in memory or on disk.
        validate: Measures it on the validation samples.
        stage: Epochs, batch size and learning rates.
        loss: What to minimise.
        options: What is the same on all levels.
        regime: How each of the network's tensors is trained.
        target_error: Validation error at which to stop early, or None.
        featurized: Predicts from features of the batches, which ``train`` must have then.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        train: TrainingSamples | FeaturizedSamples,
        validate: Validator,
        stage: Stage,
        loss: Loss,
        options: TrainerOptions,
        regime: Regime | None = None,
        target_error: float | None = None,
        featurized: FeaturizedSurrogate | None = None,
    ) -> None:
        started = time.perf_counter()
        self.surrogate = surrogate
        self.train = train
        self.validate = validate
        self.stage = stage
        self.options = options
        self.target_error = target_error
        self.featurized = featurized
        self.regime = regime or Regime()
        self.freezer = Freezer(surrogate.network, self.regime)
        self.optimizer = self._optimizer()
        self.loss = loss
        self.num_steps = math.ceil(len(train) / stage.batch_size)
        self.rate = learning_rate_curve(
            options.decay, stage.epochs * self.num_steps, stage.warmup, options.final_rate
        )
        self.progress = Progress(
            seconds=time.perf_counter() - started, flops=featurized.flops if featurized else 0.0
        )

    def fit(self, observer: Observer) -> None:
        """Trains until the stage is over."""
        while not self.finished:
            observer.epoch(self, self._epoch(observer))

    def measure_start(self) -> tuple[float, float]:
        """Measures the surrogate before its first step; that counts as its best so far.

        Returns:
            The mean relative L2 error on the own and on the finest grid.
        """
        started = time.perf_counter()
        error, finest_error = self.validate(self.surrogate)
        seconds = self.progress.evaluation_seconds + time.perf_counter() - started
        self.progress = replace(self.progress, best=error, evaluation_seconds=seconds)
        return error, finest_error

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the error is low enough or has stopped falling."""
        progress, patience = self.progress, self.options.patience
        if progress.epoch >= self.stage.epochs:
            return True
        if patience is not None and progress.epoch - progress.best_epoch >= patience:
            return True
        return self.target_error is not None and progress.best <= self.target_error

    def state_dict(self) -> dict[str, Any]:
        """Returns everything but the weights that a continuation needs."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "freezer": self.freezer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where :meth:`state_dict` was taken; the weights are loaded elsewhere."""
        self.progress = Progress(**state["progress"])
        self.freezer.load_state_dict(state["freezer"], self.progress.epoch)
        self.optimizer = self._optimizer()
        self.optimizer.load_state_dict(state["optimizer"])

    @cached_property
    def epoch_flops(self) -> float:
        """Floating-point operations of an epoch with what is frozen now."""
        if self.featurized is not None:
            (batch,) = self.train.batches([torch.zeros(1, dtype=torch.int64)])
            return len(self.train) * self.featurized.step_flops(batch)
        shape = (1, self.train.num_channels[0], *self.train.grid.shape)
        return float(len(self.train) * training_flops(self.surrogate.network, shape))

    def _optimizer(self) -> NamedOptimizer:
        options = self.options
        return NamedOptimizer(
            self.surrogate.network,
            options.optimizer,
            self.regime.options,
            options.weight_decay,
            options.betas,
        )

    def _thaw(self) -> None:
        """Lets those weights be trained whose time has come; the state of the others is kept."""
        if self.freezer.update(self.progress.epoch, self.progress.best_epoch):
            state = self.optimizer.state_dict()
            self.optimizer = self._optimizer()
            self.optimizer.load_state_dict(state)
            self.__dict__.pop("epoch_flops", None)

    def _epoch(self, observer: Observer) -> EpochRecord:
        self._thaw()
        epoch = self.progress.epoch
        order = torch.from_numpy(self._rng(epoch).permutation(len(self.train)))
        losses, norms, seconds, waited = [], [], 0.0, 0.0
        self.freezer.train()
        with closing(self.train.batches(order.split(self.stage.batch_size))) as batches:
            for step in range(self.num_steps):
                started = time.perf_counter()
                batch = self._augment(next(batches), epoch, step)
                ready = time.perf_counter()
                loss, norm = self._step(batch, epoch * self.num_steps + step)
                losses.append(loss)
                norms.append(norm)
                seconds += time.perf_counter() - started
                waited += ready - started
                observer.step(epoch + 1, step + 1, self.num_steps)
        return self._finish(float(np.mean(losses)), float(np.mean(norms)), seconds, waited)

    def _finish(self, loss: float, norm: float, seconds: float, waited: float) -> EpochRecord:
        started = time.perf_counter()
        error, finest_error = self.validate(self.surrogate)
        progress = self.progress
        epoch, improved = progress.epoch + 1, error < progress.best
        self.progress = replace(
            progress,
            epoch=epoch,
            best=error if improved else progress.best,
            best_epoch=epoch if improved else progress.best_epoch,
            seconds=progress.seconds + seconds,
            data_seconds=progress.data_seconds + waited,
            evaluation_seconds=progress.evaluation_seconds + time.perf_counter() - started,
            flops=progress.flops + self.epoch_flops,
        )
        return EpochRecord(
            epoch=epoch,
            train_loss=loss,
            val_rel_l2=error,
            val_finest_rel_l2=finest_error,
            learning_rate=self.stage.learning_rate * self.rate(epoch * self.num_steps - 1),
            gradient_norm=norm,
            seconds=seconds,
            data_fraction=waited / seconds,
            improved=improved,
        )

    def _augment(self, batch: Samples, epoch: int, step: int) -> Samples:
        if self.options.symmetries is None:
            return batch
        return augment(batch, self.options.symmetries, self._rng(epoch, step))

    def _step(self, batch: Samples, step: int) -> tuple[float, float]:
        done = (step + 1) / (self.stage.epochs * self.num_steps)
        self.optimizer.set_learning_rate(self.stage.learning_rate * self.rate(step), done)
        with autocast(batch.inputs.device, self.options.precision):
            predict = self.featurized
            prediction = predict(batch) if predict else self.surrogate(batch.inputs)
        loss: Tensor = self.loss(prediction, batch)
        self.optimizer.zero_grad()
        loss.backward()
        limit = math.inf if self.options.clip is None else self.options.clip
        norm = torch.nn.utils.clip_grad_norm_(self.surrogate.parameters(), limit)
        if not torch.isfinite(norm):
            raise DivergedError(
                f"the loss became {loss.item()} on the {self.train.grid} grid in epoch "
                f"{step // self.num_steps + 1}; try a smaller schedule.learning_rate than "
                f"{self.stage.learning_rate:g}"
            )
        self.optimizer.step()
        return loss.item(), norm.item()

    def _rng(self, *key: int) -> np.random.Generator:
        sequence = np.random.SeedSequence(self.options.seed, spawn_key=(self.stage.index, *key))
        return np.random.default_rng(sequence)
