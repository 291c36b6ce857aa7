"""Incompressible flow in a periodic square: vorticity in time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from multigrid.grid import Grid
from multigrid.problems.base import Symmetries
from multigrid.problems.random_fields import GaussianField
from multigrid.problems.spectral import (
    FirstStart,
    NumStarts,
    NumStates,
    PeriodicModes,
    Resolution,
    SpectralPDE,
    Substeps,
    TimeStep,
    Viscosity,
)
from multigrid.registry import register_problem
from multigrid.solvers.exponential_runge_kutta import FourierModes, Term

Forcing = Annotated[
    Literal["none", "diagonal", "kolmogorov"],
    Field(description="'none', 'diagonal' or 'kolmogorov'"),
]
Strength = Annotated[float, Field(ge=0, le=100, description="a number in [0, 100]")]


@register_problem("navier_stokes")
@dataclass
class NavierStokes(SpectralPDE):
    """The Navier-Stokes equations for the vorticity w on the periodic unit square.

        w_t + u . grad w = nu Laplace(w) - r w + f,    u = (psi_y, -psi_x),  -Laplace(psi) = w

    ``diagonal`` is the forcing of Li et al., Fourier Neural Operator (arXiv 2010.08895),
    ``f = A (sin(2 pi (x + y)) + cos(2 pi (x + y)))``; ``kolmogorov`` that of a shear flow,
    ``f = -A cos(2 pi k y)``, with drag r as a rule; without forcing the flow decays.

    The first state is their Gaussian field N(0, s^2 (-Laplace + 49)^-2.5) without its mean. What
    they state is s^2 = 7^1.5, their program has s^2 = 2 * 7^3, the default: a standard deviation
    of the vorticity of 0.262. For their block of ten states in and ten out: ``num_states: 10``,
    ``first_start: 1``, ``num_starts: 1``, ``time_step: 1``, ``resolution: 256``, ``substeps: 128``.

    Products are freed of aliasing by the two-thirds rule. Vorticity changes its sign when it is
    mirrored, so that shifts, without forcing, are the only symmetry that is made use of.

    Args:
        viscosity: The number nu.
        forcing: ``none``, ``diagonal`` or ``kolmogorov``.
        amplitude: The number A.
        wavenumber: The number k of ``kolmogorov``.
        drag: The number r.
        std: Standard deviation of the vorticity at t = 0.
        num_modes: Highest mode of the first state along each axis.
        time_step: Time between two states.
        substeps: Steps of the integrator within it.
        num_starts: Number of start times, of which one is drawn for each sample.
        first_start: The first of them, in time steps.
        num_states: Number of states in the input and in the output.
        resolution: Points along an axis that are solved on at least.
    """

    fields = ("w",)

    viscosity: Viscosity = 1e-4
    forcing: Forcing = "diagonal"
    amplitude: Strength = 0.1
    wavenumber: Annotated[int, Field(ge=1, le=64, description="a mode, 1 to 64")] = 4
    drag: Strength = 0.0
    std: Annotated[float, Field(gt=0, le=1000, description="a vorticity in (0, 1000]")] = 0.262
    num_modes: PeriodicModes = 32
    time_step: TimeStep = 1.0
    substeps: Substeps = 64
    num_starts: NumStarts = 20
    first_start: FirstStart = 1
    num_states: NumStates = 1
    resolution: Resolution = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        self.symmetries = Symmetries(shifts=self.forcing == "none")

    def symbol(self, modes: FourierModes) -> np.ndarray:
        """Returns ``nu Laplace - r``."""
        return (self.viscosity * modes.laplacian - self.drag)[None]

    def nonlinear(self, modes: FourierModes) -> Term:
        """Returns ``-u . grad w + f``."""
        advection, force = vorticity_advection(modes), modes.to_modes(self._force(modes.grid))
        return lambda w: force - advection(w)

    def first_states(self, grid: Grid, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Draws Gaussian fields."""
        return self.std * self._field.sample(grid.axes(), rngs)[:, None]

    def _force(self, grid: Grid) -> np.ndarray:
        """Returns f, ``[1, 1, *grid]``."""
        x, y = np.meshgrid(*grid.axes(), indexing="ij")
        waves = {
            "none": 0 * x,
            "diagonal": np.sin(2 * np.pi * (x + y)) + np.cos(2 * np.pi * (x + y)),
            "kolmogorov": -np.cos(2 * np.pi * self.wavenumber * y),
        }
        return self.amplitude * waves[self.forcing][None, None]

    @cached_property
    def _field(self) -> GaussianField:
        return GaussianField(2, "periodic", 2.5, 7.0, self.num_modes)


def velocity(w: np.ndarray, modes: FourierModes) -> np.ndarray:
    """Returns the velocity ``(psi_y, -psi_x)`` of the vorticity w, both as spectra.

    Args:
        w: Modes of the vorticity ``[N, 1, *modes]``.
        modes: The Fourier modes.

    Returns:
        Modes ``[N, 2, *modes]`` of the velocity without its mean, which w does not determine.
    """
    dx, dy = modes.gradient
    inverse = modes.inverse_laplacian
    return np.stack([-dy * inverse, dx * inverse]) * w


def vorticity_advection(modes: FourierModes, mean: np.ndarray | float = 0.0) -> Term:
    """Returns the map from the modes of w, ``[N, 1, *modes]``, to those of ``u . grad w``.

    For a velocity (u, v) without divergence this is, with two transforms less,
    ``(d_xx - d_yy) u v + d_xy (v^2 - u^2)``, see Basdevant, J. Comput. Phys. 50 (1983).

    Args:
        modes: The Fourier modes.
        mean: The mean velocity, to be broadcast over ``[N, 2, *grid]``.
    """
    dx, dy = modes.gradient
    symbols = modes.resolved * np.stack([dx**2 - dy**2, dx * dy])

    def advection(w: np.ndarray) -> np.ndarray:
        u, v = (modes.to_points(velocity(w, modes)) + mean).swapaxes(0, 1)
        products = modes.to_modes(np.stack([u * v, v * v - u * u], axis=1))
        return np.sum(symbols * products, axis=1, keepdims=True)

    return advection
