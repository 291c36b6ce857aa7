"""A perturbed double shear layer, of the Convolutional Neural Operator's benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.problems.base import PDE, Symmetries
from multigrid.problems.navier_stokes import velocity, vorticity_advection
from multigrid.problems.spectral import Resolution, Substeps
from multigrid.registry import register_problem
from multigrid.solvers.exponential_runge_kutta import ExponentialRungeKutta, FourierModes

VISCOSITY = 0.05


@register_problem("shear_layer")
@dataclass
class ShearLayer(PDE):
    """Incompressible flow of vanishing viscosity on the periodic unit square: u_x(0) to u_x(1).

    The flow starts as the divergence-free part of ``(U(x, y), 0)``,

        U = tanh(2 pi (z - 1/4) / rho) for z <= 1/2, else tanh(2 pi (3/4 - z) / rho),
        z = y - shift + delta sum_k a_k sin(2 pi k x - b_k),    k = 1..p,

    with a_k uniform on [0, 1] and b_k on [0, 2 pi]. After Raonic et al., Convolutional Neural
    Operators (arXiv 2302.01178), with rho = 0.1, and rho = 0.09, p = 12, shift = 0.25 out of
    distribution. Solved in vorticity form on N points along an axis with a spectral viscosity,

        w_t + u . grad w = (0.05 / N) Laplace(Q w),    Q = max(0, 1 - N / |k|^2),

    which leaves waves with |k| < sqrt(N) alone, and truncated to the waves of the grid.

    Args:
        thickness: The number rho.
        num_modes: The number p.
        perturbation: The number delta.
        shift: How far the layers are moved up.
        resolution: The number N; a grid that is finer is solved on itself.
        substeps: Steps of the integrator.
    """

    input_names = ("u_x",)
    output_names = ("u_x_next",)
    symmetries = Symmetries(shifts=True)
    periodic = True

    thickness: Annotated[float, Field(gt=0, le=1, description="a length in (0, 1]")] = 0.1
    num_modes: Annotated[int, Field(ge=1, le=64, description="a number of waves, 1 to 64")] = 10
    perturbation: Annotated[float, Field(ge=0, le=1, description="a length in [0, 1]")] = 0.025
    shift: Annotated[float, Field(ge=-1, le=1, description="a length in [-1, 1]")] = 0.0
    resolution: Resolution = 128
    substeps: Substeps = 256

    def check_grids(self, levels: Sequence[Grid]) -> None:
        """Checks that the grids are periodic."""
        if not levels[-1].is_open:
            raise UserError(
                f"levels[{len(levels) - 1}]: problem 'shear_layer' is periodic, which nodes with "
                f"both boundary points are not: the sizes of {levels[-1]} must be even"
            )

    def sample(
        self, grid: Grid, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws velocities along x at t = 0 ``[N, 1, *grid]`` and at t = 1, ``[N, 1, *grid]``."""
        modes = self.modes(grid)
        profiles = np.stack([self._profile(modes.grid, rng) for rng in rngs])[:, None]
        mean = profiles.mean(axis=(2, 3), keepdims=True)
        before, after = (
            modes.truncated(velocity(w, modes)[:, :1], grid) + mean
            for w in self.advance(profiles, modes)
        )
        return before, after

    def modes(self, grid: Grid) -> FourierModes:
        """Returns the Fourier modes of the grid to solve on."""
        n = max(self.resolution, *grid.shape)
        return FourierModes(Grid((n, n), "node", (1 / n, 1 / n)))

    def advance(self, profiles: np.ndarray, modes: FourierModes) -> tuple[np.ndarray, np.ndarray]:
        """Returns the modes ``[N, 1, *modes]`` of the vorticity at t = 0 and t = 1.

        Args:
            profiles: The U of the first velocities ``(U, 0)`` at the points, ``[N, 1, n, n]``.
            modes: The Fourier modes of these points.
        """
        n = modes.grid.shape[0]
        first = -modes.gradient[1] * modes.to_modes(profiles)
        squares = np.maximum(-modes.laplacian / (2 * np.pi) ** 2, 1)
        symbol = VISCOSITY / n * np.maximum(0, 1 - n / squares) * modes.laplacian
        mean = profiles.mean(axis=(2, 3), keepdims=True)
        advection = vorticity_advection(modes, np.concatenate([mean, 0 * mean], axis=1))
        flow = ExponentialRungeKutta(
            symbol[None], lambda w: -advection(w), modes, 1 / self.substeps
        )
        return first, modes.to_modes(flow.advance(modes.to_points(first), self.substeps))

    def _profile(self, grid: Grid, rng: np.random.Generator) -> np.ndarray:
        """Returns U, ``[*grid]``."""
        x, y = grid.axes()
        a, b = rng.uniform(0, 1, self.num_modes), rng.uniform(0, 2 * np.pi, self.num_modes)
        k = np.arange(1, self.num_modes + 1)
        moved = self.perturbation * (np.sin(2 * np.pi * np.outer(x, k) - b) @ a)
        z = y - self.shift + moved[:, None]
        z -= np.floor(z) * (self.shift != 0)
        lower, upper = (np.tanh(2 * np.pi * d / self.thickness) for d in (z - 0.25, 0.75 - z))
        return np.where(z <= 0.5, lower, upper)
