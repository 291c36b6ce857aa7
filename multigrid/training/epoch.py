"""Where a training stands, and what its epochs give."""

import math
from dataclasses import dataclass, field


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
        compile_seconds: The part of the training time spent on compilation.
    """

    epoch: int = 0
    best: float = math.inf
    best_epoch: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    flops: float = 0.0
    compile_seconds: float = 0.0


@dataclass
class EpochSums:
    """What the steps of the epoch under way have given so far.

    Attributes:
        losses: Loss of each step.
        norms: Norm of the gradient of each step.
        seconds: Training time.
        data_seconds: The part of it spent waiting for data.
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    data_seconds: float = 0.0

    @property
    def num_steps(self) -> int:
        """Number of finished steps."""
        return len(self.losses)


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
