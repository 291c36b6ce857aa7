"""Steps that lower the energy of a field: a correction towards the solution, without labels."""

from functools import reduce

import numpy as np
import torch
from scipy.integrate import trapezoid
from torch import Tensor

from multigrid.fields import multiply, prolong_to
from multigrid.grid import Grid
from multigrid.solvers.finite_elements import StiffnessOperator, element_eigenvalues


class EnergyDescent:
    """Steps of conjugate gradients that lower the energy of fields between the plates.

    The energy is that of the fields prolonged to a finer grid, and the steps lead to the Galerkin
    solution, the best field of the coarse one. The preconditioner is that of
    ``solve_between_plates`` on the coarse grid. The first steps get the direction to the solution
    about right, its length less. Both grids have nodes on the boundary, on all axes.
    """

    def __init__(self, grid: Grid, finer: Grid, degree: int = 4, num_steps: int = 16) -> None:
        self.spacing = finer.spacing
        self.num_steps = num_steps
        self._prolongations = [] if finer == grid else _prolongations(grid, finer, degree)
        self._modes, self._inverse = _eigenmodes(grid)

    @torch.no_grad()
    def __call__(self, log_nu: Tensor, u: Tensor) -> Tensor:
        """Returns what the steps, started from u ``[N, *grid]``, add to it, zero on the plates.

        u has the boundary values of the solution, for which the result is zero everywhere.
        """
        prolong, modes = ([m.to(u) for m in axes] for axes in (self._prolongations, self._modes))
        restrict, analyse = ([m.T for m in axes] for axes in (prolong, modes))
        inverse = self._inverse.to(u)
        stiffness = StiffnessOperator(multiply(log_nu, prolong).exp(), self.spacing)
        scale = (-0.5 * log_nu).exp()

        def operator(fields: Tensor) -> Tensor:
            image = multiply(stiffness(multiply(fields, prolong)), restrict)
            image[:, [0, -1]] = 0
            return image

        def precondition(residual: Tensor) -> Tensor:
            return scale * multiply(multiply(scale * residual, analyse) * inverse, modes)

        residual = -operator(u)
        total = step = torch.zeros_like(u)
        product = torch.ones_like(_dot(u, u))
        for _ in range(self.num_steps):
            correction = precondition(residual)
            previous, product = product, _dot(residual, correction)
            step = correction + _divide(product, previous) * step
            image = operator(step)
            length = _divide(product, _dot(step, image))
            residual = residual - length * image
            total = total + length * step
        return total


def _eigenmodes(grid: Grid) -> tuple[list[Tensor], Tensor]:
    """Returns what inverts the stiffness matrix for nu = 1, as ``FastElements`` does for arrays.

    For each axis the matrix ``[n, modes]`` of vectors V with ``V' M V = 1`` and ``V' S V``
    diagonal, for the one-dimensional mass and stiffness matrices M and S without the given
    end nodes of the first axis; and the inverse eigenvalues ``[*modes]``.
    """
    modes, (stiffness, mass) = [], element_eigenvalues(grid)
    for axis, n in enumerate(grid.shape):
        phases = np.pi / (n - 1) * np.outer(np.arange(n), np.arange(n))
        waves = np.cos(phases)
        if axis == 0:
            waves = np.sin(phases[:, 1:-1])
            waves[-1] = 0
        norms = np.sqrt(mass[axis] * trapezoid(waves**2, axis=0))
        modes.append(torch.from_numpy(waves / norms))
    eigenvalues = [s / m for s, m in zip(stiffness, mass, strict=True)]
    return modes, torch.from_numpy(1 / reduce(np.add.outer, eigenvalues))


def _prolongations(grid: Grid, finer: Grid, degree: int) -> list[Tensor]:
    """Returns the prolongation between two grids as a matrix ``[finer, coarse]`` for each axis."""
    return [
        prolong_to(torch.eye(n).double(), Grid((n,), "node"), Grid((m,), "node"), degree).T
        for n, m in zip(grid.shape, finer.shape, strict=True)
    ]


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(list(range(1, x.ndim)), keepdim=True)


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Returns quotients, 0 where the denominator is."""
    return numerator / denominator.where(denominator > 0, torch.inf)
