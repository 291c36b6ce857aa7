"""The section ``problem``: one class for each kind."""

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from multigrid.config.section import Positive, Section


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
    kind: Literal["darcy", "darcy_lognormal", "poisson_two_phase"]
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
        1e-6, ge=1e-12, le=1e-2, description="the solver's relative error, 1e-12 to 0.01"
    )


class _TwoPhaseConfig(_DarcyConfig):
    kind: Literal["darcy", "poisson_two_phase"]
    high: float = Field(12.0, gt=0, le=1e3, description="a permeability in (0, 1000]")
    low: float = Field(3.0, gt=0, le=1e3, description="a permeability in (0, 1000]")


class TwoPhaseDarcyConfig(_TwoPhaseConfig):
    """-div(a grad u) = 1, u = 0 on the boundary, a piecewise constant."""

    kind: Literal["darcy"]


class TwoPhasePoissonConfig(_TwoPhaseConfig):
    """-Laplace(u) = 1/a, u = 0 on the boundary, a piecewise constant; to train on before Darcy."""

    kind: Literal["poisson_two_phase"]


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
        10, ge=1, le=10_000, description="the integrator's steps within time_step, 1 to 10000"
    )
    num_modes: int = Field(
        8, ge=1, le=64, description="the highest mode of the first state, 1 to 64"
    )


class FileEntryConfig(Section):
    """One of several data files."""

    file: str = Field(min_length=1, description="the name of a data file")
    split: Literal["train", "validation", "test"] | None = Field(
        None, description="'train', 'validation' or 'test', or null for what no other file is for"
    )


class FileConfig(Section):
    """Samples from the user's own files; ``multigrid inspect FILE`` writes this."""

    kind: Literal["file"]
    file: str | None = Field(None, min_length=1, description="the name of a data file")
    files: list[str | FileEntryConfig] | None = Field(
        None,
        min_length=1,
        description="a list of data files, each a name or {file: ..., split: ...}; of several "
        "grids a level uses its own, else the next finer one restricted",
    )
    ndim: int = Field(2, ge=2, le=3, description="the number of space dimensions, 2 or 3")
    reader: Literal[
        "auto", "store", "well", "pdebench", "cno", "hdf5", "npz", "npy", "neuraloperator"
    ] = Field(
        "auto",
        description="'auto', 'store', 'well', 'pdebench', 'cno', 'hdf5', 'npz', 'npy' or "
        "'neuraloperator'",
    )
    input: str | None = Field(None, min_length=1, description="the name of the input array")
    output: str | None = Field(
        None,
        min_length=1,
        description="the name of the output array, or of the second file of a .npy pair",
    )
    fields: list[str] | None = Field(
        None, min_length=1, description="a list of the time-dependent fields to take, or null"
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
        """Returns the files, whichever way they are named."""
        named = [self.file] if self.file is not None else self.files or []
        return [FileEntryConfig(file=n) if isinstance(n, str) else n for n in named]

    def flags(self) -> dict[str, Any]:
        """Returns the symmetries as keyword arguments."""
        return {str(name): True for name in self.symmetries}


ProblemConfig: TypeAlias = Annotated[
    PoissonConfig
    | CNOPoissonConfig
    | TwoPhaseDarcyConfig
    | LognormalDarcyConfig
    | TwoPhasePoissonConfig
    | DiffusionConfig
    | ReactionDiffusionConfig
    | FileConfig,
    Field(discriminator="kind"),
]
