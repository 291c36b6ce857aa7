"""The sections ``levels``, ``data`` and ``problem`` of an experiment file."""

from collections.abc import Mapping
from functools import cache
from inspect import Parameter, isclass, signature
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_type_hints

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    model_validator,
)

from multigrid.config.section import (
    Count,
    FileName,
    Fraction,
    Names,
    Positive,
    Section,
    Size,
    context,
    sentence,
)
from multigrid.config.yaml_file import KINDS
from multigrid.errors import UserError, nearest
from multigrid.problems import PDE, Symmetries


class LevelConfig(Section):
    """One level of the ladder."""

    grid: Size | list[Size]
    """a number of points, or a list with one for each axis"""
    samples: Positive | None = None
    """a positive number of training samples, at most data.train"""


class TimeConfig(Section):
    """How samples are made of the trajectories in the user's files."""

    stride: Positive = 1
    """a positive number n: every n-th state is used"""
    history: int = Field(1, ge=1, le=100)
    """the number of successive states in an input, 1 to 100"""
    target: Literal["state", "delta"] = "state"
    """'state' (the next one) or 'delta' (its difference from the last)"""
    start: int = Field(0, ge=0)
    """the number of the first state that is used"""
    end: int | None = Field(None, ge=1)
    """the number of the first state that is not used any more, or null"""
    trajectory: Positive | None = None
    """the number of successive pairs of one trajectory, in files of pairs, or null"""


class DataConfig(Section):
    """What is generated or read, and how it is presented to the network."""

    folder: FileName = "data"
    """the name of a folder"""
    centering: Literal["auto", "cell", "node", "closed", "open"] = "cell"
    """'cell' (coarse fields are averages), 'closed' (nodes with both boundary points, every second
    point), 'open' (without the right one), 'node' ('closed' for odd sizes, 'open' for even ones) or
    'auto' (as files of several grids nest, else as a file says, else 'node' for odd sizes)"""
    train: Count = 1024
    """the number of training samples, 1 to 10^8"""
    validation: Count = 128
    """the number of validation samples, 1 to 10^8"""
    test: Count = 128
    """the number of test samples, 1 to 10^8"""
    seed: int = Field(0, ge=0)
    """a whole number of at least 0"""
    extra_tests: dict[str, dict[str, Any]] = {}
    """a mapping from names to settings of the problem that are changed for a further test set, as
    in {hard: {num_modes: 20}}"""
    rollout_steps: int = Field(0, ge=0, le=10_000)
    """the time steps over which the surrogate is rolled out in the test, 0 for none"""
    time: TimeConfig = TimeConfig()
    augmentation: Literal["auto", "none"] = "auto"
    """'auto' (what the problem declares exact) or 'none'"""
    mode_shifts: Fraction = 0.0
    """a number from 0 to 1: how often augmentation superposes samples with their sine modes moved
    up, for inputs with shorter waves than those of the samples"""
    noise: float = Field(0.0, ge=0, le=10)
    """a number of at least 0: the noise on training inputs, over a field's standard deviation"""
    normalization: Literal["auto", "none", "gaussian", "min-max"] = "auto"
    memory: Literal["auto", "hold", "stream"] = "auto"
    """'auto' (hold the training samples of a level if they take at most half of the memory), 'hold'
    (in memory) or 'stream' (from disk)"""


def _beside(name: str, info: ValidationInfo) -> str:
    """Returns the name of a data file, which may lie beside the experiment file, in a folder."""
    here, place, folder = Path(), Path(name), context(info, "folder")
    if folder is None or "://" in name or place.is_absolute() or folder.resolve() == here.resolve():
        return name
    for start, found in ((here, name), (folder, str(folder / place))):
        if (start / place).exists() or any(start.glob(str(place))):
            return found
    siblings = [str(p.relative_to(f)) for f in (here, folder) for p in f.glob(f"*{place.suffix}")]
    raise ValueError(
        f"there is no '{name}', neither in the working directory, {here.resolve()}, nor beside the "
        f"experiment file, in {folder}{nearest(name, siblings)}"
    )


DataFileName = Annotated[FileName, AfterValidator(_beside)]


class FileEntryConfig(Section):
    """One of several data files."""

    file: DataFileName
    """the name of a data file or a folder, or a pattern of names"""
    split: Literal["train", "validation", "test"] | None = None
    """'train', 'validation' or 'test', or null for what no other file is for"""


def _spaced(axes: str) -> str:
    letters = axes.replace(" ", "").replace(",", "").upper()
    twice = any(letters.count(letter) > 1 for letter in letters if letter != "C")
    if not letters or set(letters) - set("NTCXYZ") or twice:
        raise UserError(
            f"problem.axes: '{axes}' must name each axis once, with the letters N, T, C, X, Y, Z "
            "(N samples or trajectories, T time steps, C channels, X Y Z space)"
        )
    return " ".join(letters)


