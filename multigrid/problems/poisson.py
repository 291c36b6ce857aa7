"""Poisson's equation with a random right-hand side and an exact solution."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from multigrid.errors import UserError
from multigrid.grid import Centering, Grid
from multigrid.problems.base import SpaceDimensions, Symmetries
from multigrid.problems.elliptic import EllipticPDE
from multigrid.problems.random_fields import InverseLength, Smoothness
from multigrid.registry import register_problem

SineModes = Annotated[
    int, Field(ge=1, le=1024, description="the number of sine modes along each axis, 1 to 1024")
]


class SinePoisson(EllipticPDE):
    """-Laplace(u) = f on the unit box, u = 0 on its boundary, f a sum of sines."""

    input_names = ("f",)
    output_names = ("u",)
    symmetries = Symmetries(
        reflections=True, rotations=True, linear=True, homogeneous=True, mode_shifts=True
    )
    num_modes: int

    def check_grids(self, levels: Sequence[Grid]) -> None:
        """Checks that the points of the finest level tell the modes apart."""
        check_modes(self.num_modes, levels[-1])

    @staticmethod
    def terms(inputs: Any) -> tuple[Any, Any]:
        """Returns 1 and f."""
        f = inputs[:, 0]
        return 0 * f + 1, f


@register_problem("poisson")
@dataclass
class Poisson(SinePoisson):
    """-Laplace(u) = f on the unit box, u = 0 on its boundary.

    f is the Gaussian random field N(0, (-Laplace + tau^2)^-alpha), normalised to a pointwise
    variance of order one, in its sine series cut after ``num_modes`` terms along each axis. Then

        f = sum_k f_k prod_d sin(pi k_d x_d),    u = sum_k f_k / (pi^2 |k|^2) prod_d sin(pi k_d x_d)

    is the exact solution of the differential equation, evaluated at the points of the grid, which
    are cell centres, or nodes with the boundary points where u and f vanish.

    Args:
        ndim: Number of space dimensions.
        smoothness: The exponent alpha.
        inverse_length: The parameter tau.
        num_modes: Number of sine modes along each axis.
    """

    ndim: SpaceDimensions = 2
    smoothness: Smoothness = 2.0
    inverse_length: InverseLength = 3.0
    num_modes: SineModes = 64

    def sample(
        self, grid: Grid, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws right-hand sides ``[N, 1, *grid]`` and their solutions ``[N, 1, *grid]``."""
        noise = np.stack([rng.standard_normal(self._amplitudes.shape) for rng in rngs])
        coefficients = self._amplitudes * noise
        f = sine_series(coefficients, grid)
        u = sine_series(coefficients / self._eigenvalues, grid)
        return f[:, None], u[:, None]

    @cached_property
    def _eigenvalues(self) -> np.ndarray:
        k = np.pi * np.arange(1, self.num_modes + 1)
        return sum(np.meshgrid(*[k**2] * self.ndim, indexing="ij", sparse=True))  # type: ignore[return-value]

    @cached_property
    def _amplitudes(self) -> np.ndarray:
        spectrum = (self._eigenvalues + self.inverse_length**2) ** (-self.smoothness / 2)
        return spectrum / np.sqrt(np.sum(spectrum**2) / 2**self.ndim)


def check_modes(num_modes: int, grid: Grid) -> None:
    """Checks that the points of a grid tell apart some number of sines.

    Raises:
        UserError: If there are fewer points than modes along an axis.
    """
    limit = min(grid.shape)
    if num_modes > limit:
        raise UserError(
            f"problem.num_modes: {num_modes} sine modes need more than the {limit} points of the "
            f"finest level; at most {limit} are allowed"
        )


def sine_series(coefficients: np.ndarray, grid: Grid) -> np.ndarray:
    """Evaluates ``sum_k c_k prod_d sin(pi k_d x_d)`` on a grid.

    Args:
        coefficients: Array ``[N, K_1, ..., K_d]`` of the modes 1..K along each axis.
        grid: Grid in d dimensions.

    Returns:
        Array ``[N, *grid]``.
    """
    values = coefficients
    for n, h, num_modes in zip(grid.shape, grid.spacing, coefficients.shape[1:], strict=True):
        basis = _sine_basis(n, h, grid.centering, num_modes)
        values = np.tensordot(values, basis, axes=(1, 1))
    return values


@lru_cache(maxsize=16)
def _sine_basis(n: int, spacing: float, centering: Centering, num_modes: int) -> np.ndarray:
    (x,) = Grid((n,), centering, (spacing,)).axes()
    return np.sin(np.pi * np.outer(x, np.arange(1, num_modes + 1)))
