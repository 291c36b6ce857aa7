"""The section ``problem``: one class for each kind."""

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from multigrid.config.section import Section


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
        1e-6, ge=1e-12, le=1e-2, description="the solver's relative error, 1e-12 to 0.01"
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
        10, ge=1, le=10_000, description="the integrator's steps within time_step, 1 to 10000"
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
