"""Darcy flow through random media: two phases, or smooth log-normal permeability."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from multigrid.grid import Grid
from multigrid.problems.base import SpaceDimensions, Symmetries, Tolerance
from multigrid.problems.elliptic import EllipticPDE
from multigrid.problems.random_fields import (
    CosineModes,
    GaussianField,
    InverseLength,
    Smoothness,
    check_terms,
)
from multigrid.registry import register_problem
from multigrid.solvers.finite_volumes import closed_axes, solve_diffusion

Permeability = Annotated[float, Field(gt=0, le=1e3, description="a permeability in (0, 1000]")]
LogStd = Annotated[
    float, Field(gt=0, le=3, description="the standard deviation of log(a), in (0, 3]")
]


@dataclass
class DarcyFlow(EllipticPDE):
    """-div(a grad u) = 1 on the unit box, u = 0 on its boundary, a made of a Gaussian field.

    Solved with finite volumes on the requested grid, cell-centred or node-centred, to which
    the declared symmetries apply exactly. The Gaussian field is the same on any grid.

    Args:
        ndim: Number of space dimensions.
        smoothness: The exponent alpha of the field N(0, (-Laplace + tau^2)^-alpha).
        inverse_length: Its parameter tau.
        num_modes: Its highest cosine mode along each axis.
        tolerance: Relative error of the solver in the energy norm, roughly.
    """

    input_names = ("a",)
    output_names = ("u",)
    symmetries = Symmetries(reflections=True, rotations=True)

    ndim: SpaceDimensions = 2
    smoothness: Smoothness = 2.0
    inverse_length: InverseLength = 3.0
    num_modes: CosineModes = 64
    tolerance: Tolerance = 1e-6

    def sample(
        self, grid: Grid, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws permeabilities ``[N, 1, *grid]`` and the pressures ``[N, 1, *grid]`` they give."""
        a = self.permeability(self._field.sample(closed_axes(grid), rngs))
        source = np.ones((len(rngs), *grid.shape))
        u = solve_diffusion(a, source, grid, self.tolerance, self.is_smooth).values
        on_grid = a[(slice(None), *(slice(n) for n in grid.shape))]
        return on_grid[:, None], u[:, None]

    def check_grids(self, levels: Sequence[Grid]) -> None:
        """Checks that the series of the field can be summed."""
        check_terms(self.num_modes, self.ndim)

    @cached_property
    def _field(self) -> GaussianField:
        return GaussianField(
            self.ndim, "cosine", self.smoothness, self.inverse_length, self.num_modes
        )

    @staticmethod
    def terms(inputs: Any) -> tuple[Any, Any]:
        """Returns the permeability and 1."""
        a = inputs[:, 0]
        return a, 0 * a + 1

    @property
    @abstractmethod
    def is_smooth(self) -> bool:
        """Whether the permeability has no jumps."""

    @abstractmethod
    def permeability(self, field: np.ndarray) -> np.ndarray:
        """Returns the permeability for the values of a Gaussian field of unit variance."""


@register_problem("darcy")
@dataclass
class TwoPhaseDarcy(DarcyFlow):
    """Darcy flow through two phases, after Li et al., FNO (arXiv 2010.08895): 12 and 3.

    Args:
        ndim: As in ``DarcyFlow``.
        smoothness: As in ``DarcyFlow``.
        inverse_length: As in ``DarcyFlow``.
        num_modes: As in ``DarcyFlow``.
        tolerance: As in ``DarcyFlow``.
        high: Permeability where the field is not negative.
        low: Permeability where it is negative.
    """

    high: Permeability = 12.0
    low: Permeability = 3.0
    is_smooth = False

    def permeability(self, field: np.ndarray) -> np.ndarray:
        """Returns ``high`` where the field is not negative, else ``low``."""
        return np.where(field >= 0, self.high, self.low)


@register_problem("darcy_lognormal")
@dataclass
class LognormalDarcy(DarcyFlow):
    """Darcy flow through a smooth medium, a = exp(sigma g), g Gaussian of unit variance.

    Args:
        ndim: As in ``DarcyFlow``.
        smoothness: As in ``DarcyFlow``.
        inverse_length: As in ``DarcyFlow``.
        num_modes: As in ``DarcyFlow``.
        tolerance: As in ``DarcyFlow``.
        log_std: The standard deviation sigma of log(a).
    """

    smoothness: Smoothness = 3.0
    log_std: LogStd = 1.0
    is_smooth = True

    def permeability(self, field: np.ndarray) -> np.ndarray:
        """Returns ``exp(log_std * field)``."""
        return np.exp(self.log_std * field)
