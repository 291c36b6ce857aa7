"""Problems whose discrete equation is available."""

from abc import abstractmethod
from typing import Any

from multigrid.grid import Grid
from multigrid.problems.base import PDE
from multigrid.solvers.finite_volumes import apply_diffusion, equations


class EllipticPDE(PDE):
    """-div(a grad u) = f on the unit box, u = 0 on its boundary.

    Both sides can be computed for any output, by the finite volumes of the solver: harmonic means
    of a on the faces between points, zero at nodes on the boundary or half a spacing beyond cells.
    """

    @staticmethod
    @abstractmethod
    def terms(inputs: Any) -> tuple[Any, Any]:
        """Returns a and f, each ``[N, *grid]``, for input fields ``[N, in, *grid]``."""

    def discrete_equation(self, inputs: Any, outputs: Any, grid: Grid) -> tuple[Any, Any]:
        """Returns both sides of the discrete equation; their difference is the residual.

        The labels of Darcy flow satisfy it on the grid they were solved on, to the solver's
        tolerance; those of Poisson's equation, exact solutions of the differential equation, to
        second order in the spacing. On a coarser grid the labels are restricted, and do not solve
        the equation with restricted inputs. Their residual is still of second order for Poisson's
        equation, but from 128x128 cells to 64x64 it becomes 6 % of the right side for log-normal
        permeability (0.5 % for nodes) and 50 % for two phases (90 %), where neither means nor
        every second value of a represent its jumps: there it pulls away from the labels.

        Args:
            inputs: Input fields ``[N, in, *grid]``, as numpy array or torch tensor.
            outputs: Fields ``[N, 1, *grid]`` of the same library.
            grid: Their grid.

        Returns:
            ``-div(a grad u)`` and f, each ``[N, *points]``: at all cells, or at all nodes but the
            outermost.
        """
        coefficient, source = self.terms(inputs)
        image = apply_diffusion(coefficient, outputs[:, 0], grid)
        return image, source[(slice(None), *equations(grid))]
