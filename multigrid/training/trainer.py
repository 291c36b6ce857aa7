"""Training of one surrogate on one grid: the step, the epoch, and going back when it diverges.

Knows nothing of ladders. All randomness is a pure function of seed, stage, epoch and step, and the
learning rate one of the step and of the divergences so far. So a training continues exactly, after
any step, from the weights, the optimizer's state and the plain values of :class:`Progress`.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multigrid.config.settings import OptimizerConfig, RecoveryConfig
from multigrid.data.samples import Samples, TrainingSamples
from multigrid.distributed import ALONE, Processes
from multigrid.errors import UserError
from multigrid.hardware import PrecisionName, autocast
from multigrid.models.cost import Flops, count_flops, without_data
from multigrid.models.layers import set_activation_checkpointing
from multigrid.models.scaling import Surrogate
from multigrid.models.transfer import load_tensors, tensors_of
from multigrid.problems.base import Symmetries
from multigrid.schedule import Stage, learning_rate_curve
from multigrid.training.batches import Batch, Batches, add_noise
from multigrid.training.callbacks import Callbacks
from multigrid.training.finetuning import (
    FeaturizedSamples,
    Finetuning,
    Freezer,
    finishing,
    finishing_flops,
)
from multigrid.training.losses import Loss, Unrolling
from multigrid.training.optimizers import NamedOptimizer, OptimizerName
from multigrid.training.progress import (
    DivergedError,
    Divergence,
    DivergenceDetector,
    EpochRecord,
    Progress,
)
from multigrid.training.speed import compiled

log = logging.getLogger(__name__)

NETWORK_KEY, UNROLLING_KEY = 1, 2
"""Last numbers of the seeds of what the network itself draws, as for dropout, and of steps."""

Validator = Callable[[Surrogate], tuple[float, ...]]
"""Gives mean relative L2 validation errors: on the level's grid, on the finest, of each field."""


@dataclass(frozen=True)
class TrainerOptions:
    """What is the same for the trainers of all levels; the settings of the same names tell more.

    ``settings`` are those of the ``optimizer``, which may be another than they name;
    ``symmetries`` is what to augment with, or None; ``seed`` that of data order and augmentation.
    """

    optimizer: OptimizerName = "muon"
    settings: OptimizerConfig = field(default_factory=OptimizerConfig)
    precision: PrecisionName = "float32"
    compile: bool = False
    symmetries: Symmetries | None = None
    mode_shifts: float = 0.0
    noise: float = 0.0
    seed: int = 0
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)
    processes: Processes = ALONE


