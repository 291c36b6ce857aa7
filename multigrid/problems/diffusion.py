"""Diffusion between two plates through a log-permeability of few parameters."""

from collections.abc import Sequence
from functools import lru_cache, reduce

import numpy as np

from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.problems.base import PDE, Symmetries
from multigrid.solvers.finite_elements import solve_between_plates

ETA = 0.5
FREQUENCIES = np.array([1.7207, 4.0575, 6.8512, 9.8264, 12.8746, 15.9573])


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

    Args:
        ndim: Number of space dimensions.
        max_weight: Bound of the absolute values of w_i.
        tolerance: Relative error of the solver in the energy norm, roughly.
    """

    kind = "diffusion"
    version = 1
    input_names = ("log_nu",)
    output_names = ("u",)
    symmetries = Symmetries(reflections=True, rotations=True, fixed_axes=(0,))

    def __init__(self, ndim: int = 2, max_weight: float = 3.0, tolerance: float = 1e-8) -> None:
        self.ndim = ndim
        self.max_weight = max_weight
        self.tolerance = tolerance

    def sample(
        self, grid: Grid, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws log-permeabilities ``[N, 1, *grid]`` and their solutions ``[N, 1, *grid]``.

        Raises:
            UserError: If the grid does not have both boundary nodes on every axis.
        """
        log_nu = self.draw(grid, rngs)
        u = solve_between_plates(np.exp(log_nu[:, 0]), grid, self.tolerance).values
        return log_nu, u[:, None]

    def draw(self, grid: Grid, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Draws log-permeabilities ``[N, 1, *grid]``, those of :meth:`sample`.

        Raises:
            UserError: If the grid does not have both boundary nodes on every axis.
        """
        ends = zip(grid.shape, grid.spacing, strict=True)
        if grid.centering == "cell" or any(round(1 / h) != n - 1 for n, h in ends):
            raise UserError(
                f"diffusion needs a node-centred grid with odd sizes, not a {grid.centering}-"
                f"centred {grid}"
            )
        size = len(FREQUENCIES)
        weights = [rng.uniform(-self.max_weight, self.max_weight, size) for rng in rngs]
        return np.tensordot(np.stack(weights), _modes(grid), axes=1)[:, None]

    def boundary_values(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Returns the plates: u = 1 at x = 0 and u = 0 at x = 1."""
        known, values = np.zeros((1, *grid.shape), dtype=bool), np.zeros((1, *grid.shape))
        known[:, [0, -1]] = True
        values[:, 0] = 1
        return known, values

    def linear_profile(self, grid: Grid) -> np.ndarray:
        """Returns 1 - x, the solution for constant nu, as ``[1, *grid]``."""
        x = grid.axes()[0].reshape(-1, *(1,) * (grid.ndim - 1))
        return np.broadcast_to(1 - x, grid.shape)[None]


@lru_cache(maxsize=1)
def _modes(grid: Grid) -> np.ndarray:
    """Returns ``prod_d sqrt(l_i) phi_i(x_d)`` as ``[6, *grid]``, not to be written to."""
    scale = np.sqrt(2 * ETA / (1 + (ETA * FREQUENCIES) ** 2))
    return np.stack(
        [
            reduce(
                np.multiply.outer,
                [s * (ETA * a * np.cos(a * x) + np.sin(a * x)) for x in grid.axes()],
            )
            for s, a in zip(scale, FREQUENCIES, strict=True)
        ]
    )
