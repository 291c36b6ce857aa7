"""What a training is told besides its stage."""

from dataclasses import dataclass, field

from multigrid.distributed.processes import ALONE, Processes
from multigrid.hardware import PrecisionName
from multigrid.problems.base import Symmetries
from multigrid.schedule import Decay
from multigrid.training.compilation import Compiler
from multigrid.training.divergence import RecoveryOptions
from multigrid.training.optimizers import OptimizerName


@dataclass(frozen=True)
class TrainerOptions:
    """What is the same for the trainers of all levels.

    Attributes:
        optimizer: ``muon`` or ``adamw``.
        weight_decay: Decoupled weight decay.
        betas: AdamW's decay rates.
        decay: Shape of the learning-rate curve.
        final_rate: Last learning rate over the highest.
        clip: Largest norm of the gradient, or None.
        precision: Number format of the network.
        symmetries: What to augment with, or None.
        mode_shifts: How often to shift sine modes in doing so, 0 to 1.
        patience: Epochs without improvement after which to stop, or None.
        seed: Seed of the data order and the augmentation.
        recovery: What to do when the loss is no number or explodes.
        split_batches: Whether to take a batch in parts when it does not fit into the memory.
        compiler: Compiles the networks, or None.
        processes: The processes that train together.
    """

    optimizer: OptimizerName = "muon"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    decay: Decay = "cosine"
    final_rate: float = 0.01
    clip: float | None = 1.0
    precision: PrecisionName = "float32"
    symmetries: Symmetries | None = None
    mode_shifts: float = 0.0
    patience: int | None = None
    seed: int = 0
    recovery: RecoveryOptions = field(default_factory=RecoveryOptions)
    split_batches: bool = True
    compiler: Compiler | None = None
    processes: Processes = ALONE
