"""The experiment file as a whole, and what follows from its settings."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator

from multigrid.config.data import DataConfig, FileConfig, LevelConfig, problem_section
from multigrid.config.section import FileName, Section, Size, allowed, section_in, sentence, shown
from multigrid.config.settings import (
    BudgetConfig,
    CheckpointsConfig,
    ComputeConfig,
    DoublingConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    OutputConfig,
    ParallelConfig,
    RecoveryConfig,
    RolloutTrainingConfig,
    ScheduleConfig,
    TransferConfig,
)
from multigrid.errors import UserError, nearest
from multigrid.grid import Centering, Grid, Hierarchy, guess_centering
from multigrid.problems import PDE, FileProblem, Problem, build_problem
from multigrid.registry import PROBLEMS

COARSEST_RATE = 4e-3
DEFAULT_WORK_UNITS = 4.0
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class Config(Section):
    """A whole experiment."""

    name: str = Field(pattern=NAME_PATTERN)
    """a name of up to 100 letters, digits, '.', '_' and '-', starting with a letter or digit"""
    plugins: list[FileName] = []
    """a list of Python files, relative to the experiment file, or modules, which register problems,
    losses, metrics and more of the user's"""
    seed: int = Field(0, ge=0, lt=2**32)
    """a whole number from 0 to 2^32 - 1"""
    problem: SerializeAsAny[Section]
    """a mapping with the key 'kind'"""
    data: DataConfig = DataConfig()
    levels: list[Size | list[Size] | LevelConfig] = Field(min_length=1)
    """a list of grids, coarsest first, each a number of points, a list with one for each axis, or a
    mapping {grid: ..., samples: ...}"""
    model: ModelConfig = ModelConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    """a mapping or 'auto'"""
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    rollout_training: RolloutTrainingConfig = RolloutTrainingConfig()
    compute: ComputeConfig = ComputeConfig()
    parallel: ParallelConfig = ParallelConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    transfer: TransferConfig = TransferConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    output: OutputConfig = OutputConfig()

    @field_validator("problem", mode="before")
    @classmethod
    def _by_kind(cls, value: Any, info: ValidationInfo) -> Section:
        """Reads the section that the problem's kind defines."""
        return parse_problem(value, info.context)

    @field_validator("schedule", mode="before")
    @classmethod
    def _automatic(cls, value: Any) -> Any:
        """Reads ``schedule: auto`` as ``schedule: {epochs: auto}``."""
        return {"epochs": "auto"} if value == "auto" else value

    @property
    def files(self) -> FileConfig | None:
        """The section ``problem`` if the samples come from files, else None."""
        return self.problem if isinstance(self.problem, FileConfig) else None

    @property
    def kind(self) -> str:
        """Name of the problem."""
        return str(getattr(self.problem, "kind"))  # noqa: B009 (each section has its own type)

    @property
    def problem_class(self) -> type[Problem]:
        """The class of the problem."""
        problem: type[Problem] = FileProblem if self.files else PROBLEMS.get(self.kind)
        return problem

    def pde(self, changes: Mapping[str, Any] | None = None) -> PDE:
        """Returns the problem of which samples are made, maybe with some settings changed."""
        section = parse_problem({**self.problem.model_dump(), **(changes or {})})
        return build_problem(**section.model_dump())

    def hierarchy(self) -> Hierarchy:
        """Returns the grids of the ladder and of the scales below it, which have to nest."""
        grids = [Grid(shape, self.centering) for shape in self.shapes()]
        model = self.model
        return Hierarchy.build(grids, model.min_size, model.depth, model.fields != "restricted")

    def shapes(self) -> list[tuple[int, ...]]:
        """Returns the number of points of each level along each axis."""
        ndim = getattr(self.problem, "ndim", self.problem_class.ndim)
        shapes = list[tuple[int, ...]]()
        for index, level in enumerate(self.levels):
            size = level.grid if isinstance(level, LevelConfig) else level
            shape = (size,) * ndim if isinstance(size, int) else tuple(size)
            key = f"levels[{index}]"
            if len(shape) != ndim:
                raise UserError(f"{key}: {list(shape)} must have {ndim} numbers, one an axis")
            if min(shape) < 4:
                raise UserError(f"{key}: {min(shape)} points are too few, at least 4 needed")
            shapes.append(shape)
        return shapes

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
        """Returns the width of every scale of the finest level's network, coarsest first."""
        width = self.model.width
        num_scales = len(hierarchy.scales) if self.model.growth else hierarchy.tops[0] + 1
        if isinstance(width, int):
            return [width] * num_scales
        if isinstance(width, DoublingConfig):
            return [min(width.outer * 2**k, width.max) for k in reversed(range(num_scales))]
        if len(width) != num_scales:
            scales = hierarchy.scales[-num_scales:]
            raise UserError(
                f"model.width: the list has {len(width)} entries, but the network of the finest "
                f"level has {num_scales} scales: {', '.join(map(str, scales))}"
            )
        return width

    @property
    def is_settled(self) -> bool:
        """Whether the centering is settled; that of files may be so only once they are open."""
        return self.data.centering != "auto" or self.files is None

    @property
    def centering(self) -> Centering:
        """Where the points lie, once :attr:`is_settled`; ``auto`` takes nodes for odd sizes."""
        assert self.is_settled
        centering = self.data.centering
        return guess_centering(self.shapes()[-1]) if centering == "auto" else centering

    def per_level(self, key: str) -> list[Any]:
        """Returns a setting of ``schedule`` or ``parallel``, one value for each level."""
        section = self.parallel if key in ParallelConfig.model_fields else self.schedule
        value = getattr(section, key)
        if key == "learning_rate" and value == "auto":  # less where a level starts from another
            ratio = 1.0 if self.schedule.cycle == "single" else 0.5
            return [
                COARSEST_RATE * math.sqrt(batch_size / 16) * ratio**level
                for level, batch_size in enumerate(self.per_level("batch_size"))
            ]
        return list(value) if isinstance(value, list) else [value] * len(self.levels)

    @property
    def is_automatic(self) -> bool:
        """Whether the stages are chosen one by one, by what the ones before have given."""
        schedule, model = self.schedule, self.model
        preserves = model.growth and model.form == "pyramid" and model.network == "unet"
        return schedule.epochs == "auto" and schedule.cycle in ("auto", "half-v") and preserves

    @property
    def budget(self) -> BudgetConfig:
        """What the training may cost where the epochs are ``auto``."""
        return self.schedule.budget or BudgetConfig(work_units=DEFAULT_WORK_UNITS)


