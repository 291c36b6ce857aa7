"""Diffusion between two plates through a log-permeability of few parameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.problems.base import PDE, Generators, Pair, SpaceDimensions, Symmetries, Tolerance
from multigrid.registry import register_problem
from multigrid.solvers.finite_elements import solve_between_plates

ETA = 0.5
FREQUENCIES = np.array([1.7207, 4.0575, 6.8512, 9.8264, 12.8746, 15.9573])


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
        size = len(FREQUENCIES)
        weights = [rng.uniform(-self.max_weight, self.max_weight, size) for rng in rngs]
        return np.tensordot(np.stack(weights), _modes(grid), axes=1)[:, None]

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


@lru_cache(maxsize=1)
def _modes(grid: Grid) -> np.ndarray:
    """Returns ``prod_d sqrt(l_i) phi_i(x_d)`` as ``[6, *grid]``, not to be written to."""
    scales = np.sqrt(2 * ETA / (1 + (ETA * FREQUENCIES) ** 2))
    fields = []
    for scale, a in zip(scales, FREQUENCIES, strict=True):
        factors = [scale * (ETA * a * np.cos(a * x) + np.sin(a * x)) for x in grid.axes()]
        fields.append(reduce(np.multiply.outer, factors))
    return np.stack(fields)
