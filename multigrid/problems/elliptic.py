"""Elliptic problems: Poisson's equation with exact solutions, and flow through random media."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.problems.base import PDE, Generators, Pair, SpaceDimensions, Symmetries, Tolerance
from multigrid.problems.series import (
    CosineModes,
    InverseLength,
    SineModes,
    SineSeries,
    Smoothness,
    gaussian_fields,
    sine_series,
    squares,
)
from multigrid.registry import register_problem
from multigrid.solvers.finite_elements import solve_between_plates
from multigrid.solvers.finite_volumes import (
    apply_diffusion,
    closed_axes,
    equations,
    solve_diffusion,
)

Permeability = Annotated[float, Field(gt=0, le=1e3, description="a permeability in (0, 1000]")]
LogStd = Annotated[
    float, Field(gt=0, le=3, description="the standard deviation of log(a), in (0, 3]")
]
MAX_TERMS = 2**24
ETA = 0.5
FREQUENCIES = np.array([1.7207, 4.0575, 6.8512, 9.8264, 12.8746, 15.9573])


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

        The labels of Darcy flow satisfy the equation on the grid they were solved on, those of
        Poisson's to second order. Labels restricted to a coarser grid do not where a jumps: from
        128x128 cells to 64x64 the residual of two phases is 50 % of f (90 % for nodes), and pulls
        away from the labels; that of log-normal permeability is 6 %.
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

    f is the Gaussian random field N(0, (-Laplace + tau^2)^-alpha), alpha being ``smoothness`` and
    tau ``inverse_length``, normalised to a pointwise variance of order one, in its sine series
    cut after ``num_modes`` terms along each axis. Then

        f = sum_k f_k prod_d sin(pi k_d x_d),    u = sum_k f_k / (pi^2 |k|^2) prod_d sin(pi k_d x_d)

    is the exact solution of the differential equation.
    """

    ndim: SpaceDimensions = 2
    smoothness: Smoothness = 2.0
    inverse_length: InverseLength = 3.0
    num_modes: SineModes = 64

    def sample(self, grid: Grid, rngs: Generators) -> Pair:
        """Draws right-hand sides and their solutions."""
        eigenvalues = squares(np.pi * np.arange(1, self.num_modes + 1), self.ndim)
        amplitudes = (eigenvalues + self.inverse_length**2) ** (-self.smoothness / 2)
        amplitudes /= np.sqrt(np.sum(amplitudes**2) / 2**self.ndim)
        f = amplitudes * np.stack([rng.standard_normal(amplitudes.shape) for rng in rngs])
        return sine_series(f, grid), sine_series(f / eigenvalues, grid)


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
        series = self.smoothness, self.inverse_length, self.num_modes
        a = self.permeability(gaussian_fields(closed_axes(grid), rngs, "cosine", *series))
        coefficient, source = self.terms(a[:, None])
        on_grid = (slice(None), *(slice(n) for n in grid.shape))
        u = solve_diffusion(coefficient, source[on_grid], grid, self.tolerance, self.is_smooth)
        return a[on_grid][:, None], u[:, None]

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
    """-div(a grad u) = 1 on the unit box, u = 0 on its boundary, for a of two phases: Darcy flow.

    The permeability a is ``high`` where a Gaussian field is not negative, else ``low``: 12 and 3
    after Li et al., FNO (arXiv 2010.08895). Raonic et al. (arXiv 2302.01178) have the same, and
    another length of the field out of distribution; that this is ``inverse_length: 5`` is an
    assumption of ``experiments/cno/darcy.yaml``.
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

    This is ``-div(a grad u) = 1`` divided by a, if the jumps of a are ignored. For training before
    Darcy flow, as a fast Poisson solve gives a sample.
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
    """Darcy flow through a lognormal medium, a = exp(sigma g), g Gaussian, sigma = ``log_std``."""

    is_smooth = True

    smoothness: Smoothness = 3.0
    log_std: LogStd = 1.0

    def permeability(self, field: np.ndarray) -> np.ndarray:
        """Returns ``exp(log_std * field)``."""
        return np.exp(self.log_std * field)


@register_problem("diffusion")
@dataclass
class Diffusion(PDE):
    """div(nu grad u) = 0 on the unit box, u = 1 at x = 0, u = 0 at x = 1, natural elsewhere.

    After Balu et al., SC'21 (arXiv 2104.14538), with weights w_i uniform on a symmetric interval:

        log nu = sum_i w_i prod_d sqrt(l_i) phi_i(x_d),   l_i = 2 eta / (1 + (eta a_i)^2),
        phi_i(x) = eta a_i cos(a_i x) + sin(a_i x)

    The paper draws the w_i from one Sobol sequence, whose points depend on each other; here each
    sample has its own random numbers. Input is log nu, which is of order one where nu spans
    decades. The reference is the Q1 finite-element solution on the nodes of the grid, the exact
    minimiser of the energy ``1/2 int nu |grad u|^2``.

    The axes other than x may be mirrored and exchanged. Mirroring x would exchange the plates; and
    the solution is unchanged rather than scaled where nu is scaled.
    """

    input_names = ("log_nu",)
    output_names = ("u",)
    symmetries = Symmetries(reflections=True, rotations=True, fixed_axes=(0,))

    ndim: SpaceDimensions = 2
    max_weight: Annotated[
        float, Field(gt=0, le=3, description="the bound of the weights w_i in log(nu), in (0, 3]")
    ] = 3.0
    tolerance: Tolerance = 1e-8

    def check_grids(self, levels: Sequence[Grid]) -> None:
        """Checks that there are nodes on both plates on every level."""
        if levels[-1].centering == "cell":
            raise UserError(
                "data.centering: problem 'diffusion' has boundary values at nodes; it must be "
                "'node'"
            )
        for index, grid in enumerate(levels):
            if any(n % 2 == 0 or not grid.is_symmetric(axis) for axis, n in enumerate(grid.shape)):
                odd = Grid(tuple(n + 1 - n % 2 for n in grid.shape), "node")
                raise UserError(
                    f"levels[{index}]: problem 'diffusion' needs nodes on both ends of each axis, "
                    f"so odd sizes such as {odd}, not {grid}"
                )

    def sample(self, grid: Grid, rngs: Generators) -> Pair:
        """Draws log-permeabilities and their solutions."""
        log_nu = self.draw_inputs(grid, rngs)
        u = solve_between_plates(np.exp(log_nu[:, 0]), grid, self.tolerance)
        return log_nu, u[:, None]

    def draw_inputs(self, grid: Grid, rngs: Generators) -> np.ndarray:
        """Draws log-permeabilities ``[N, 1, *grid]``, those of :meth:`sample`."""
        self.check_grids([grid])
        bound, size = self.max_weight, len(FREQUENCIES)
        weights = np.stack([rng.uniform(-bound, bound, size) for rng in rngs])
        scales = np.sqrt(2 * ETA / (1 + (ETA * FREQUENCIES) ** 2))
        modes = []
        for scale, a in zip(scales, FREQUENCIES, strict=True):
            factors = [scale * (ETA * a * np.cos(a * x) + np.sin(a * x)) for x in grid.axes()]
            modes.append(reduce(np.multiply.outer, factors))
        return np.tensordot(weights, np.stack(modes), axes=1)[:, None]

    def boundary_values(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Returns the plates: u = 1 at x = 0 and u = 0 at x = 1."""
        fixed, values = np.zeros((1, *grid.shape), dtype=bool), np.zeros((1, *grid.shape))
        fixed[:, [0, -1]] = True
        values[:, 0] = 1
        return fixed, values

    def initial_outputs(self, grid: Grid) -> np.ndarray:
        """Returns 1 - x, the solution for constant nu, as ``[1, *grid]``."""
        x = grid.axes()[0].reshape(-1, *(1,) * (grid.ndim - 1))
        return np.broadcast_to(1 - x, grid.shape)[None]

    def energy_loss(self, grid: Grid, finer: Grid, degree: int) -> Callable[..., Any]:
        """Returns the mean relative L2 norm of what a few solver steps down the energy change.

        It is zero only for the solution. The energy itself has the same minimiser, but it is
        quadratic in the error and its gradient is dominated by short waves, so that the last digits
        are learned slowly.

        The energy is that of the next finer level's grid, to which coefficients and outputs are
        prolonged: its solution differs from that of the level's own grid by far more than
        prolongation costs (0.6 % against 0.014 % on 33x33 nodes below 65x65).
        """
        from multigrid.metrics import rel_l2
        from multigrid.solvers.energy_descent import EnergyDescent

        descend = EnergyDescent(grid, finer, degree)

        def energy(prediction: Any, batch: Any) -> Any:
            change = descend(batch.inputs[:, 0], prediction[:, 0])
            return rel_l2(prediction, prediction.detach() + change[:, None]).mean()

        return energy