class Trainer:
    """Trains a surrogate in one stage.

    When the loss is not finite or explodes, or the validation error is not finite, the step does
    not count: training goes on from the best state so far, at the start of the epoch, with a lower
    learning rate.

    Args:
        surrogate: The surrogate, initialised.
        samples: Training samples on its grid, in memory or on disk, or features of them; with the
            outputs of all steps for ``unrolling``.
        validate: Measures it on the validation samples.
        stage: Epochs, batch size and learning rates.
        loss: What to minimise, a mean over the samples that it is given.
        options: What is the same on all levels.
        finetuning: How each of the network's tensors is trained.
        unrolling: How roll-outs are trained.

    Attributes:
        progress: Where it stands.
        best: Copies of weights, optimizer state and progress at the lowest validation error.
        at_start: What the network gave before the first step; None in a training that goes on.
        compiled: What is called instead of the network, if it is compiled.
        should_stop: Ends the stage after the epoch; set by callbacks such as early stopping.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        samples: TrainingSamples | FeaturizedSamples,
        validate: Validator,
        stage: Stage,
        loss: Loss,
        options: TrainerOptions,
        finetuning: Finetuning | None = None,
        unrolling: Unrolling | None = None,
    ) -> None:
        started = time.perf_counter()
        self.surrogate, self.samples, self.validate = surrogate, samples, validate
        self.stage, self.loss, self.options = stage, loss, options
        self.processes = options.processes
        self.finetuning = finetuning or Finetuning()
        self.unrolling = unrolling
        self.freezer = Freezer(surrogate.network, self.finetuning)
        self._blueprint = without_data(surrogate.network)
        set_activation_checkpointing(surrogate.network, stage.checkpoint_activations)
        self.processes.spread(surrogate.network)
        key, symmetries = (options.seed, stage.index), options.symmetries
        more = key, symmetries, self.processes, options.mode_shifts
        self.batches = Batches(len(samples), samples.grid, stage.batch_size, *more)
        self.num_steps = self.batches.num_steps
        total = stage.epochs * self.num_steps
        self.rate = learning_rate_curve(total, stage.warmup, options.settings.final_rate)
        self.divergence = DivergenceDetector(options.recovery)
        self.part_size = stage.part_size(self.processes)
        self.progress = Progress()
        if isinstance(samples, FeaturizedSamples):
            self.progress.flops = samples.flops
        self.best: dict[str, Any] = {}
        self.at_start: EpochRecord | None = None
        self.should_stop = False
        self.compiled: Callable[[Tensor], Tensor] | None = None
        self._renew_optimizer({})
        self.progress.seconds = time.perf_counter() - started

    # the training loop

    def fit(self, callbacks: Callbacks) -> None:
        """Trains until the stage is over, and tells callbacks of it.

        Raises:
            DivergedError: If lower rates do not help.
            Interrupted: After a step, if a signal has asked to stop.
        """
        if not self.best:
            self.measure_start()
        callbacks.level_start(self)
        self._compile()
        while not self.finished:
            try:
                record = self.train_epoch(callbacks)
            except Divergence as divergence:
                self._go_back(divergence)
                continue
            callbacks.epoch(self, record)
            self.should_stop = self.processes.any(self.should_stop)
        callbacks.level_end(self)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or a callback has asked to stop."""
        return self.should_stop or self.progress.epoch >= self.stage.epochs

    def train_epoch(self, callbacks: Callbacks) -> EpochRecord:
        """Takes the steps that the epoch still lacks, and validates.

        Weights scheduled for it are unfrozen before; the optimizer's state of others is kept.
        """
        if self.freezer.update(self.progress.epoch, self.progress.best_epoch):
            self._renew_optimizer(self.processes.whole(self.optimizer.state_dict()))
        self.freezer.train()
        planned = self.batches.epoch(self.progress.epoch, self.progress.step)
        if planned:
            with closing(self.samples.batches([batch.sources for batch in planned])) as sources:
                for batch in planned:
                    self.train_step(batch, sources)
                    callbacks.step(self)
                    self.processes.check_signals()
        return self._finish_epoch()

    def train_step(self, batch: Batch, sources: Iterator[Samples]) -> None:
        """Takes one step: data, forward, loss, backward, clipping and update."""
        progress, started = self.progress, time.perf_counter()
        samples = next(sources)
        if batch.augmentation is not None:
            samples = batch.augmentation.apply(samples, batch.places)
        ready = time.perf_counter()

        loss = self.processes.total(self.backward(self.microbatches(samples, batch.share)))
        norm, step = self.clip_gradient(), progress.step
        self.divergence.check(loss, norm, step, batch.indices.tolist())
        step += progress.epoch * self.num_steps
        done = (step + 1) / (self.stage.epochs * self.num_steps)
        self.optimizer.set_learning_rate(self.rate_at(step), done)
        self.optimizer.step()

        progress.losses.append(loss)
        progress.norms.append(norm)
        progress.epoch_seconds += time.perf_counter() - started
        progress.epoch_data_seconds += ready - started

    def microbatches(self, samples: Samples, share: float) -> list[tuple[Samples, float]]:
        """Returns what to take at once of a batch with its shares, equally much in all processes.

        All exchange gradients equally often, so some repeat a sample without a share.
        """
        size = self.part_size
        if self.processes.size == 1 and len(samples) <= size:
            return [(samples, share)]
        parts = [(part, share * len(part) / len(samples)) for part in samples.split(size)]
        most = math.ceil(self.processes.largest_share(self.stage.batch_size) / size)
        return parts + [(samples[:1], 0.0)] * (most - len(parts))

    def backward(self, microbatches: Sequence[tuple[Samples, float]]) -> float:
        """Leaves the gradient of weighted parts of a batch, and returns this process's loss."""
        self.surrogate.zero_grad()
        device, batch_loss = microbatches[0][0].inputs.device, 0.0
        # what the network draws is a function of the step and the process
        rank = (self.processes.rank,) if self.processes.rank else ()
        rng = self.batches.rng(self.progress.epoch, self.progress.step, NETWORK_KEY, *rank)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(rng.integers(2**63)))
            for number, (samples, share) in enumerate(microbatches, start=1):
                with self.processes.reducing(self._predict, number == len(microbatches)):
                    loss = self._loss(samples)
                    scale = share * self.processes.size  # as the mean over processes is taken
                    (loss if scale == 1 else loss * scale).backward()
                    batch_loss += loss.item() * share
        return batch_loss

    def _loss(self, samples: Samples) -> Tensor:
        """Returns the loss of some samples: of one step, or of a roll-out."""
        network = self.compiled
        if samples.features is not None:
            network = finishing(self.surrogate.network, samples.features)

        def predict(inputs: Tensor) -> Tensor:
            with autocast(inputs.device, self.options.precision):
                prediction: Tensor = self._predict(inputs, network)
            return prediction

        if self.unrolling is None:
            inputs = add_noise(samples.inputs, self.options.noise)
            return self.loss(predict(inputs), samples)
        epoch, step = self.progress.epoch, self.progress.step
        num_steps = self.unrolling.num_steps(epoch, self.stage.epochs)
        rng = self.batches.rng(epoch, step, UNROLLING_KEY)
        return self.unrolling.loss(predict, samples, self.loss, num_steps, rng)

    def clip_gradient(self) -> float:
        """Scales the gradient down to the limit, and returns its norm before."""
        gradients = [p.grad for p in self.surrogate.parameters() if p.grad is not None]
        norm: float = self.processes.whole(nn.utils.get_total_norm(gradients)).item()
        limit = self.options.settings.clip
        if limit is not None and norm > limit:  # by a number: faster than by a tensor
            torch._foreach_mul_(gradients, limit / norm)
        return norm

    def rate_at(self, step: int) -> float:
        """Returns the rate of new weights at a step of the stage."""
        return self.stage.learning_rate * self.rate(step) * self.divergence.rate_factor

    def measure_start(self) -> None:
        """Measures the errors before the first step, the best so far; they must be finite."""
        started = time.perf_counter()
        error, finest_error, *by_field = self.validate(self.surrogate)
        if not math.isfinite(error):
            raise DivergedError(
                f"the validation error on the {self.samples.grid} grid is {error} before the first "
                "step; the weights that the network starts from cannot be used"
            )
        self.progress.best = error
        self.progress.evaluation_seconds += time.perf_counter() - started
        self._keep_best()
        self.at_start = EpochRecord(0, None, error, finest_error, val_by_field=tuple(by_field))

    def _finish_epoch(self) -> EpochRecord:
        progress, started = self.progress, time.perf_counter()
        error, finest_error, *by_field = self.validate(self.surrogate)
        if not math.isfinite(error):
            raise Divergence(f"the validation error became {error}")
        progress.evaluation_seconds += time.perf_counter() - started
        flops, epoch = self.epoch_flops, progress.epoch
        # the best state is that of an epoch with the most steps
        longer = self.unrolling is not None and self.unrolling.begins(epoch, self.stage.epochs)
        progress.epoch += 1
        record = EpochRecord(
            epoch=progress.epoch,
            train_loss=float(np.mean(progress.losses)),
            val_rel_l2=error,
            val_finest_rel_l2=finest_error,
            val_by_field=tuple(by_field),
            learning_rate=self.rate_at(progress.epoch * self.num_steps - 1),
            gradient_norm=float(np.mean(progress.norms)),
            seconds=progress.epoch_seconds,
            data_fraction=progress.epoch_data_seconds / progress.epoch_seconds,
            improved=longer or error < progress.best,
        )
        progress.start_epoch(flops)
        if record.improved:
            progress.best, progress.best_epoch = error, progress.epoch
            self._keep_best()
        return record

    # the state

    def weights(self) -> dict[str, Tensor]:
        """Returns the network's tensors by name, whole; all processes must call it alike."""
        tensors: dict[str, Tensor] = self.processes.whole(tensors_of(self.surrogate.network))
        return tensors

    def state_dict(self) -> dict[str, Any]:
        """Returns all but weights and best state to continue from; all processes must call it."""
        return {
            "optimizer": self.processes.whole(self.optimizer.state_dict()),
            "progress": asdict(self.progress),
            "freezer": self.freezer.state_dict(),
            "divergence": self.divergence.state_dict(),
        }

    def resume(self, state: dict[str, Any], best: dict[str, Any]) -> None:
        """Continues where :meth:`state_dict` was taken; the weights are loaded elsewhere."""
        self.best = best
        self.progress = Progress(**state["progress"])
        self.freezer.load_state_dict(state["freezer"], self.progress.epoch)
        self.divergence.load_state_dict(state["divergence"])
        self._renew_optimizer(state["optimizer"])

    def load_moments(self, state: dict[str, dict[str, Any]]) -> int:
        """Loads the optimizer's state of parameters that it has; returns how many take it.

        Their shapes must be the same.
        """
        parameters, spread = self.optimizer.parameters, self.processes.spread_like
        return self.optimizer.load_state_dict(
            {
                key: {name: spread(value, parameters[key]) for name, value in entry.items()}
                for key, entry in state.items()
                if key in parameters
            }
        )

    def _keep_best(self) -> None:
        """Keeps copies of all that going back needs."""
        state = self.state_dict()
        state["optimizer"] = deepcopy(state["optimizer"])
        weights = {name: tensor.detach().clone() for name, tensor in self.weights().items()}
        self.best = {"network": weights, "trainer": state}

    def _go_back(self, divergence: Divergence) -> None:
        """Returns to the best state and lowers the rate, or gives up.

        Finished epochs stay finished, so what has been unfrozen since stays so, with a fresh
        optimizer state.
        """
        progress, tries = self.progress, self.options.recovery.tries
        what = divergence.describe(self.samples.grid, progress.epoch + 1)
        if not self.divergence.lower_rate(divergence, progress.epoch + 1):
            after = f", after going back {tries} times with a lower rate" if tries else ""
            raise DivergedError(
                f"{what}{after}; try a smaller schedule.learning_rate than "
                f"{self.stage.learning_rate:g}"
            )
        network, spread = self.surrogate.network, self.processes.spread_like
        current = tensors_of(network)
        load_tensors(network, {k: spread(x, current[k]) for k, x in self.best["network"].items()})
        self._renew_optimizer(self.best["trainer"]["optimizer"])
        progress.start_epoch(self.epoch_flops * progress.step / self.num_steps)
        log.warning(
            f"{what}: back to the state after epoch {progress.best_epoch}, learning rate times "
            f"{self.divergence.rate_factor:g} from here on (try {len(self.divergence.events)} of "
            f"{tries})"
        )

    def _renew_optimizer(self, state: dict[str, Any]) -> None:
        """Builds the optimizer for what is trained now, with a state."""
        settings = self.options.settings
        self.optimizer = NamedOptimizer(
            self.surrogate.network,
            self.options.optimizer,
            self.finetuning.options,
            settings.weight_decay,
            settings.betas,
            getattr(torch, self.options.precision),
            self.processes,
        )
        if self.load_moments(state) < len(state):
            raise UserError(
                "the optimizer keeps another state than the one whose state was saved: the run was "
                "begun with another optimizer"
            )
        self._predict = self.processes.train_together(self.surrogate)
        self.__dict__.pop("_sample_flops", None)  # which depend on what is frozen

    # small things

    def _compile(self) -> None:
        if not self.options.compile or self.compiled:
            return
        started = time.perf_counter()
        self.freezer.train()  # as in the steps to come
        shape = (self.part_size, *self.samples.num_channels[:1], *self.samples.grid.shape)
        self.compiled = compiled(self.surrogate.network, shape, self.options.precision)
        seconds = time.perf_counter() - started
        self.progress.seconds += seconds
        self.progress.compile_seconds += seconds

    @property
    def epoch_flops(self) -> float:
        """Floating-point operations of an epoch; those repeated to save memory count once."""
        flops: float = self._sample_flops.training
        if self.unrolling is not None:
            num_steps = self.unrolling.num_steps(self.progress.epoch, self.stage.epochs)
            flops = self.unrolling.cost(num_steps, self._sample_flops)
        return float(len(self.samples) * flops)

    @cached_property
    def _sample_flops(self) -> Flops:
        """Floating-point operations of one step of one sample."""
        if isinstance(self.samples, FeaturizedSamples):
            (batch,) = self.samples.batches([torch.zeros(1, dtype=torch.int64)])
            return Flops(0, finishing_flops(self.surrogate.network, batch.features or ()))
        for name, parameter in self.surrogate.network.named_parameters(remove_duplicate=False):
            self._blueprint.get_parameter(name).requires_grad_(parameter.requires_grad)
        shape = (1, self.samples.num_channels[0], *self.samples.grid.shape)
        return count_flops(self._blueprint, shape)
