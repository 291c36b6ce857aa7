"""The experiment file: every setting, its default, what is allowed, and how it is read.

The only module that knows YAML. It imports no torch, so that a typing error is told at once.
Each field's description completes the sentence "``key`` must be ...".
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from multigrid.errors import UserError, nearest
from multigrid.grid import Grid, Hierarchy

MAX_FILE_BYTES = 1_000_000
MAX_DEPTH = 20


class Section(BaseModel):
    """A mapping of the experiment file; unknown keys and implicit conversions are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Positive: TypeAlias = Annotated[int, Field(gt=0)]
Rate: TypeAlias = Annotated[float, Field(gt=0, lt=float("inf"), allow_inf_nan=False)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class PoissonConfig(Section):
    """-Laplace(u) = f on the unit box, u = 0 on its boundary, f a Gaussian random field."""

    kind: Literal["poisson"]
    ndim: int = Field(2, ge=2, le=3, description="the number of space dimensions, 2 or 3")
    smoothness: float = Field(
        2.0, gt=0, le=10, description="the exponent alpha of (-Laplace + tau^2)^-alpha, in (0, 10]"
    )
    inverse_length: float = Field(
        3.0, ge=0, le=1000, description="the tau of (-Laplace + tau^2)^-alpha, in [0, 1000]"
    )
    num_modes: int = Field(
        64, ge=1, le=1024, description="the number of sine modes along each axis, 1 to 1024"
    )


class CNOPoissonConfig(Section):
    """Poisson's equation as in the benchmarks of the Convolutional Neural Operator."""

    kind: Literal["cno_poisson"]
    ndim: ClassVar[int] = 2
    num_modes: int = Field(
        16, ge=1, le=1024, description="the number of sine modes along each axis, 1 to 1024"
    )


class _DarcyConfig(Section):
    kind: Literal["darcy", "darcy_lognormal"]
    ndim: int = Field(2, ge=2, le=3, description="the number of space dimensions, 2 or 3")
    smoothness: float = Field(
        2.0, gt=0, le=10, description="the exponent alpha of (-Laplace + tau^2)^-alpha, in (0, 10]"
    )
    inverse_length: float = Field(
        3.0, ge=0, le=1000, description="the tau of (-Laplace + tau^2)^-alpha, in [0, 1000]"
    )
    num_modes: int = Field(
        64, ge=1, le=1024, description="the highest cosine mode along each axis, 1 to 1024"
    )
    tolerance: float = Field(
        1e-7, ge=1e-12, le=1e-2, description="the solver's relative error, 1e-12 to 0.01"
    )


class TwoPhaseDarcyConfig(_DarcyConfig):
    """-div(a grad u) = 1, u = 0 on the boundary, a piecewise constant."""

    kind: Literal["darcy"]
    high: float = Field(12.0, gt=0, le=1e3, description="a permeability in (0, 1000]")
    low: float = Field(3.0, gt=0, le=1e3, description="a permeability in (0, 1000]")


class LognormalDarcyConfig(_DarcyConfig):
    """-div(a grad u) = 1, u = 0 on the boundary, log(a) a Gaussian random field."""

    kind: Literal["darcy_lognormal"]
    smoothness: float = Field(
        3.0, gt=0, le=10, description="the exponent alpha of (-Laplace + tau^2)^-alpha, in (0, 10]"
    )
    log_std: float = Field(
        1.0, gt=0, le=3, description="the standard deviation of log(a), in (0, 3]"
    )


class DiffusionConfig(Section):
    """div(nu grad u) = 0, u = 1 and 0 on the two faces across x, natural elsewhere."""

    kind: Literal["diffusion"]
    ndim: int = Field(2, ge=2, le=3, description="the number of space dimensions, 2 or 3")
    max_weight: float = Field(
        3.0, gt=0, le=3, description="the bound of the weights in log(nu), in (0, 3]"
    )
    tolerance: float = Field(
        1e-8, ge=1e-12, le=1e-2, description="the solver's relative error, 1e-12 to 0.01"
    )


class ReactionDiffusionConfig(Section):
    """The FitzHugh-Nagumo equations in a periodic box, one step in time."""

    kind: Literal["reaction_diffusion"]
    ndim: int = Field(2, ge=2, le=3, description="the number of space dimensions, 2 or 3")
    diffusivity_u: float = Field(1e-3, ge=0, le=1, description="a diffusivity in [0, 1]")
    diffusivity_v: float = Field(5e-3, ge=0, le=1, description="a diffusivity in [0, 1]")
    threshold: float = Field(5e-3, ge=-1, le=1, description="a number in [-1, 1]")
    time_step: float = Field(0.5, gt=0, le=10, description="a time in (0, 10]")
    num_starts: int = Field(10, ge=1, le=1000, description="a number of start times, 1 to 1000")
    substeps: int = Field(
        5, ge=1, le=10_000, description="the integrator's steps within time_step, 1 to 10000"
    )
    num_modes: int = Field(
        8, ge=1, le=64, description="the highest mode of the first state, 1 to 64"
    )


ProblemConfig: TypeAlias = Annotated[
    PoissonConfig
    | CNOPoissonConfig
    | TwoPhaseDarcyConfig
    | LognormalDarcyConfig
    | DiffusionConfig
    | ReactionDiffusionConfig,
    Field(discriminator="kind"),
]


class LevelConfig(Section):
    """One level of the ladder."""

    grid: Positive | list[Positive] = Field(
        description="a number of points, or a list with one for each axis"
    )
    samples: Positive | None = Field(
        None, description="a positive number of training samples, at most data.train"
    )


class DataConfig(Section):
    """What is generated or read, and how it is presented to the network."""

    folder: str = Field("data", min_length=1, description="the name of a folder")
    centering: Literal["cell", "node"] = Field("cell", description="'cell' or 'node'")
    train: int = Field(1024, gt=0, description="a positive number of training samples")
    validation: int = Field(128, gt=0, description="a positive number of validation samples")
    test: int = Field(128, gt=0, description="a positive number of test samples")
    seed: int = Field(0, ge=0, description="a whole number of at least 0")
    augmentation: Literal["auto", "none"] = Field(
        "auto", description="'auto' (what the problem declares exact) or 'none'"
    )
    normalization: Literal["auto", "none", "gaussian"] = Field(
        "auto", description="'auto', 'none' or 'gaussian'"
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
    prolongation: int = Field(
        4, ge=1, le=6, description="the polynomial degree of the prolongation, 1 to 6"
    )


PER_LEVEL = "or a list with one for each level, coarsest first"


class ScheduleConfig(Section):
    """How the training is spread over the levels."""

    cycle: Literal["half-v", "v", "w", "f", "single"] = Field(
        "half-v", description="'half-v', 'v', 'w', 'f' or 'single'"
    )
    epochs: Annotated[int, Field(ge=0)] | list[Annotated[int, Field(ge=0)]] = Field(
        10, description=f"a number of epochs of at least 0, {PER_LEVEL}"
    )
    batch_size: Positive | list[Positive] = Field(
        32, description=f"a positive number of samples, {PER_LEVEL}"
    )
    learning_rate: Rate | list[Rate] = Field(
        1e-3, description=f"a positive learning rate, {PER_LEVEL}"
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

    name: Literal["rel_l2", "rel_l1", "rel_h1", "mse"] = Field(
        "rel_l2", description="'rel_l2', 'rel_l1', 'rel_h1' or 'mse'"
    )


class ComputeConfig(Section):
    """Where and in which precision to compute."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="'auto', 'cpu' or 'cuda'")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="'auto', 'float32' or 'bfloat16'"
    )


class OutputConfig(Section):
    """Where the results go."""

    folder: str = Field("results", min_length=1, description="the name of a folder")
    checkpoint_interval: int = Field(5, gt=0, description="a positive number of epochs")
    num_predictions: int = Field(3, ge=1, le=16, description="the test samples drawn, 1 to 16")


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
    levels: list[Positive | list[Positive] | LevelConfig] = Field(
        min_length=1,
        description="a list of grids, coarsest first, each a number of points, a list with one "
        "for each axis, or a mapping {grid: ..., samples: ...}",
    )
    model: ModelConfig = Field(ModelConfig(), description="a mapping")
    schedule: ScheduleConfig = Field(ScheduleConfig(), description="a mapping")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="a mapping")
    loss: LossConfig = Field(LossConfig(), description="a mapping")
    compute: ComputeConfig = Field(ComputeConfig(), description="a mapping")
    output: OutputConfig = Field(OutputConfig(), description="a mapping")

    def hierarchy(self) -> Hierarchy:
        """Returns the grids of the ladder and of the scales below it.

        Raises:
            UserError: If the grids do not nest.
        """
        grids = [self._grid(index) for index in range(len(self.levels))]
        return Hierarchy.build(grids, self.model.min_size, self.model.depth)

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

    def per_level(self, key: str) -> list[Any]:
        """Returns a setting of the schedule as a list with one value for each level."""
        value = getattr(self.schedule, key)
        return list(value) if isinstance(value, list) else [value] * len(self.levels)

    def _grid(self, index: int) -> Grid:
        level = self.levels[index]
        size = level.grid if isinstance(level, LevelConfig) else level
        ndim = self.problem.ndim
        shape = (size,) * ndim if isinstance(size, int) else tuple(size)
        if len(shape) != ndim:
            raise UserError(f"levels[{index}]: {list(shape)} must have {ndim} numbers, one an axis")
        if min(shape) < 4:
            raise UserError(f"levels[{index}]: {min(shape)} points are too few, at least 4 needed")
        return Grid(shape, self.data.centering)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads, overrides and validates an experiment file.

    Args:
        path: YAML file.
        overrides: Assignments ``section.key=value``, the value in YAML.

    Raises:
        UserError: With one sentence for the first thing that is wrong.
    """
    raw = _read_yaml(Path(path))
    for assignment in overrides:
        _override(raw, assignment)
    return parse_config(raw, source=str(path))


def parse_config(raw: Mapping[str, Any], source: str = "configuration") -> Config:
    """Validates an experiment given as plain containers."""
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{source}: {_sentence(error)}") from None
    try:
        _check(config)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    return config


def dump_config(config: Config) -> str:
    """Returns the resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns the dotted keys whose values differ between two dumped configurations."""
    flat_old, flat_new = dict(_flatten(old)), dict(_flatten(new))
    keys = [*flat_old, *(key for key in flat_new if key not in flat_old)]
    missing = object()
    return [key for key in keys if flat_old.get(key, missing) != flat_new.get(key, missing)]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check(config: Config) -> None:
    """Checks what concerns several keys at once."""
    hierarchy = config.hierarchy()
    config.widths(hierarchy)
    num_levels = len(config.levels)
    for key in ("epochs", "batch_size", "learning_rate", "transferred_ratio", "warmup"):
        value = getattr(config.schedule, key)
        if isinstance(value, list) and len(value) != num_levels:
            raise UserError(
                f"schedule.{key}: the list has {len(value)} entries, but there are {num_levels} "
                "levels"
            )
    for index, samples in enumerate(config.samples()):
        if samples > config.data.train:
            raise UserError(
                f"levels[{index}].samples: {samples} is more than data.train, {config.data.train}"
            )
        batch_size = config.per_level("batch_size")[index]
        if batch_size > samples:
            raise UserError(
                f"schedule.batch_size: {batch_size} is more than the {samples} training samples "
                f"of level {index}"
            )
    if config.output.num_predictions > config.data.test:
        raise UserError(
            f"output.num_predictions: {config.output.num_predictions} is more than data.test, "
            f"{config.data.test}"
        )
    _check_problem(config.problem, hierarchy.levels)


def _check_problem(problem: Section, levels: Sequence[Grid]) -> None:
    """Checks that a problem can be had on the grids of the ladder."""
    finest = levels[-1]
    match problem:
        case PoissonConfig() | CNOPoissonConfig():
            limit = 2 * min(finest.shape) - 1
            if problem.num_modes > limit:
                raise UserError(
                    f"problem.num_modes: {problem.num_modes} sine modes need more than the "
                    f"{min(finest.shape)} points of the finest level; at most {limit} are allowed"
                )
        case DiffusionConfig():
            _require_boundary_nodes(levels)
        case ReactionDiffusionConfig():
            if finest.centering == "node" and any(n % 2 for n in finest.shape):
                raise UserError(
                    f"levels[{len(levels) - 1}]: problem 'reaction_diffusion' is periodic, which "
                    f"nodes with both boundary points are not: the sizes of {finest} must be even"
                )


def _require_boundary_nodes(levels: Sequence[Grid]) -> None:
    if levels[-1].centering == "cell":
        raise UserError(
            "data.centering: problem 'diffusion' gives boundary values at nodes; it must be 'node'"
        )
    for index, grid in enumerate(levels):
        if any(n % 2 == 0 for n in grid.shape):
            odd = Grid(tuple(n + 1 - n % 2 for n in grid.shape), "node")
            raise UserError(
                f"levels[{index}]: problem 'diffusion' needs nodes on both ends of each axis, so "
                f"odd sizes such as {odd}, not {grid}"
            )


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases and duplicate keys, and with ``1e-3`` read as a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(
                None, None, "aliases are not allowed", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' appears twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_FLOAT = r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)$"
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_FLOAT), list("-+0123456789."))


def _parse_yaml(text: str) -> Any:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise UserError(f"nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes, no experiment file")
        raw = _parse_yaml(path.read_text(encoding="utf-8"))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: must hold a mapping of settings, not {_kind(raw)}")
    return raw


def _override(raw: dict[str, Any], assignment: str) -> None:
    """Applies ``section.key=value`` to the raw settings."""
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"override '{assignment}' must have the form section.key=value")
    try:
        value = _parse_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise UserError(
            f"override '{assignment}': the value is not valid YAML: {problem}"
        ) from None
    for depth, key in enumerate(keys[:-1]):
        raw = raw.setdefault(key, {})
        if not isinstance(raw, dict):
            raise UserError(
                f"override '{assignment}': {'.'.join(keys[: depth + 1])} is no mapping but "
                f"{_kind(raw)}"
            )
    raw[keys[-1]] = value


def _kind(value: Any) -> str:
    names = {
        dict: "a mapping", list: "a list", str: "a text", bool: "true or false",
        int: "a whole number", float: "a number", type(None): "empty",
    }  # fmt: skip
    return names.get(type(value), type(value).__name__)


def _sentence(error: ValidationError) -> str:
    """Says the most telling error of a validation in one sentence.

    Unknown keys come first, as a misspelt key often makes another one missing; among the
    branches of a union the one that got furthest is what the user meant.
    """
    details = error.errors(include_url=False)
    first = max(details, key=lambda d: (d["type"] == "extra_forbidden", len(d["loc"])))
    model, path, description = _locate(first["loc"])
    if first["type"] == "extra_forbidden":
        key, allowed = str(first["loc"][-1]), list(model.model_fields)
        path = f"{path}.{key}" if path else key
        return f"{path}: unknown key; allowed here: {', '.join(allowed)}{nearest(key, allowed)}"
    if first["type"] == "missing":
        return f"{path}: missing; it must be {description}"
    value = first["input"]
    if first["type"].startswith("union_tag"):
        kinds = list(_branches(Config.model_fields[path].annotation))
        return _tag_sentence(f"{path}.kind", first["ctx"].get("tag"), kinds)
    shown = json.dumps(value, default=str)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    hint = nearest(value, _choices(details)) if isinstance(value, str) else ""
    return f"{path}: {shown} is not allowed; it must be {description}{hint}"


def _tag_sentence(path: str, tag: str | None, kinds: Sequence[str]) -> str:
    """Says that the key which tells the kind of a section is missing or unknown."""
    allowed = f"it must be one of {', '.join(kinds)}"
    if tag is None:
        return f"{path}: missing; {allowed}"
    return f"{path}: {json.dumps(tag)} is not allowed; {allowed}{nearest(tag, kinds)}"


def _choices(details: Sequence[Any]) -> list[str]:
    """Returns the texts that would have been allowed."""
    expected = [detail.get("ctx", {}).get("expected", "") for detail in details]
    return [option for text in expected for option in text.split("'")[1::2]]


def _locate(loc: Sequence[str | int]) -> tuple[type[Section], str, str]:
    """Follows an error's location: the section, the dotted path, what is allowed there.

    Entries of the location that are no keys of the file (the branch of a union that was tried)
    are left out of the path.
    """
    model: type[Section] = Config
    path, description = "", "valid"
    branches: dict[str, type[Section]] = {}
    for part in loc:
        if part in branches:
            model, branches = branches[str(part)], {}
            continue
        field = model.model_fields.get(str(part))
        if isinstance(part, int):
            path += f"[{part}]"
        elif field is not None:
            path += f".{part}" if path else part
            description = field.description or description
            branches = _branches(field.annotation)
            model = _section(field.annotation) or model
    return model, path, description


def _branches(annotation: Any) -> dict[str, type[Section]]:
    """Returns the sections of a field's type that are told apart by their kind."""
    parts = getattr(annotation, "__args__", ())
    sections = [part for part in parts if isinstance(part, type) and issubclass(part, Section)]
    return {
        kind: section
        for section in sections
        if "kind" in section.model_fields
        for kind in get_args(section.model_fields["kind"].annotation)
    }


def _section(annotation: Any) -> type[Section] | None:
    """Returns the section class within a field's type, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = (_section(part) for part in getattr(annotation, "__args__", ()))
    return next((section for section in found if section), None)
