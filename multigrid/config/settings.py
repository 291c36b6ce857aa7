"""The sections of an experiment file: every setting, its default and what is allowed.

Each field's description completes the sentence "``key`` must be ...".
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from multigrid.config.section import Fraction, Positive, Rate, Section, Size


class LevelConfig(Section):
    """One level of the ladder."""

    grid: Size | list[Size] = Field(
        description="a number of points, or a list with one for each axis"
    )
    samples: Positive | None = Field(
        None, description="a positive number of training samples, at most data.train"
    )


class DataConfig(Section):
    """What is generated or read, and how it is presented to the network."""

    folder: str = Field("data", min_length=1, description="the name of a folder")
    centering: Literal["auto", "cell", "node"] = Field(
        "cell",
        description="'cell' (coarse fields are averages), 'node' (every second point) or 'auto' "
        "(as files of several grids nest, else as a file says, else 'node' for odd sizes)",
    )
    train: int = Field(1024, gt=0, description="a positive number of training samples")
    validation: int = Field(128, gt=0, description="a positive number of validation samples")
    test: int = Field(128, gt=0, description="a positive number of test samples")
    seed: int = Field(0, ge=0, description="a whole number of at least 0")
    extra_tests: dict[str, dict[str, Any]] = Field(
        {},
        description="a mapping from names to settings of the problem that are changed for a "
        "further test set, as in {hard: {num_modes: 20}}",
    )
    rollout_steps: int = Field(
        0,
        ge=0,
        le=10_000,
        description="the time steps over which the surrogate is rolled out in the test, 0 for none",
    )
    augmentation: Literal["auto", "none"] = Field(
        "auto", description="'auto' (what the problem declares exact) or 'none'"
    )
    mode_shifts: Fraction = Field(
        0.0,
        description="a number from 0 to 1: how often augmentation superposes samples with their "
        "sine modes moved up, for inputs with shorter waves than those of the samples",
    )
    normalization: Literal["auto", "none", "gaussian", "min-max"] = Field(
        "auto", description="'auto', 'none', 'gaussian' or 'min-max'"
    )
    memory: Literal["auto", "hold", "stream"] = Field(
        "auto",
        description="'auto' (hold the training samples of a level if they take at most half of "
        "the memory), 'hold' (in memory) or 'stream' (from disk)",
    )


class DoublingConfig(Section):
    """Widths that double from the outermost scale of the finest level inwards."""

    outer: int = Field(gt=0, le=4096, description="the width of the outermost scale, 1 to 4096")
    max: int = Field(256, gt=0, le=4096, description="the largest width, 1 to 4096")


class ModelConfig(Section):
    """The UNet family."""

    form: Literal["pyramid", "classic"] = Field("pyramid", description="'pyramid' or 'classic'")
    width: (
        Annotated[int, Field(gt=0, le=4096)]
        | list[Annotated[int, Field(gt=0, le=4096)]]
        | DoublingConfig
    ) = Field(
        48,
        description="a width from 1 to 4096 for all scales, a list with one for each scale from "
        "the bottleneck outwards, or {outer: W, max: M} for widths that double inwards",
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


PER_LEVEL = "or a list with one for each level, coarsest first"


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
    epochs: Literal["auto"] | Annotated[int, Field(ge=0)] | list[Annotated[int, Field(ge=0)]] = (
        Field(
            10,
            description=f"a number of epochs of at least 0, {PER_LEVEL}, or 'auto' (from budget)",
        )
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

    name: Literal["muon", "adamw"] = Field("muon", description="'muon' or 'adamw'")

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

    name: Literal["rel_l2", "rel_l1", "rel_h1", "mse", "energy"] = Field(
        "rel_l2",
        description="'rel_l2', 'rel_l1', 'rel_h1', 'mse' or 'energy' (steps of a "
        "solver down the energy, which need no labels)",
    )
    residual: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="the weight of at least 0 of the PDE's residual, added to the loss",
    )


class ComputeConfig(Section):
    """Where and in which precision to compute."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="'auto', 'cpu' or 'cuda'")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="'auto', 'float32' or 'bfloat16'"
    )


class ParallelConfig(Section):
    """How a step is spread over processes and fitted into their memory."""

    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="'ddp' (each process holds the whole network) or 'fsdp' (parameters, gradients "
        "and optimiser state are spread over the processes)",
    )
    accumulate: Positive | list[Positive] = Field(
        1, description=f"the parts, at least 1, in which a process takes its batch, {PER_LEVEL}"
    )
    checkpoint_activations: bool | list[bool] = Field(
        False,
        description="true or false: compute activations anew in the backward pass instead of "
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
    load: str | None = Field(
        None,
        min_length=1,
        description="the name of a checkpoint or state dictionary (.pt, .safetensors) to take "
        "weights from, or null",
    )
    save: str | None = Field(
        None,
        pattern=r".\.(pt|safetensors)$",
        description="the name of a .pt or .safetensors file for the weights of the finished "
        "network, or null",
    )


class RecoveryConfig(Section):
    """What happens when the loss is no number or explodes, or the memory does not suffice."""

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
    accumulate: bool = Field(
        True, description="true or false: take a batch in parts that does not fit into the memory"
    )


class OutputConfig(Section):
    """Where the results go."""

    folder: str = Field("results", min_length=1, description="the name of a folder")
    num_predictions: int = Field(3, ge=1, le=16, description="the test samples drawn, 1 to 16")
    tensorboard: bool = Field(
        False, description="true or false: also write TensorBoard events into the run's folder"
    )
