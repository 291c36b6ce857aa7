"""The sections of an experiment file about networks, training, computing and results."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from multigrid.config.section import (
    FileName,
    Fraction,
    Name,
    Names,
    Positive,
    Rate,
    Section,
    registered,
    shown,
)
from multigrid.registry import BLOCKS, CALLBACKS, LOSSES, NETWORKS, OPTIMIZERS

CallbackName = Annotated[str, registered(CALLBACKS)]
Epochs = Annotated[int, Field(ge=0)]
Width = Annotated[int, Field(gt=0, le=4096)]


def _storable(options: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(options, allow_nan=False)
    except (TypeError, ValueError):
        what = "texts, finite numbers, true, false, null, lists and mappings"
        wrong = f"{shown(options)} has values that are not allowed; they must be {what}"
        raise ValueError(wrong) from None
    return options


Options = Annotated[dict[Name, Any], AfterValidator(_storable)]


def rising(strictly: bool) -> AfterValidator:
    """Returns a validator of lists of rising numbers."""

    def check(values: list[int]) -> list[int]:
        if not values or values != sorted(set(values) if strictly else values):
            raise ValueError(f"{values} must be a list of rising numbers")
        return values

    return AfterValidator(check)


Outside = Literal["zeros", "replicate", "periodic"]


class DoublingConfig(Section):
    """Widths that double from the outermost scale of the finest level inwards."""

    outer: Width
    """the width of the outermost scale, 1 to 4096"""
    max: Width = 256
    """the largest width, 1 to 4096"""


class ModelConfig(Section):
    """The UNet family."""

    network: Annotated[str, registered(NETWORKS)] = "unet"
    """'unet' or the name of a registered function from a grid to a network"""
    options: Options = {}
    """{name: value}: options of a registered network or block"""
    form: Literal["pyramid", "classic"] = "pyramid"
    width: Width | list[Width] | DoublingConfig = 48
    """a width from 1 to 4096 for all scales, a list with one for each scale from the bottleneck
    outwards, or {outer: W, max: M} for widths that double inwards"""
    block: Annotated[str, registered(BLOCKS)] = "residual"
    """'residual' or the name of a registered block"""
    activation: Literal["silu", "none"] = "silu"
    """'silu' or 'none', which makes the network linear, for problems that are"""
    num_blocks: int = Field(1, ge=1, le=16)
    """the residual blocks per encoder and per decoder, 1 to 16"""
    min_size: int = Field(2, ge=2)
    """the size, at least 2, below which a grid is not halved any more"""
    depth: int | None = Field(None, ge=0, le=20)
    """the number of scales below the coarsest level, 0 to 20"""
    growth: bool = True
    """true or false: give finer levels more scales instead of using the network of level 0 on every
    grid"""
    fields: Literal["restricted", "folded", "auto"] = "restricted"
    """'restricted' (the network of a level works on fields of its grid), 'folded' (on those of the
    finest grid, with blocks of values laid into channels) or 'auto' (folded where the coarsest grid
    lacks more than 0.5 % of the outputs, see `multigrid floors`)"""
    padding: Outside | dict[str, Outside] = "zeros"
    """'zeros', 'replicate' or 'periodic', or that for each axis, as in {x: periodic, y: zeros}"""
    normalization: Literal["none", "group", "instance"] = "none"
    prolongation: int = Field(4, ge=1, le=6)
    """the polynomial degree of the prolongation, 1 to 6"""


class BudgetConfig(Section):
    """What a training may cost, in one of two units, and when it may end earlier."""

    work_units: Rate | None = None
    """a positive number of work units, 1 being an epoch on the finest level"""
    seconds: Rate | None = None
    """a positive number of seconds of training"""
    error: Rate | None = None
    """a positive validation error on the finest grid at which a schedule by measurement ends, or
    null"""

    @property
    def amount(self) -> float:
        """What the training may cost, in work units or seconds."""
        amount = self.work_units if self.seconds is None else self.seconds
        assert amount is not None  # one of the two is given
        return amount


class ScheduleConfig(Section):
    """How the training is spread over the levels."""

    cycle: Literal["auto", "half-v", "v", "w", "f", "single"] = "auto"
    """'half-v', 'v', 'w', 'f', 'single' (the finest level alone) or 'auto': with 'epochs: auto'
    'single' where some samples show that outputs depend on near inputs alone, else 'half-v'"""
    epochs: Literal["auto"] | Epochs | list[Epochs] = 10
    """a number of epochs of at least 0, or a list by level, coarsest first, or 'auto' (from
    budget: with the cycle 'half-v' by measurement, level after level as long as each pays)"""
    budget: BudgetConfig | None = None
    """{work_units: N} or {seconds: N}, which 'epochs: auto' spends on the levels"""
    batch_size: Positive | list[Positive] = 16
    """a positive number of samples, or a list by level, coarsest first"""
    learning_rate: Literal["auto"] | Rate | list[Rate] = "auto"
    """a positive learning rate, or a list by level, coarsest first, or 'auto' (0.004 times the root
    of batch_size / 16 on the coarsest level, half of it on each further one; with cycle 'single'
    the whole)"""
    transferred_ratio: Fraction | list[Fraction] = 0.2
    """the learning rate of transferred weights over that of new ones, 0 to 1, or a list by level,
    coarsest first"""
    warmup: Fraction | list[Fraction] = 0.05
    """the fraction of the steps with a rising learning rate, 0 to 1, or a list by level, coarsest
    first"""
    patience: Positive | None = None
    """a positive number of epochs without improvement after which a level ends, or null"""


class OptimizerConfig(Section):
    """How the weights are updated."""

    name: Annotated[str, registered(OPTIMIZERS)] = "muon"
    """'muon', 'adamw' or a registered optimizer"""
    options: Options = {}
    """{name: value}: options of a registered optimizer"""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """a number from 0 to 1"""
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        [0.9, 0.999], min_length=2, max_length=2
    )
    """two numbers in [0, 1)"""
    final_rate: Fraction = 0.01
    """the last learning rate of a level, at the end of a cosine, over its highest, 0 to 1"""
    clip: Rate | None = 1.0
    """the largest gradient norm, positive, or null"""
    carry_moments: bool = True
    """true or false: carry the moments of transferred weights over"""


class LossConfig(Section):
    """What is minimised."""

    name: Annotated[str, registered(LOSSES, "energy")] = "rel_l2"
    """'rel_l2', 'rel_l1', 'rel_h1', 'mse', 'energy' (steps of a solver down the energy, which need
    no labels) or a registered loss"""
    options: Options = {}
    """{name: value}: options of a registered loss"""
    residual: float = Field(0.0, ge=0, allow_inf_nan=False)
    """the weight of at least 0 of the PDE's residual, added to the loss"""
    weights: dict[str, Rate] = {}
    """{field: factor}: what the error of an output field is multiplied by, 1 where none is given"""


