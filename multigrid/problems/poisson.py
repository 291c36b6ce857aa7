"""Elliptic problems; Poisson's equation with random right-hand sides and exact solutions."""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from multigrid.grid import Grid
from multigrid.problems.base import PDE, Generators, Pair, SpaceDimensions, Symmetries
from multigrid.problems.series import (
    InverseLength,
    SineModes,
    SineSeries,
    Smoothness,
    sine_series,
    squares,
)
from multigrid.registry import register_problem
from multigrid.solvers.finite_volumes import apply_diffusion, equations


class EllipticPDE(PDE):
    """-div(a grad u) = f on the unit box, u = 0 on its boundary.

    Both sides can be computed for any output, by the finite volumes of the solver.
    """

    @staticmethod
    @abstractmethod
    def terms(inputs: Any) -> tuple[Any, Any]:
        """Returns a and f, each ``[N, *grid]``, for input fields ``[N, in, *grid]``."""

    def discrete_equation(self, inputs: Any, outputs: Any, grid: Grid) -> tuple[Any, Any]:
        """Returns ``-div(a grad u)`` and f at all cells, or at all nodes but the outermost.

        The labels of Darcy flow satisfy the equation on the grid they were solved on; those of
        Poisson's, exact solutions, to second order in the spacing. Labels restricted to a coarser
        grid do not where a jumps: the residual of two phases is 50 % of f from 128x128 cells to
        64x64 (90 % for nodes), and pulls away from the labels; 6 % for log-normal permeability.
        """
        coefficient, source = self.terms(inputs)
        image = apply_diffusion(coefficient, outputs[:, 0], grid)
        return image, source[(slice(None), *equations(grid))]


class SinePoisson(SineSeries, EllipticPDE):
    """-Laplace(u) = f on the unit box, u = 0 on its boundary, f a sum of sines."""

    input_names = ("f",)
    output_names = ("u",)
    symmetries = Symmetries(
        reflections=True, rotations=True, linear=True, homogeneous=True, mode_shifts=True
    )

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

    def sample(self, grid: Grid, rngs: Generators) -> Pair:
        """Draws right-hand sides and their solutions."""
        noise = np.stack([rng.standard_normal(self._amplitudes.shape) for rng in rngs])
        f = self._amplitudes * noise
        return sine_series(f, grid), sine_series(f / self._eigenvalues, grid)

    @cached_property
    def _eigenvalues(self) -> np.ndarray:
        return squares(np.pi * np.arange(1, self.num_modes + 1), self.ndim)

    @cached_property
    def _amplitudes(self) -> np.ndarray:
        spectrum = (self._eigenvalues + self.inverse_length**2) ** (-self.smoothness / 2)
        return spectrum / np.sqrt(np.sum(spectrum**2) / 2**self.ndim)


@register_problem("cno_poisson")
@dataclass
class CNOPoisson(SinePoisson):
    """-Laplace(u) = f on the unit square, u = 0 on its boundary, f a random multiscale field.

        f = (pi / K^2) sum_ij a_ij (i^2 + j^2)^(1/2) sin(pi i x) sin(pi j y)
        u = (1 / (pi K^2)) sum_ij a_ij (i^2 + j^2)^(-1/2) sin(pi i x) sin(pi j y)

    with i, j = 1..K = ``num_modes`` and a_ij uniform on [-1, 1]: the exact solution. After Raonic
    et al., Convolutional Neural Operators (arXiv 2302.01178): K = 16, 20 out of distribution.
    """

    num_modes: SineModes = 16

    def sample(self, grid: Grid, rngs: Generators) -> Pair:
        """Draws right-hand sides and their solutions."""
        k = np.arange(1, self.num_modes + 1)
        wavenumbers = np.hypot(k[:, None], k)
        a = np.stack([rng.uniform(-1, 1, wavenumbers.shape) for rng in rngs])
        f = sine_series(np.pi / self.num_modes**2 * a * wavenumbers, grid)
        return f, sine_series(a / wavenumbers / (np.pi * self.num_modes**2), grid)
