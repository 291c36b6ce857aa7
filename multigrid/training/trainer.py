"""Training of one surrogate on one grid. Knows nothing of ladders.

All randomness is a pure function of seed, stage, epoch and step, and the learning rate one of the
step and of the faults so far, so a run continues exactly, after any step, from the weights, the
optimiser's state and a few counters and sums.
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.data.streaming import TrainingSamples
from multigrid.models.layers import set_activation_checkpointing
from multigrid.models.scaling import Surrogate
from multigrid.schedule import Stage, learning_rate_curve
from multigrid.training.batches import Batch, Batches
from multigrid.training.compilation import Compiled
from multigrid.training.divergence import DivergedError, FaultError, Guard
from multigrid.training.epoch import EpochRecord, EpochSums, Progress
from multigrid.training.epoch_cost import EpochCost
from multigrid.training.featurization import FeaturizedSamples, FeaturizedSurrogate
from multigrid.training.finetuning import Finetuning, Freezer
from multigrid.training.gradient import Gradient
from multigrid.training.losses import Loss
from multigrid.training.memory import MemoryLimit
from multigrid.training.optimizers import NamedOptimizer
from multigrid.training.options import TrainerOptions

__all__ = ["DivergedError", "Observer", "Trainer", "Validator"]

log = logging.getLogger(__name__)

DRAWN_BY_NETWORK = 1
"""Last part of the key of random numbers that are not for augmentation."""


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

    When the loss is no number or explodes, or the validation error is no number, the step does
    not count: training goes on from the best state so far, with the epoch begun anew and a lower
    learning rate.

    Args:
        surrogate: The surrogate, initialised.
        train: Training samples on its grid, in memory or on disk.
        validate: Measures it on the validation samples.
        stage: Epochs, batch size and learning rates.
        loss: What to minimise.
        options: What is the same on all levels.
        finetuning: How each of the network's tensors is trained.
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
        finetuning: Finetuning | None = None,
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
        self.finetuning = finetuning or Finetuning()
        self.freezer = Freezer(surrogate.network, self.finetuning)
        self.processes = options.processes
        self.cost = EpochCost(surrogate.network, train, featurized)
        set_activation_checkpointing(surrogate.network, stage.checkpoint_activations)
        self.processes.spread(surrogate.network)
        key = options.seed, stage.index
        self.batches = Batches(
            len(train),
            train.grid,
            stage.batch_size,
            key,
            options.symmetries,
            self.processes,
            options.mode_shifts,
        )
        self.num_steps = self.batches.num_steps
        self.rate = learning_rate_curve(
            options.decay, stage.epochs * self.num_steps, stage.warmup, options.final_rate
        )
        self.guard = Guard(options.recovery)
        self.memory = MemoryLimit(
            stage.part_size(self.processes), options.split_batches, self.processes, stage.accumulate
        )
        self.gradient = Gradient(
            surrogate,
            loss,
            stage.batch_size,
            options.precision,
            options.clip,
            self.memory,
            featurized,
        )
        self.compiled = Compiled(self.gradient, train, options.compiler)
        self._renew_optimizer({})
        self.sums = EpochSums()
        self.best: dict[str, Any] = {}
        self.progress = Progress(
            seconds=time.perf_counter() - started, flops=featurized.flops if featurized else 0.0
        )

    def fit(self, observer: Observer) -> None:
        """Trains until the stage is over.

        Raises:
            DivergedError: If going back with a lower learning rate does not help.
        """
        if not self.best:
            self._keep_best()
        while not self.finished:
            try:
                record = self._epoch(observer)
            except FaultError as fault:
                self._go_back(fault)
            else:
                observer.epoch(self, record)

    def measure_start(self) -> tuple[float, float]:
        """Measures the surrogate before its first step; that counts as its best so far.

        Returns:
            The mean relative L2 error on the own and on the finest grid.

        Raises:
            DivergedError: If the error is no number.
        """
        started = time.perf_counter()
        error, finest_error = self.validate(self.surrogate)
        if not math.isfinite(error):
            raise DivergedError(
                f"the validation error on the {self.train.grid} grid is {error} before the first "
                "step; the weights that the network starts from are of no use"
            )
        seconds = self.progress.evaluation_seconds + time.perf_counter() - started
        self.progress = replace(self.progress, best=error, evaluation_seconds=seconds)
        self._keep_best()
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

    def weights(self) -> dict[str, Tensor]:
        """Returns the network's state dictionary, whole."""
        state: dict[str, Tensor] = self.processes.whole(self.surrogate.network.state_dict())
        return state

    def state_dict(self) -> dict[str, Any]:
        """Returns everything but the weights and the best state that a continuation needs.

        All processes must call it alike.
        """
        return {
            "optimizer": self.processes.whole(self.optimizer.state_dict()),
            "progress": asdict(self.progress),
            "freezer": self.freezer.state_dict(),
            "sums": asdict(self.sums),
            "guard": self.guard.state_dict(),
            "part_size": self.memory.limit,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where :meth:`state_dict` was taken; the weights are loaded elsewhere."""
        self.progress = Progress(**state["progress"])
        self.freezer.load_state_dict(state["freezer"], self.progress.epoch)
        self._renew_optimizer(state["optimizer"])
        self.sums = EpochSums(**state["sums"])
        self.guard.load_state_dict(state["guard"])
        self.memory.limit = state["part_size"]

    def load_moments(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Loads the optimiser's state of every parameter whose name and shape fit."""
        parameters = self.optimizer.parameters
        self.optimizer.load_state_dict(
            {
                key: {
                    name: self.processes.spread_like(t, parameters[key])
                    for name, t in entry.items()
                }
                for key, entry in state.items()
                if key in parameters
            }
        )

    def _optimizer(self) -> NamedOptimizer:
        options = self.options
        return NamedOptimizer(
            self.surrogate.network,
            options.optimizer,
            self.finetuning.options,
            options.weight_decay,
            options.betas,
            getattr(torch, options.precision),
            self.processes,
        )

    def _renew_optimizer(self, state: dict[str, Any]) -> None:
        """Builds the optimiser for what is trained now, with a state."""
        self.optimizer = self._optimizer()
        self.load_moments(state)
        self.gradient.renew()
        self.compiled.renew()
        self.cost.renew()

    def _thaw(self) -> None:
        """Lets those weights be trained whose time has come; the state of the others is kept.

        Nothing more thaws when an epoch is begun anew, or is continued.
        """
        if self.freezer.update(self.progress.epoch, self.progress.best_epoch):
            self._renew_optimizer(self.processes.whole(self.optimizer.state_dict()))

    def _epoch(self, observer: Observer) -> EpochRecord:
        """Takes the steps that the epoch still lacks and validates."""
        self._thaw()
        epoch = self.progress.epoch
        planned = self.batches.epoch(epoch, self.sums.num_steps)
        self.freezer.train()
        if planned:
            seconds = self.compiled.prepare(planned)
            self.sums.seconds += seconds
            seconds += self.progress.compile_seconds
            self.progress = replace(self.progress, compile_seconds=seconds)
            with closing(self.train.batches([batch.sources for batch in planned])) as sources:
                for batch in planned:
                    self._take(sources, batch)
                    observer.step(epoch + 1, self.sums.num_steps, self.num_steps)
        return self._finish()

    def _take(self, sources: Iterator[Samples], batch: Batch) -> None:
        """Takes the next step of the epoch."""
        epoch, step, sums = self.progress.epoch, self.sums.num_steps, self.sums
        started = time.perf_counter()
        samples = batch.make(next(sources))
        ready = time.perf_counter()
        loss, norm = self.gradient.compute(samples, batch.share, self._network_seed())
        reason = self.guard.inspect(loss, norm)
        if reason is not None:
            raise FaultError(reason, step, batch.indices.tolist())
        taken = epoch * self.num_steps + step
        done = (taken + 1) / (self.stage.epochs * self.num_steps)
        self.optimizer.set_learning_rate(self._learning_rate(taken), done)
        self.optimizer.step()
        sums.losses.append(loss)
        sums.norms.append(norm)
        sums.seconds += time.perf_counter() - started
        sums.data_seconds += ready - started

    def _finish(self) -> EpochRecord:
        started = time.perf_counter()
        error, finest_error = self.validate(self.surrogate)
        if not math.isfinite(error):
            raise FaultError(f"the validation error became {error}")
        evaluation_seconds = self.progress.evaluation_seconds + time.perf_counter() - started
        sums = self._count_steps(self.cost.flops)
        progress = self.progress
        epoch, improved = progress.epoch + 1, error < progress.best
        self.progress = replace(
            progress,
            epoch=epoch,
            best=error if improved else progress.best,
            best_epoch=epoch if improved else progress.best_epoch,
            evaluation_seconds=evaluation_seconds,
        )
        if improved:
            self._keep_best()
        return EpochRecord(
            epoch=epoch,
            train_loss=float(np.mean(sums.losses)),
            val_rel_l2=error,
            val_finest_rel_l2=finest_error,
            learning_rate=self._learning_rate(epoch * self.num_steps - 1),
            gradient_norm=float(np.mean(sums.norms)),
            seconds=sums.seconds,
            data_fraction=sums.data_seconds / sums.seconds,
            improved=improved,
        )

    def _keep_best(self) -> None:
        """Keeps a copy of weights, optimiser state and progress."""
        state = self.weights()
        trainer = self.state_dict()
        trainer["optimizer"] = {
            key: {name: tensor.clone() for name, tensor in entry.items()}
            for key, entry in trainer["optimizer"].items()
        }
        self.best = {
            "network": {key: tensor.detach().clone() for key, tensor in state.items()},
            "trainer": trainer,
        }

    def _go_back(self, fault: FaultError) -> None:
        """Returns to the best state and lowers the rate, or gives up.

        The epochs that are over stay over, so what has thawed since stays so, with the optimiser's
        state of it begun anew.
        """
        progress, tries = self.progress, self.options.recovery.tries
        what = fault.describe(self.train.grid, progress.epoch + 1)
        if not self.guard.retry(fault, progress.epoch + 1):
            after = f", after going back {tries} times with a lower rate" if tries else ""
            raise DivergedError(
                f"{what}{after}; try a smaller schedule.learning_rate than "
                f"{self.stage.learning_rate:g}"
            )
        own = self.surrogate.network.state_dict()
        self.surrogate.network.load_state_dict(
            {
                k: self.processes.spread_like(tensor, own[k])
                for k, tensor in self.best["network"].items()
            }
        )
        self._renew_optimizer(self.best["trainer"]["optimizer"])
        self._count_steps(self.cost.flops * self.sums.num_steps / self.num_steps)
        log.warning(
            "%s: back to the state after epoch %d, learning rate times %g from here on (try %d "
            "of %d)",
            what,
            progress.best_epoch,
            self.guard.rate_factor,
            len(self.guard.faults),
            tries,
        )

    def _count_steps(self, flops: float) -> EpochSums:
        """Adds what the steps of the epoch have taken, and begins a new one; returns their sums."""
        progress, sums = self.progress, self.sums
        self.progress = replace(
            progress,
            seconds=progress.seconds + sums.seconds,
            data_seconds=progress.data_seconds + sums.data_seconds,
            flops=progress.flops + flops,
        )
        self.sums = EpochSums()
        return sums

    def _learning_rate(self, step: int) -> float:
        return self.stage.learning_rate * self.rate(step) * self.guard.rate_factor

    def _network_seed(self) -> int:
        """Returns the seed of what a network of the user's draws: a function of the step."""
        own = (self.processes.rank,) if self.processes.rank else ()
        rng = self.batches.rng(self.progress.epoch, self.sums.num_steps, DRAWN_BY_NETWORK, *own)
        return int(rng.integers(2**63))