class RolloutTrainingConfig(Section):
    """How a network of one step in time is trained for many."""

    steps: Positive | Annotated[list[Positive], rising(strictly=True)] = 1
    """the number of steps that are trained at once, or a list of rising numbers, each for an equal
    part of a level's epochs"""
    method: Literal["unrolled", "pushforward"] = "unrolled"
    """'unrolled' (gradients through all steps) or 'pushforward' (one step, from a state that the
    network has reached itself)"""
    noise: float = Field(0.0, ge=0, le=10)
    """a number of at least 0: the noise on the states in inputs, over a field's standard
    deviation"""

    @property
    def curriculum(self) -> list[int]:
        """The numbers of steps, one after the other."""
        return self.steps if isinstance(self.steps, list) else [self.steps]

    @property
    def is_used(self) -> bool:
        """Whether it asks for more than one step from exact states."""
        return self.curriculum != [1] or self.noise > 0


class ComputeConfig(Section):
    """Where and in which precision to compute."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    """true or false: compile the networks for each grid with torch.compile"""


class ParallelConfig(Section):
    """How a step is spread over processes and fitted into their memory."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """'ddp' (each process holds the whole network) or 'fsdp' (parameters, gradients and optimizer
    state are spread over the processes)"""
    accumulate: Positive | list[Positive] = 1
    """the number of microbatches, at least 1, in which a process takes its batch, or a list by
    level, coarsest first"""
    checkpoint_activations: bool | list[bool] = False
    """true or false: recompute activations in the backward pass instead of keeping them, or a list
    by level, coarsest first"""


class CheckpointsConfig(Section):
    """What is saved of the networks, and when."""

    interval: int = Field(25, gt=0)
    """a positive number of epochs"""
    steps: Positive | None = None
    """a positive number of steps after which to save as well, or null"""
    minutes: Rate | None = 10.0
    """a positive number of minutes after which to save as well, or null"""
    load: FileName | None = None
    """the name of a checkpoint or state dictionary (.pt, .safetensors) to take weights from, or
    null"""
    save: FileName | None = Field(None, pattern=r".\.(pt|safetensors)$")
    """the name of a .pt or .safetensors file for the weights of the finished network, or null"""


class RecoveryConfig(Section):
    """What happens when the loss is not finite or explodes."""

    tries: int = Field(3, ge=0, le=100)
    """how often a stage may go back to its best state, 0 (give up at once) to 100"""
    factor: float = Field(0.3, gt=0, le=1)
    """what the learning rate is multiplied with then, up to 1"""
    explosion: float | None = Field(1000.0, gt=1, allow_inf_nan=False)
    """a number above 1, how many times its lowest value the loss may be for some steps in a row, or
    null for no limit"""


class OutputConfig(Section):
    """Where the results go."""

    folder: FileName = "results"
    """the name of a folder"""
    num_predictions: int = Field(3, ge=1, le=16)
    """the test samples drawn, 1 to 16"""
    figures: bool = True
    """true or false: draw figures at the end of a run"""
    tensorboard: bool = False
    """true or false: also write TensorBoard events into the run's folder"""
    callbacks: list[CallbackName | dict[CallbackName, Options]] = []
    """a list of registered callbacks, each a name such as 'wandb' or 'mlflow' or a mapping from a
    name to its options, as in {wandb: {project: flow}}"""


