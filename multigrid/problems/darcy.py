"""Darcy flow through random media, and Poisson's equation with such a medium as its source."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.problems.base import Generators, Pair, SpaceDimensions, Symmetries, Tolerance
from multigrid.problems.poisson import EllipticPDE
from multigrid.problems.series import CosineModes, InverseLength, Smoothness, gaussian_fields
from multigrid.registry import register_problem
from multigrid.solvers.finite_volumes import closed_axes, solve_diffusion

Permeability = Annotated[float, Field(gt=0, le=1e3, description="a permeability in (0, 1000]")]
LogStd = Annotated[
    float, Field(gt=0, le=3, description="the standard deviation of log(a), in (0, 3]")
]
MAX_TERMS = 2**24


@dataclass
class DarcyFlow(EllipticPDE):
    """-div(a grad u) = 1 on the unit box, u = 0 on its boundary, a made of a Gaussian field.

    Solved with finite volumes on the requested grid, cell-centred or node-centred, to which
    the declared symmetries apply exactly. The Gaussian field is the same on any grid.
    """

    input_names = ("a",)
    output_names = ("u",)
    symmetries = Symmetries(reflections=True, rotations=True)
    is_smooth = False

    ndim: SpaceDimensions = 2
    smoothness: Smoothness = 2.0
    inverse_length: InverseLength = 3.0
    num_modes: CosineModes = 64
    tolerance: Tolerance = 1e-6

    def sample(self, grid: Grid, rngs: Generators) -> Pair:
        """Draws permeabilities and the pressures they give."""
        field = gaussian_fields(
            closed_axes(grid), rngs, "cosine", self.smoothness, self.inverse_length, self.num_modes
        )
        a = self.permeability(field)
        coefficient, source = self.terms(a[:, None])
        on_grid = (slice(None), *(slice(n) for n in grid.shape))
        solution = solve_diffusion(
            coefficient, source[on_grid], grid, self.tolerance, self.is_smooth
        )
        return a[on_grid][:, None], solution.values[:, None]

    def check_grids(self, levels: Sequence[Grid]) -> None:
        """Checks that the series of the field is short enough to be summed."""
        if (self.num_modes + 1) ** self.ndim > MAX_TERMS:
            limit = round(MAX_TERMS ** (1 / self.ndim)) - 1
            raise UserError(
                f"problem.num_modes: {self.num_modes} modes along each of {self.ndim} axes are too "
                f"many; at most {limit} are allowed"
            )

    @staticmethod
    def terms(inputs: Any) -> tuple[Any, Any]:
        """Returns the permeability and 1."""
        a = inputs[:, 0]
        return a, 0 * a + 1

    @abstractmethod
    def permeability(self, field: np.ndarray) -> np.ndarray:
        """Returns the permeability for the values of a Gaussian field of unit variance."""


@register_problem("darcy")
@dataclass
class TwoPhaseDarcy(DarcyFlow):
    """Darcy flow through two phases, after Li et al., FNO (arXiv 2010.08895): 12 and 3.

    The permeability is ``high`` where the Gaussian field is not negative, else ``low``.
    """

    high: Permeability = 12.0
    low: Permeability = 3.0

    def permeability(self, field: np.ndarray) -> np.ndarray:
        """Returns ``high`` or ``low``."""
        return np.where(field >= 0, self.high, self.low)


@register_problem("poisson_two_phase")
@dataclass
class TwoPhasePoisson(TwoPhaseDarcy):
    """-Laplace(u) = 1/a on the unit box, u = 0 on its boundary, a as in two-phase Darcy flow.

    This is ``-div(a grad u) = 1`` divided by a, if the jumps of a are ignored. A fast Poisson
    solve gives a sample, to the tolerance. For training before Darcy flow.
    """

    is_smooth = True

    @staticmethod
    def terms(inputs: Any) -> tuple[Any, Any]:
        """Returns 1 and the inverse of the permeability."""
        a = inputs[:, 0]
        return 0 * a + 1, 1 / a


@register_problem("darcy_lognormal")
@dataclass
class LognormalDarcy(DarcyFlow):
    """Darcy flow through a smooth medium, a = exp(sigma g), g Gaussian, sigma = ``log_std``."""

    is_smooth = True

    smoothness: Smoothness = 3.0
    log_std: LogStd = 1.0

    def permeability(self, field: np.ndarray) -> np.ndarray:
        """Returns ``exp(log_std * field)``."""
        return np.exp(self.log_std * field)
