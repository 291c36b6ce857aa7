"""Incompressible flow in a periodic square: vorticity in time, and a double shear layer."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from multigrid.grid import Grid
from multigrid.problems.base import PDE, Generators, Pair, Symmetries
from multigrid.problems.periodic import (
    FirstStart,
    NumStarts,
    PeriodicModes,
    Resolution,
    SpectralPDE,
    Substeps,
    TimeStep,
    Viscosity,
    in_groups,
)
from multigrid.registry import register_problem
from multigrid.solvers.exponential_runge_kutta import ExponentialRungeKutta, FourierModes, Term

SPECTRAL_VISCOSITY = 0.05
Strength = Annotated[float, Field(ge=0, le=100, description="a number in [0, 100]")]


@register_problem("navier_stokes")
@dataclass
class NavierStokes(SpectralPDE):
    """The Navier-Stokes equations for the vorticity w on the periodic unit square.

        w_t + u . grad w = nu Laplace(w) - r w + f,    u = (psi_y, -psi_x),  -Laplace(psi) = w

    ``diagonal`` is the forcing of Li et al., Fourier Neural Operator (arXiv 2010.08895),
    ``f = A (sin(2 pi (x + y)) + cos(2 pi (x + y)))``; ``kolmogorov`` that of a shear flow,
    ``f = -A cos(2 pi k y)``, with drag r as a rule; without forcing the flow decays. nu is
    ``viscosity``, A ``amplitude``, k ``wavenumber`` and r ``drag``.

    The first state is their Gaussian field N(0, s^2 (-Laplace + 49)^-2.5) without its mean. What
    they state is s^2 = 7^1.5, their program has s^2 = 2 * 7^3, the default: a vorticity of standard
    deviation 0.262, ``std``. For their block of ten states in and ten out: ``num_states: 10``,
    ``first_start: 1``, ``num_starts: 1``, ``time_step: 1``, ``resolution: 256``, ``substeps: 128``.

    Products are freed of aliasing by the two-thirds rule. Vorticity changes its sign when it is
    mirrored. With a force it is mirrored and moved such that the force stays as it is.
    """

    fields = ("w",)

    viscosity: Viscosity = 1e-4
    forcing: Annotated[
        Literal["none", "diagonal", "kolmogorov"],
        Field(description="'none', 'diagonal' or 'kolmogorov'"),
    ] = "diagonal"
    amplitude: Strength = 0.1
    wavenumber: Annotated[int, Field(ge=1, le=64, description="the k of kolmogorov, 1 to 64")] = 4
    drag: Strength = 0.0
    std: Annotated[float, Field(gt=0, le=1000, description="a vorticity in (0, 1000]")] = 0.262
    num_modes: PeriodicModes = 32
    time_step: TimeStep = 1.0
    substeps: Substeps = 64
    num_starts: NumStarts = 20
    first_start: FirstStart = 1
    num_states: Annotated[
        int,
        Field(ge=1, le=100, description="the states in the input and in the output, 1 to 100"),
    ] = 1
    resolution: Resolution = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        forces = {
            "none": None,
            "diagonal": ((1, 1), np.pi / 4),
            "kolmogorov": ((0, self.wavenumber), np.pi),
        }
        self.symmetries = Symmetries(
            reflections=True,
            rotations=self.forcing != "kolmogorov",
            shifts=True,
            mirror_signs=(-1, -1),
            force=forces[self.forcing],
        )

    def symbol(self, modes: FourierModes) -> np.ndarray:
        """Returns ``nu Laplace - r``."""
        return (self.viscosity * modes.laplacian - self.drag)[None]

    def nonlinear(self, modes: FourierModes) -> Term:
        """Returns ``-u . grad w + f``."""
        advection, force = vorticity_advection(modes), modes.to_modes(self._force(modes.grid))
        return lambda w: force - advection(w)

    def first_states(self, grid: Grid, rngs: Generators) -> np.ndarray:
        """Draws Gaussian fields."""
        return self.std * self.smooth_fields(grid, rngs, 2.5, 7.0)[:, None]

    def _force(self, grid: Grid) -> np.ndarray:
        """Returns f, ``[1, 1, *grid]``."""
        x, y = np.meshgrid(*grid.axes(), indexing="ij")
        waves = {
            "none": 0 * x,
            "diagonal": np.sin(2 * np.pi * (x + y)) + np.cos(2 * np.pi * (x + y)),
            "kolmogorov": -np.cos(2 * np.pi * self.wavenumber * y),
        }
        return self.amplitude * waves[self.forcing][None, None]


def velocity(modes: FourierModes) -> np.ndarray:
    """Returns what the modes of w are multiplied by to give ``(psi_y, -psi_x)``, ``[2, *modes]``.

    The mean velocity, of which the vorticity does not know, is zero then.
    """
    dx, dy = modes.gradient
    return np.stack([-dy * modes.inverse_laplacian, dx * modes.inverse_laplacian])


def vorticity_advection(modes: FourierModes, mean: np.ndarray | float = 0.0) -> Term:
    """Returns the map from the modes of w, ``[N, 1, *modes]``, to those of ``u . grad w``.

    For a velocity (u, v) without divergence this is, with two transforms less,
    ``(d_xx - d_yy) u v + d_xy (v^2 - u^2)``, see Basdevant, J. Comput. Phys. 50 (1983). The mean
    velocity is to be broadcast over ``[N, 2, *grid]``.
    """
    dx, dy = modes.gradient
    symbols = modes.resolved * np.stack([dx**2 - dy**2, dx * dy])
    of_velocity = velocity(modes)

    def advection(w: np.ndarray) -> np.ndarray:
        u, v = (modes.to_points(of_velocity * w) + mean).swapaxes(0, 1)
        products = modes.to_modes(np.stack([u * v, v * v - u * u], axis=1))
        return np.sum(symbols * products, axis=1, keepdims=True)

    return advection


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

    which leaves waves with |k| < sqrt(N) alone, and truncated to the waves of the grid. rho is
    ``thickness``, p ``num_modes``, delta ``perturbation`` and N ``resolution``, or the size of a
    finer grid.

    N = 128, 0.05 / N and sqrt(N) are those of the authors' solver (Herde et al., Poseidon, arXiv
    2405.19101, B.1). Q is the least that their condition for convergence allows; theirs is
    ``1 - exp(-(|k| / k_0)^alpha)`` with constants that they do not state. Their program scales
    inputs by +-1.431 and outputs by -2.038 and 2.060. Here 750 inputs lie within +-1.417, and 48
    outputs within -1.957 and 1.908.
    """

    input_names = ("u_x",)
    output_names = ("u_x_next",)
    symmetries = Symmetries(reflections=True, shifts=True, mirror_signs=(-1, 1))
    periodic = True

    thickness: Annotated[float, Field(gt=0, le=1, description="a length in (0, 1]")] = 0.1
    num_modes: Annotated[int, Field(ge=1, le=64, description="the number p, 1 to 64")] = 10
    perturbation: Annotated[float, Field(ge=0, le=1, description="a length in [0, 1]")] = 0.025
    shift: Annotated[float, Field(ge=-1, le=1, description="a length in [-1, 1]")] = 0.0
    resolution: Resolution = 128
    substeps: Substeps = 256

    def sample(self, grid: Grid, rngs: Generators) -> Pair:
        """Draws velocities along x at t = 0 and at t = 1."""
        modes = self.modes(grid)

        def draw(some: Generators) -> np.ndarray:
            profiles = np.stack([self._profile(modes.grid, rng) for rng in some])[:, None]
            mean = profiles.mean(axis=(2, 3), keepdims=True)
            states = [
                modes.truncated((velocity(modes) * w)[:, :1], grid) + mean
                for w in self.advance(profiles, modes)
            ]
            return np.stack(states, axis=1)

        first, last = in_groups(draw, modes.grid.size, rngs).swapaxes(0, 1)
        return first, last

    def modes(self, grid: Grid) -> FourierModes:
        """Returns the Fourier modes of the grid to solve on."""
        n = max(self.resolution, *grid.shape)
        return FourierModes(Grid((n, n), "node", (1 / n, 1 / n)))

    def advance(self, profiles: np.ndarray, modes: FourierModes) -> tuple[np.ndarray, np.ndarray]:
        """Returns the modes of the vorticity at t = 0 and t = 1 for profiles U ``[N, 1, n, n]``."""
        n = modes.grid.shape[0]
        first = -modes.gradient[1] * modes.to_modes(profiles)
        squares = np.maximum(-modes.laplacian / (2 * np.pi) ** 2, 1)
        symbol = SPECTRAL_VISCOSITY / n * np.maximum(0, 1 - n / squares) * modes.laplacian
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
