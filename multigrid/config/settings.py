"""The sections of an experiment file: every setting, its default and what is allowed.

Each field's description completes the sentence "``key`` must be ...".
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from multigrid.config.problem import ProblemConfig
from multigrid.config.section import Fraction, Positive, Rate, Section, Size
from multigrid.config.transfer import TransferConfig
from multigrid.errors import UserError
from multigrid.grid import Centering, Grid, Hierarchy, guess_centering


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


COARSEST_RATE = 4e-3
DEFAULT_WORK_UNITS = 4.0

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
        "rel_l2", description="'rel_l2', 'rel_l1', 'rel_h1', 'mse' or 'energy' (no labels needed)"
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


NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class Config(Section):
    """An experiment, whole."""

    name: str = Field(
        pattern=NAME_PATTERN,
        description="a name of up to 100 letters, digits, '.', '_' and '-', starting with a "
        "letter or digit",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="a whole number from 0 to 2^32 - 1")
    problem: ProblemConfig = Field(description="a mapping with the key 'kind'")
    data: DataConfig = Field(DataConfig(), description="a mapping")
    levels: list[Size | list[Size] | LevelConfig] = Field(
        min_length=1,
        description="a list of grids, coarsest first, each a number of points, a list with one "
        "for each axis, or a mapping {grid: ..., samples: ...}",
    )
    model: ModelConfig = Field(ModelConfig(), description="a mapping")
    schedule: ScheduleConfig = Field(ScheduleConfig(), description="a mapping or 'auto'")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="a mapping")
    loss: LossConfig = Field(LossConfig(), description="a mapping")
    compute: ComputeConfig = Field(ComputeConfig(), description="a mapping")
    checkpoints: CheckpointsConfig = Field(CheckpointsConfig(), description="a mapping")
    transfer: TransferConfig = Field(TransferConfig(), description="a mapping")
    recovery: RecoveryConfig = Field(RecoveryConfig(), description="a mapping")
    output: OutputConfig = Field(OutputConfig(), description="a mapping")

    @field_validator("schedule", mode="before")
    @classmethod
    def _automatic(cls, value: Any) -> Any:
        """Reads ``schedule: auto`` as the automatic choice of all that may be chosen so."""
        return {"epochs": "auto"} if value == "auto" else value

    def hierarchy(self) -> Hierarchy:
        """Returns the grids of the ladder and of the scales below it.

        Raises:
            UserError: If the grids do not nest.
        """
        grids = [self._grid(index) for index in range(len(self.levels))]
        return Hierarchy.build(grids, self.model.min_size, self.model.depth)

    @property
    def labelled(self) -> bool:
        """Whether the loss looks at the outputs of training samples."""
        return self.loss.name != "energy"

    def samples(self) -> list[int]:
        """Returns the number of training samples of each level."""
        return [
            level.samples or self.data.train if isinstance(level, LevelConfig) else self.data.train
            for level in self.levels
        ]

    def widths(self, hierarchy: Hierarchy) -> list[int]:
        """Returns the width of every scale, coarsest first."""
        num_scales = len(hierarchy.scales)
        width = self.model.width
        if isinstance(width, int):
            return [width] * num_scales
        if isinstance(width, DoublingConfig):
            return [
                min(width.outer * 2 ** (num_scales - 1 - k), width.max) for k in range(num_scales)
            ]
        if len(width) != num_scales:
            raise UserError(
                f"model.width: the list has {len(width)} entries, but the network of the finest "
                f"level has {num_scales} scales: {', '.join(map(str, hierarchy.scales))}"
            )
        return width

    @property
    def centering(self) -> Centering:
        """Where the points lie, guessed from the sizes as long as it is ``auto``."""
        if self.data.centering != "auto":
            return self.data.centering
        return guess_centering(self._shape(len(self.levels) - 1))

    def per_level(self, key: str) -> list[Any]:
        """Returns a setting of the schedule as a list with one value for each level.

        Epochs are ``auto`` where they follow from the budget.
        """
        value = getattr(self.schedule, key)
        if key == "learning_rate" and value == "auto":
            return self._learning_rates()
        return list(value) if isinstance(value, list) else [value] * len(self.levels)

    @property
    def budget(self) -> BudgetConfig:
        """What the training may cost where the epochs are ``auto``."""
        return self.schedule.budget or BudgetConfig(work_units=DEFAULT_WORK_UNITS)

    def _learning_rates(self) -> list[float]:
        """Returns the automatic rates: less for finer levels, which start from coarser ones."""
        single = self.schedule.cycle == "single"
        return [
            COARSEST_RATE * math.sqrt(batch_size / 16) * (1.0 if single else 0.5**level)
            for level, batch_size in enumerate(self.per_level("batch_size"))
        ]

    def _grid(self, index: int) -> Grid:
        return Grid(self._shape(index), self.centering)

    def _shape(self, index: int) -> tuple[int, ...]:
        level = self.levels[index]
        size = level.grid if isinstance(level, LevelConfig) else level
        ndim = self.problem.ndim
        shape = (size,) * ndim if isinstance(size, int) else tuple(size)
        if len(shape) != ndim:
            raise UserError(f"levels[{index}]: {list(shape)} must have {ndim} numbers, one an axis")
        if min(shape) < 4:
            raise UserError(f"levels[{index}]: {min(shape)} points are too few, at least 4 needed")
        return shape
