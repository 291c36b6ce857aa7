"""Where a training stands, and what its epochs give, as plain values."""

import math
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Where a training stands, as plain values.

    Attributes:
        epoch: Number of finished epochs.
        losses: Loss of each step of the epoch under way.
        norms: Norm of the gradient of each of them, before clipping.
        epoch_seconds: Training time of the epoch under way.
        epoch_data_seconds: The part of it spent waiting for data.
        best: Lowest validation error so far.
        best_epoch: The epoch that reached it.
        seconds: Training time of all epochs before, evaluation left out.
        data_seconds: The part of it spent waiting for data.
        evaluation_seconds: Time spent on validation.
        compile_seconds: The part of the training time spent on compilation.
        flops: Floating-point operations, evaluation left out.
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
    """What one epoch gave.

    Attributes:
        epoch: Number of the epoch in its stage, from 1.
        train_loss: Mean loss over its steps.
        val_rel_l2: Mean relative L2 error of the validation samples on the level's grid.
        val_finest_rel_l2: The same of the predictions prolonged to the finest grid.
        learning_rate: Rate of new weights at the last step.
        gradient_norm: Norm of the gradient before clipping, mean over the steps.
        seconds: Training time of the epoch.
        data_fraction: The part of it spent waiting for data.
        improved: Whether the validation error is the lowest so far.
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

    @classmethod
    def at_start(cls, error: float, finest_error: float) -> "EpochRecord":
        """Returns the record of a level before its first step."""
        return cls(0, None, error, finest_error)
