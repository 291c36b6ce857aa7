"""Poisson's equation with a source made of a two-phase permeability."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multigrid.grid import Grid
from multigrid.problems.darcy import TwoPhaseDarcy
from multigrid.registry import register_problem
from multigrid.solvers.finite_volumes import closed_axes, solve_diffusion


@register_problem("poisson_two_phase")
@dataclass
class TwoPhasePoisson(TwoPhaseDarcy):
    """-Laplace(u) = 1/a on the unit box, u = 0 on its boundary, a as in two-phase Darcy flow.

    This is ``-div(a grad u) = 1`` divided by a, if the jumps of a are ignored. A fast Poisson
    solve gives a sample, to the tolerance. For training before Darcy flow.
    """

    def sample(
        self, grid: Grid, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws permeabilities ``[N, 1, *grid]`` and the solutions ``[N, 1, *grid]``."""
        a = self.permeability(self._field.sample(closed_axes(grid), rngs))
        on_grid = a[(slice(None), *(slice(n) for n in grid.shape))]
        u = solve_diffusion(np.ones_like(a), 1 / on_grid, grid, self.tolerance, True).values
        return on_grid[:, None], u[:, None]

    @staticmethod
    def terms(inputs: Any) -> tuple[Any, Any]:
        """Returns 1 and the inverse of the permeability."""
        a = inputs[:, 0]
        return 0 * a + 1, 1 / a