class Selection(Section):
    """Weights whose names have a pattern."""

    pattern: Names
    """a pattern of names, such as 'scales.0' or '*.head', or a list of them"""


class RuleConfig(Selection):
    """How some weights are trained; null leaves a setting as it is."""

    weights: Literal["transferred", "new", "all"] = "transferred"
    freeze: bool | Positive | Literal["plateau"] | None = None
    """true, false, a positive number of epochs, 'plateau' (until the validation error has not
    fallen for transfer.patience epochs) or null"""
    rate: Rate | None = None
    """a positive factor on the learning rate of new weights, or null"""
    weight_decay: float | None = Field(None, ge=0, le=1)
    """a number from 0 to 1 or null"""
    warmup: Fraction | None = None
    """the fraction of the steps with a rate rising from zero, 0 to 1, or null"""

    def concerns(self, transferred: bool) -> bool:
        """Whether the rule is for weights that were transferred, or for those that were not."""
        return self.weights in ("all", "transferred" if transferred else "new")

    def optimizer_options(self) -> dict[str, float]:
        """Returns the options of the optimizer that the rule sets."""
        options = {"scale": self.rate, "weight_decay": self.weight_decay, "warmup": self.warmup}
        return {key: value for key, value in options.items() if value is not None}


class TransplantConfig(Selection):
    """Selected weights from a further checkpoint."""

    load: FileName
    """the name of a checkpoint or state dictionary"""


class TransferConfig(Section):
    """Which weights are transferred, and how they are trained."""

    rename: dict[Name, Name] = {}
    """a mapping from patterns of names in checkpoints.load to names in the network, with as many
    '*' in both"""
    transplant: list[TransplantConfig] = []
    """a list of mappings {load: file, pattern: names}"""
    mismatch: Literal["error", "warn", "allow"] = "warn"
    """'error', 'warn' or 'allow' (tensors of another shape)"""
    allow: list[Name] = []
    """a list of patterns of tensors that may have another shape"""
    mode: Literal["full", "finetuning", "features", "gradual"] = "finetuning"
    """'full' (no lower rate for transferred weights), 'finetuning' (transferred weights at
    schedule.transferred_ratio), 'features' (they are frozen) or 'gradual' (they unfreeze one scale
    after the other)"""
    decay: float = Field(1.0, gt=0, le=1)
    """the factor in (0, 1] on the rate of transferred weights for each scale of distance from the
    new ones"""
    unfreeze: Positive | Annotated[list[Epochs], rising(strictly=False)] | Literal["plateau"] = (
        "plateau"
    )
    """for the mode 'gradual': the epochs between one scale and the next, a list of the epochs after
    which they unfreeze, or 'plateau'"""
    patience: Positive = 3
    """a positive number of epochs without improvement that make a plateau"""
    new_scales: Literal["fresh", "copy"] = "fresh"
    """'fresh' (drawn from the seed) or 'copy' (encoder, decoder and up of a new scale start as
    those of the next coarser one)"""
    rules: list[RuleConfig] = []
    """a list of mappings {pattern: names, freeze: ..., rate: ...}; later ones count"""
    featurize: bool = False
    """true or false: compute once what the network's heads are given, where they alone are
    trained"""
