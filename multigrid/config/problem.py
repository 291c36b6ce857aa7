"""The section ``problem``: the parameters of a PDE's constructor, or the user's files."""

from collections.abc import Mapping
from functools import cache
from inspect import Parameter, signature
from typing import Any, Literal, get_type_hints

from pydantic import Field, ValidationError, create_model

from multigrid.config.section import FileName, Positive, Section, plain, sentence, shown
from multigrid.errors import UserError, nearest
from multigrid.problems import PDE
from multigrid.registry import PROBLEMS

PLAIN = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class FileEntryConfig(Section):
    """One of several data files."""

    file: FileName = Field(description="the name of a data file or a folder, or a pattern of names")
    split: Literal["train", "validation", "test"] | None = Field(
        None, description="'train', 'validation' or 'test', or null for what no other file is for"
    )


class FileConfig(Section):
    """Samples from the user's own files; ``multigrid inspect FILE`` writes this."""

    kind: Literal["file"]
    file: FileName | None = Field(
        None,
        description="the name of a data file, a folder of files alike, or a pattern of names",
    )
    files: list[FileName | FileEntryConfig] | None = Field(
        None,
        min_length=1,
        description="a list of data files, each a name or {file: ..., split: ...}; of several "
        "grids a level uses its own, else the next finer one restricted",
    )
    ndim: int = Field(2, ge=1, le=3, description="the number of space dimensions, 1 to 3")
    reader: str = Field("auto", min_length=1, description="'auto' or the name of a reader")
    input: str | list[str] | None = Field(
        None, min_length=1, description="the name of the input array, or a list of such names"
    )
    output: str | list[str] | None = Field(
        None,
        min_length=1,
        description="the name of the output array, or a list of such names, or the second file of "
        "a .npy pair; the input's name for trajectories",
    )
    fields: list[str] | None = Field(
        None, min_length=1, description="a list of the time-dependent fields to take, or null"
    )
    axes: str | dict[str, str] | None = Field(
        None,
        min_length=1,
        description="what the axes of arrays are, as in 'N T C X Y', or that for each array, as "
        "in {u: N T X Y, mask: X Y}",
    )
    parameters: list[str] = Field(
        [],
        description="a list of scalars of each trajectory or file that become constant input "
        "channels",
    )
    input_channels: list[str] | None = Field(
        None, min_length=1, description="a list of the input channels to keep, or null for all"
    )
    output_channels: list[str] | None = Field(
        None, min_length=1, description="a list of the output channels to keep, or null for all"
    )
    noncartesian: bool = Field(
        False, description="true or false: whether to take other grids as if they were Cartesian"
    )
    reduced_resolution: Positive = Field(
        1, description="a positive number n: every n-th point along each axis is kept"
    )
    symmetries: list[Literal["reflections", "rotations", "linear", "homogeneous", "shifts"]] = (
        Field(
            [],
            description="a list of what is exact: 'reflections', 'rotations', 'linear', "
            "'homogeneous', 'shifts'",
        )
    )

    def entries(self) -> list[FileEntryConfig]:
        """Returns the files, whether named by ``file`` or ``files``."""
        named = [self.file] if self.file is not None else self.files or []
        return [FileEntryConfig(file=n) if isinstance(n, str) else n for n in named]

    def flags(self) -> dict[str, Any]:
        """Returns the symmetries as keyword arguments."""
        return {str(name): True for name in self.symmetries}


def parse_problem(raw: Any) -> Section:
    """Returns the section of a PDE or of files, with defaults filled in.

    Raises:
        UserError: If there is no such problem, or a value is not allowed.
    """
    if isinstance(raw, Section):
        return raw
    if not isinstance(raw, Mapping):
        raise UserError(
            f"problem: {shown(raw)} is not allowed; it must be a mapping with the key 'kind'"
        )
    kinds = (*PROBLEMS.names(), "file")
    allowed = f"it must be one of {', '.join(kinds)}"
    kind = raw.get("kind")
    if kind is None:
        raise UserError(f"problem.kind: missing; {allowed}")
    if kind not in kinds:
        raise UserError(
            f"problem.kind: {shown(kind)} is not allowed; {allowed}{nearest(kind, kinds)}"
        )
    model = FileConfig if kind == "file" else problem_section(PROBLEMS.get(kind))
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UserError(sentence(error, model, "problem")) from None


@cache
def problem_section(problem: type[PDE]) -> type[Section]:
    """Returns the section that the constructor of a PDE defines by its annotated parameters.

    Raises:
        UserError: If a parameter has no type, or a name that is taken.
    """
    hints = get_type_hints(problem.__init__, include_extras=True)
    fields: dict[str, Any] = {"kind": (Literal[problem.kind], ...)}
    for name, parameter in signature(problem).parameters.items():
        if (
            name in fields
            or name not in hints
            or parameter.kind
            in (
                Parameter.VAR_POSITIONAL,
                Parameter.VAR_KEYWORD,
            )
        ):
            raise UserError(
                f"problem.kind: the constructor of {problem.__name__} has a parameter '{name}'; "
                "each needs a type and a name other than 'kind'"
            )
        default = ... if parameter.default is Parameter.empty else parameter.default
        hint = hints[name]
        if hint in PLAIN:
            default = Field(default, description=PLAIN[hint])
        fields[name] = (hint, default)
    section: type[Section] = create_model(
        f"{problem.__name__}Config", __base__=Section, __doc__=problem.__doc__, **fields
    )
    return section


def register_handed_in(problem: PDE) -> dict[str, Any]:
    """Registers the class of a PDE that was handed in from Python and returns its section.

    Its kind is the attribute ``kind`` of its class, else the name of the class in small letters.

    Raises:
        UserError: If it is not a PDE, its name is taken, or it does not keep its parameters.
    """
    if not isinstance(problem, PDE):
        raise UserError(f"problem: must be an object of a subclass of PDE, not {problem!r}")
    cls = type(problem)
    kind = vars(cls).get("kind", cls.__name__.lower())
    PROBLEMS.register(kind)(cls)
    try:
        return {"kind": kind, **plain(problem.parameters)}
    except AttributeError as error:
        raise UserError(
            f"problem: {cls.__name__} must keep its constructor's parameters as attributes of the "
            f"same names: {error}"
        ) from None