Axes = Annotated[str, AfterValidator(_spaced)]


class ReaderOptions(Section):
    """What the user says about data files."""

    reader: str = Field("auto", min_length=1)
    """'auto' or the name of a reader"""
    ndim: int | None = Field(None, ge=1, le=3)
    """the number of space dimensions, 1 to 3"""
    input: Names | None = None
    """the name of the input array, or a list of such names"""
    output: Names | None = None
    """the name of the output array, or a list of such names, or the second file of a .npy pair; the
    input's name for trajectories"""
    fields: Names | None = Field(None, min_length=1)
    """a list of the time-dependent fields to take, or null"""
    axes: Axes | dict[str, Axes] | None = None
    """what the axes of arrays are, as in 'N T C X Y', or that for each array, as in {u: N T X Y,
    mask: X Y}"""
    parameters: Names = []
    """a list of scalars of each trajectory or file that become constant input channels"""
    input_channels: Names | None = Field(None, min_length=1)
    """a list of the input channels to keep, or null for all"""
    output_channels: Names | None = Field(None, min_length=1)
    """a list of the output channels to keep, or null for all"""
    mask: str | None = None
    """the name of an input channel that is zero where fields mean nothing: there they may be NaN,
    count as zero, are predicted as zero and add to no error; or null"""
    noncartesian: bool = False
    """true or false: whether to take other grids as if they were Cartesian"""
    reduced_resolution: Positive = 1
    """a positive number n: every n-th point along each axis is kept"""

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "ReaderOptions":
        """Returns what the arguments of a command say."""
        given = {key: value for key in cls.model_fields if (value := arguments.get(key))}
        try:
            return cls(**given)
        except ValidationError as error:
            raise UserError(sentence(error, cls, "problem")) from None

    @property
    def named(self) -> bool:
        """Whether the user names arrays."""
        return bool(self.input or self.output)


class FileConfig(ReaderOptions):
    """Samples from the user's files; ``multigrid inspect FILE`` writes this."""

    kind: Literal["file"]
    file: DataFileName | None = None
    """the name of a data file, a folder of files alike, or a pattern of names; one that is not
    absolute is looked for in the working directory, then beside the experiment file"""
    files: list[DataFileName | FileEntryConfig] | None = Field(None, min_length=1)
    """a list of data files, each a name as in 'file' or {file: ..., split: ...}; of several grids a
    level uses its own, else the next finer one restricted"""
    ndim: int = Field(2, ge=1, le=3)
    """the number of space dimensions, 1 to 3"""
    symmetries: list[
        Literal[
            "reflections", "rotations", "linear", "homogeneous", "odd", "shifts", "translations"
        ]
    ] = []
    """a list of what is exact: 'reflections', 'rotations', 'linear', 'homogeneous', 'odd', 'shifts'
    or 'translations'"""

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.file is None) == (self.files is None):
            raise ValueError("give either 'file' or 'files'")
        return self

    def entries(self) -> list[FileEntryConfig]:
        """Returns the files, whether named by ``file`` or ``files``."""
        named = [self.file] if self.file is not None else self.files or []
        return [FileEntryConfig(file=n) if isinstance(n, str) else n for n in named]

    def exact(self) -> Symmetries:
        """Returns what ``symmetries`` lists."""
        listed: dict[str, Any] = dict.fromkeys(self.symmetries, True)
        return Symmetries(**listed)


@cache
def problem_section(problem: type[PDE]) -> type[Section]:
    """Returns the section that the constructor of a PDE defines by its annotated parameters."""
    if not (isclass(problem) and issubclass(problem, PDE)):
        raise UserError(f"problem.kind: {problem!r} is registered, but is no subclass of PDE")
    if missing := ", ".join(sorted(problem.__abstractmethods__)):
        raise UserError(f"problem.kind: the class {problem.__name__} has no method {missing}")
    hints = get_type_hints(problem.__init__, include_extras=True)
    fields: dict[str, Any] = {"kind": (Literal[problem.kind], ...)}
    for name, parameter in signature(problem).parameters.items():
        variable = parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        if name in fields or name not in hints or variable:
            raise UserError(
                f"problem.kind: the constructor of {problem.__name__} has a parameter '{name}'; "
                "each needs a type and a name other than 'kind'"
            )
        default = ... if parameter.default is Parameter.empty else parameter.default
        hint = hints[name]
        fields[name] = hint, Field(default, description=KINDS[hint]) if hint in KINDS else default
    section: type[Section] = create_model(
        f"{problem.__name__}Config", __base__=Section, __doc__=problem.__doc__, **fields
    )
    return section
