"""Poisson's equation with a random right-hand side and an exact solution."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from multigrid.grid import Centering, Grid
from multigrid.problems.base import Symmetries
from multigrid.problems.elliptic import EllipticPDE


class Poisson(EllipticPDE):
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

    kind = "poisson"
    version = 1
    input_names = ("f",)
    output_names = ("u",)
    symmetries = Symmetries(
        reflections=True, rotations=True, linear=True, homogeneous=True, mode_shifts=True
    )

    def __init__(
        self,
        ndim: int = 2,
        smoothness: float = 2.0,
        inverse_length: float = 3.0,
        num_modes: int = 64,
    ) -> None:
        self.ndim = ndim
        self.smoothness = smoothness
        self.inverse_length = inverse_length
        self.num_modes = num_modes
        k = np.pi * np.arange(1, num_modes + 1)
        self._eigenvalues = sum(np.meshgrid(*[k**2] * ndim, indexing="ij", sparse=True))
        spectrum = (self._eigenvalues + inverse_length**2) ** (-smoothness / 2)
        self._amplitudes = spectrum / np.sqrt(np.sum(spectrum**2) / 2**ndim)

    def sample(
        self, grid: Grid, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws right-hand sides ``[N, 1, *grid]`` and their solutions ``[N, 1, *grid]``."""
        noise = np.stack([rng.standard_normal(self._amplitudes.shape) for rng in rngs])
        coefficients = self._amplitudes * noise
        f = sine_series(coefficients, grid)
        u = sine_series(coefficients / self._eigenvalues, grid)
        return f[:, None], u[:, None]

    @staticmethod
    def terms(inputs: Any) -> tuple[Any, Any]:
        """Returns 1 and f."""
        f = inputs[:, 0]
        return 0 * f + 1, f


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
