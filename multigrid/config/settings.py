"""The sections of an experiment file about networks, training, computing and results."""

from typing import Annotated, Any, Literal

from pydantic import Field

from multigrid.config.section import (
    PER_LEVEL,
    FileName,
    Fraction,
    Positive,
    Rate,
    Section,
    registered,
)
from multigrid.registry import BLOCKS, CALLBACKS, LOSSES, NETWORKS, OPTIMIZERS

CallbackName = Annotated[str, registered(CALLBACKS)]
Name = Annotated[str, Field(min_length=1)]
Epochs = Annotated[int, Field(ge=0)]
Width = Annotated[int, Field(gt=0, le=4096)]


class DoublingConfig(Section):
    """Widths that double from the outermost scale of the finest level inwards."""

    outer: Width = Field(description="the width of the outermost scale, 1 to 4096")
    max: Width = Field(256, description="the largest width, 1 to 4096")


class ModelConfig(Section):
    """The UNet family."""

    network: Annotated[str, registered(NETWORKS)] = Field(
        "unet", description="'unet' or the name of a registered function from a grid to a network"
    )
    form: Literal["pyramid", "classic"] = Field("pyramid", description="'pyramid' or 'classic'")
    width: Width | list[Width] | DoublingConfig = Field(
        48,
        description="a width from 1 to 4096 for all scales, a list with one for each scale from "
        "the bottleneck outwards, or {outer: W, max: M} for widths that double inwards",
    )
    block: Annotated[str, registered(BLOCKS)] = Field(
        "residual", description="'residual' or the name of a registered block"
    )
    num_blocks: int = Field(
        1, ge=1, le=16, description="the residual blocks per encoder and per decoder, 1 to 16"
    )
    min_size: int = Field(
        2, ge=2, description="the size, at least 2, below which a grid is not halved any more"
    )
    depth: int | None = Field(
        None, ge=0, le=20, description="the number of scales below the coarsest level, 0 to 20"
    )
    growth: bool = Field(
        True,
        description="true or false: give finer levels more scales instead of using the network "
        "of level 0 on every grid",
    )
    fields: Literal["restricted", "folded", "auto"] = Field(
        "restricted",
        description="'restricted' (the network of a level works on fields of its grid), 'folded' "
        "(on those of the finest grid, with blocks of values laid into channels) or 'auto' (folded "
        "where the coarsest grid lacks more than 0.5 % of the outputs, see `multigrid floors`)",
    )
    padding: Literal["zeros", "replicate", "periodic"] = Field(
        "zeros", description="'zeros', 'replicate' or 'periodic'"
    )
    normalization: Literal["none", "group", "instance"] = Field(
        "none", description="'none', 'group' or 'instance'"
    )
    bottleneck: Literal["conv", "dense", "attention"] = Field(
        "conv",
        description="'conv', or 'dense' or 'attention' over all points of the coarsest grid",
    )
    prolongation: int = Field(
        4, ge=1, le=6, description="the polynomial degree of the prolongation, 1 to 6"
    )


class BudgetConfig(Section):
    """What a training may cost, in one of two units."""

    work_units: Rate | None = Field(
        None, description="a positive number of work units, 1 being an epoch on the finest level"
    )
    seconds: Rate | None = Field(None, description="a positive number of seconds of training")


class ScheduleConfig(Section):
    """How the training is spread over the levels."""

    cycle: Literal["half-v", "v", "w", "f", "single"] = Field(
        "half-v", description="'half-v', 'v', 'w', 'f' or 'single'"
    )
    epochs: Literal["auto"] | Epochs | list[Epochs] = Field(
        10, description=f"a number of epochs of at least 0, {PER_LEVEL}, or 'auto' (from budget)"
    )
    budget: BudgetConfig | None = Field(
        None,
        description="{work_units: N} or {seconds: N}, which 'epochs: auto' spreads over the levels",
    )
    batch_size: Positive | list[Positive] = Field(
        16, description=f"a positive number of samples, {PER_LEVEL}"
    )
    learning_rate: Literal["auto"] | Rate | list[Rate] = Field(
        "auto",
        description=f"a positive learning rate, {PER_LEVEL}, or 'auto' (0.004 times the root of "
        "batch_size / 16 on the coarsest level, half of it on each further one; with cycle "
        "'single' the whole)",
    )
    transferred_ratio: Fraction | list[Fraction] = Field(
        0.2,
        description="the learning rate of transferred weights over that of new ones, 0 to 1, "
        f"{PER_LEVEL}",
    )
    warmup: Fraction | list[Fraction] = Field(
        0.05,
        description=f"the fraction of the steps with a rising learning rate, 0 to 1, {PER_LEVEL}",
    )
    patience: Positive | None = Field(
        None,
        description="a positive number of epochs without improvement after which a level ends, "
        "or null",
    )
    stop_at_interpolation_error: bool = Field(
        False, description="true or false: end a level at the interpolation error of its grid"
    )


