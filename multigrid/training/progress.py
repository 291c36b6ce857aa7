"""Where a training stands, what its epochs give, and divergence, as plain values."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from multigrid.config.settings import RecoveryConfig
from multigrid.errors import UserError
from multigrid.tables import listed

NUM_EXPLODED = 5
NUM_NAMED = 64


@dataclass
class Progress:
    """Where a training stands; times in seconds.

    ``losses``, ``norms`` (of the gradient, before clipping), ``epoch_seconds`` and
    ``epoch_data_seconds`` are of the epoch under way, the rest of all finished ones. Data is the
    part of the training time spent waiting for it; validation counts for neither time nor FLOPs.
    """

    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    epoch_seconds: float = 0.0
    epoch_data_seconds: float = 0.0
    best: float = math.inf
    best_epoch: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    compile_seconds: float = 0.0
    flops: float = 0.0

    @property
    def step(self) -> int:
        """Number of finished steps of the epoch under way."""
        return len(self.losses)

    def start_epoch(self, flops: float) -> None:
        """Adds up what the steps of the epoch under way have cost, and forgets them."""
        self.seconds += self.epoch_seconds
        self.data_seconds += self.epoch_data_seconds
        self.flops += flops
        self.losses, self.norms = [], []
        self.epoch_seconds = self.epoch_data_seconds = 0.0


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch of a stage gave; epoch 0 is the state before the first step.

    Loss and norm of the gradient are means over the steps, the rate of new weights is that of the
    last one. The validation error is on the level's grid, and prolonged to the finest grid;
    ``val_by_field`` are those of each output field on the level's grid, of which it is the mean.
    """

    epoch: int
    train_loss: float | None
    val_rel_l2: float
    val_finest_rel_l2: float
    learning_rate: float | None = None
    gradient_norm: float | None = None
    seconds: float = 0.0
    data_fraction: float = 0.0
    improved: bool = False
    val_by_field: tuple[float, ...] = ()


class DivergedError(UserError):
    """Training has failed: going back with a lower rate did not help."""


class Divergence(Exception):  # noqa: N818 (an event that is handled, not an error for the user)
    """A step or a validation that must not count."""

    def __init__(self, reason: str, step: int | None = None, samples: Sequence[int] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.step = step
        self.samples = sorted(samples)

    def describe(self, grid: object, epoch: int) -> str:
        """Returns what happened, where, and with which samples."""
        if self.step is None:
            return f"{self.reason} on the {grid} grid after epoch {epoch}"
        where = f"on the {grid} grid in epoch {epoch}, step {self.step + 1}"
        samples = listed(self.samples, NUM_NAMED)
        return f"{self.reason} {where}, with the training samples {samples}"


@dataclass
class DivergenceDetector:
    """Checks losses and norms, and counts how often training went back: a function of these."""

    options: RecoveryConfig
    rate_factor: float = 1.0
    lowest: float = math.inf
    num_exploded: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def check(self, loss: float, norm: float, step: int, samples: Sequence[int]) -> None:
        """Raises Divergence if a loss or gradient is not finite, or the loss has exploded.

        It has if it stays above ``explosion`` times the lowest for :data:`NUM_EXPLODED` steps; one
        that may be negative, such as an energy, has no scale to explode from.
        """
        for name, value in (("loss", loss), ("gradient", norm)):
            if not math.isfinite(value):
                raise Divergence(f"the {name} became {value}", step, samples)
        limit = self.options.explosion
        exploded = limit is not None and self.lowest > 0 and loss > limit * self.lowest
        self.num_exploded = self.num_exploded + 1 if exploded else 0
        self.lowest = min(self.lowest, loss)
        if self.num_exploded >= NUM_EXPLODED:
            reason = (
                f"the loss exploded to {loss:.3g}, for {NUM_EXPLODED} steps more than {limit:g} "
                f"times its lowest value {self.lowest:.3g},"
            )
            raise Divergence(reason, step, samples)

    def lower_rate(self, divergence: Divergence, epoch: int) -> bool:
        """Counts a divergence and lowers the rate; returns False if there were too many."""
        if len(self.events) >= self.options.tries:
            return False
        self.rate_factor *= self.options.factor
        self.num_exploded = 0
        step = None if divergence.step is None else divergence.step + 1
        what = {"reason": divergence.reason, "samples": divergence.samples}
        self.events.append({"epoch": epoch, "step": step, **what, "rate_factor": self.rate_factor})
        return True

    def state_dict(self) -> dict[str, Any]:
        """Returns plain containers for a checkpoint."""
        return {key: value for key, value in asdict(self).items() if key != "options"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where :meth:`state_dict` was taken."""
        vars(self).update(state)