def parse_problem(raw: Any, context: Any = None) -> Section:
    """Returns the section of a PDE or of files, with defaults filled in."""
    if isinstance(raw, Section):
        return raw
    if not isinstance(raw, Mapping):
        what = "it must be a mapping with the key 'kind'"
        raise UserError(f"problem: {shown(raw)} is not allowed; {what}")
    kinds, kind = (*PROBLEMS.names(), "file"), raw.get("kind")
    if kind not in kinds:
        what = "missing" if kind is None else f"{shown(kind)} is not allowed"
        hint = f"it must be one of {', '.join(kinds)}" + nearest(kind, kinds) * (kind is not None)
        raise UserError(f"problem.kind: {what}; {hint}")
    model = FileConfig if kind == "file" else problem_section(PROBLEMS.get(kind))
    try:
        return model.model_validate(raw, context=context)
    except ValidationError as error:
        raise UserError(sentence(error, model, "problem", keys_of({"problem": raw}))) from None


class Setting(NamedTuple):
    """A row of the reference: dotted key, default as in YAML, and what is allowed."""

    key: str
    default: str
    description: str


def sections() -> dict[str, type[Section]]:
    """Returns the sections by name: those of the file, and ``problem.<kind>`` for each problem."""
    fields = Config.model_fields.items()
    inner = {name: section_in(field.annotation) for name, field in fields if name != "problem"}
    return {
        **{name: section for name, section in inner.items() if section is not None},
        **{f"problem.{kind}": problem_section(PROBLEMS.get(kind)) for kind in PROBLEMS.names()},
        "problem.file": FileConfig,
    }


def keys_of(raw: Mapping[str, Any]) -> list[str]:
    """Returns the dotted keys of the sections of an experiment with its kind of problem."""
    problem = raw.get("problem")
    kind = problem.get("kind") if isinstance(problem, Mapping) else getattr(problem, "kind", None)
    own, keys = f"problem.{kind}.", [row.key for row in settings() if "." in row.key]
    wanted = [key for key in keys if key.startswith(own) or not key.startswith("problem.")]
    return [key.replace(own, "problem.") for key in wanted]


def settings(name: str | None = None) -> list[Setting]:
    """Returns the settings of a section, such as ``data`` or ``problem.darcy``, or all."""
    found = sections()
    if name not in (None, "problem", *found):
        raise UserError(
            f"there is no section '{name}'; there are {', '.join(found)}{nearest(name, found)}"
        )
    rows = [row for row in _rows(Config, "") if name is None and row.key not in found]
    for key, section in found.items():
        if name in (None, key, key.partition(".")[0]):
            rows += _rows(section, f"{key}.")
    return rows


def _rows(section: type[Section], prefix: str) -> Iterator[Setting]:
    for name, field in section.model_fields.items():
        if name == "kind":
            continue
        text = "required" if field.is_required() else shown(field.default)
        text = "see below" if isinstance(field.default, Section) else text
        yield Setting(prefix + name, text, allowed(field))
        if (inner := section_in(field.annotation)) is not None and prefix:
            yield from _rows(inner, f"{prefix}{name}.")