class OptimizerConfig(Section):
    """How the weights are updated."""

    name: Annotated[str, registered(OPTIMIZERS)] = Field(
        "muon", description="'muon', 'adamw' or a registered optimizer"
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="a number from 0 to 1")
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        [0.9, 0.999], min_length=2, max_length=2, description="two numbers in [0, 1)"
    )
    decay: Literal["cosine", "one-cycle"] = Field(
        "cosine", description="'cosine' (after the warm-up) or 'one-cycle'"
    )
    final_rate: Fraction = Field(
        0.01, description="the last learning rate of a level over its highest, 0 to 1"
    )
    clip: Rate | None = Field(1.0, description="the largest gradient norm, positive, or null")
    carry_moments: bool = Field(
        True, description="true or false: carry the moments of transferred weights over"
    )


class LossConfig(Section):
    """What is minimised."""

    name: Annotated[str, registered(LOSSES, "energy")] = Field(
        "rel_l2",
        description="'rel_l2', 'rel_l1', 'rel_h1', 'mse', 'energy' (steps of a solver down the "
        "energy, which need no labels) or a registered loss",
    )
    residual: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="the weight of at least 0 of the PDE's residual, added to the loss",
    )
    weights: dict[str, Rate] = Field(
        {},
        description="{field: factor}: what the error of an output field is multiplied by, 1 "
        "where none is given",
    )


class ComputeConfig(Section):
    """Where and in which precision to compute."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="'auto', 'cpu' or 'cuda'")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="'auto', 'float32' or 'bfloat16'"
    )
    compile: bool = Field(
        False,
        description="true or false: compile the networks for each grid with torch.compile",
    )


class ParallelConfig(Section):
    """How a step is spread over processes and fitted into their memory."""

    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="'ddp' (each process holds the whole network) or 'fsdp' (parameters, gradients "
        "and optimizer state are spread over the processes)",
    )
    accumulate: Positive | list[Positive] = Field(
        1,
        description="the number of microbatches, at least 1, in which a process takes its batch, "
        f"{PER_LEVEL}",
    )
    checkpoint_activations: bool | list[bool] = Field(
        False,
        description="true or false: recompute activations in the backward pass instead of "
        f"keeping them, {PER_LEVEL}",
    )


class CheckpointsConfig(Section):
    """What is saved of the networks, and when."""

    interval: int = Field(25, gt=0, description="a positive number of epochs")
    steps: Positive | None = Field(
        None, description="a positive number of steps after which to save as well, or null"
    )
    minutes: Rate | None = Field(
        10.0, description="a positive number of minutes after which to save as well, or null"
    )
    load: FileName | None = Field(
        None,
        description="the name of a checkpoint or state dictionary (.pt, .safetensors) to take "
        "weights from, or null",
    )
    save: FileName | None = Field(
        None,
        pattern=r".\.(pt|safetensors)$",
        description="the name of a .pt or .safetensors file for the weights of the finished "
        "network, or null",
    )


class RecoveryConfig(Section):
    """What happens when the loss is not finite or explodes, or memory runs out."""

    tries: int = Field(
        3,
        ge=0,
        le=100,
        description="how often a stage may go back to its best state, 0 (give up at once) to 100",
    )
    factor: float = Field(
        0.3, gt=0, le=1, description="what the learning rate is multiplied with then, up to 1"
    )
    explosion: float | None = Field(
        1000.0,
        gt=1,
        allow_inf_nan=False,
        description="a number above 1, how many times its lowest value the loss may be for some "
        "steps in a row, or null for no limit",
    )
    split_batches: bool = Field(
        True,
        description="true or false: take a batch that does not fit into memory in microbatches",
    )


class OutputConfig(Section):
    """Where the results go."""

    folder: FileName = Field("results", description="the name of a folder")
    num_predictions: int = Field(3, ge=1, le=16, description="the test samples drawn, 1 to 16")
    figures: bool = Field(True, description="true or false: draw figures at the end of a run")
    tensorboard: bool = Field(
        False, description="true or false: also write TensorBoard events into the run's folder"
    )
    callbacks: list[CallbackName | dict[CallbackName, dict[str, Any]]] = Field(
        [],
        description="a list of registered callbacks, each a name such as 'wandb' or 'mlflow' or a "
        "mapping from a name to its options, as in {wandb: {project: flow}}",
    )


class Selection(Section):
    """Weights whose names have a pattern."""

    pattern: Name | list[Name] = Field(
        description="a pattern of names, such as 'scales.0' or '*.head', or a list of them",
    )

    def patterns(self) -> tuple[str, ...]:
        """Returns the patterns as a tuple."""
        return tuple(self.pattern) if isinstance(self.pattern, list) else (self.pattern,)


class RuleConfig(Selection):
    """How some weights are trained; null leaves a setting as it is."""

    weights: Literal["transferred", "new", "all"] = Field(
        "transferred", description="'transferred', 'new' or 'all'"
    )
    freeze: bool | Positive | Literal["plateau"] | None = Field(
        None,
        description="true, false, a positive number of epochs, 'plateau' (until the validation "
        "error has not fallen for transfer.patience epochs) or null",
    )
    rate: Rate | None = Field(
        None, description="a positive factor on the learning rate of new weights, or null"
    )
    weight_decay: float | None = Field(None, ge=0, le=1, description="a number from 0 to 1 or null")
    warmup: Fraction | None = Field(
        None, description="the fraction of the steps with a rate rising from zero, 0 to 1, or null"
    )

    def concerns(self, transferred: bool) -> bool:
        """Whether the rule is for weights that were transferred, or for those that were not."""
        return self.weights in ("all", "transferred" if transferred else "new")

    def optimizer_options(self) -> dict[str, float]:
        """Returns the options of the optimizer that the rule sets."""
        options = {"scale": self.rate, "weight_decay": self.weight_decay, "warmup": self.warmup}
        return {key: value for key, value in options.items() if value is not None}


class TransplantConfig(Selection):
    """Selected weights from a further checkpoint."""

    load: FileName = Field(description="the name of a checkpoint or state dictionary")


class TransferConfig(Section):
    """Which weights are transferred, and how they are trained."""

    rename: dict[Name, Name] = Field(
        {},
        description="a mapping from patterns of names in checkpoints.load to names in the network, "
        "with as many '*' in both",
    )
    transplant: list[TransplantConfig] = Field(
        [], description="a list of mappings {load: file, pattern: names}"
    )
    mismatch: Literal["error", "warn", "allow"] = Field(
        "warn", description="'error', 'warn' or 'allow' (tensors of another shape)"
    )
    allow: list[Name] = Field(
        [], description="a list of patterns of tensors that may have another shape"
    )
    mode: Literal["full", "finetuning", "features", "gradual"] = Field(
        "finetuning",
        description="'full' (no lower rate for transferred weights), 'finetuning' (transferred "
        "weights at schedule.transferred_ratio), 'features' (they are frozen) or 'gradual' (they "
        "unfreeze one scale after the other)",
    )
    decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="the factor in (0, 1] on the rate of transferred weights for each scale of "
        "distance from the new ones",
    )
    unfreeze: Positive | list[Epochs] | Literal["plateau"] = Field(
        "plateau",
        description="for the mode 'gradual': the epochs between one scale and the next, a list "
        "of the epochs after which they unfreeze, or 'plateau'",
    )
    patience: Positive = Field(
        3, description="a positive number of epochs without improvement that make a plateau"
    )
    new_scales: Literal["fresh", "copy"] = Field(
        "fresh",
        description="'fresh' (drawn from the seed) or 'copy' (encoder, decoder and up of a new "
        "scale start as those of the next coarser one)",
    )
    rules: list[RuleConfig] = Field(
        [],
        description="a list of mappings {pattern: names, freeze: ..., rate: ...}; later ones count",
    )
    featurize: bool = Field(
        False,
        description="true or false: compute once what the network's heads are given, where they "
        "alone are trained",
    )
