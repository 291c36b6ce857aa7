"""Steps that lower the energy of a field: a correction towards the solution, without labels."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from multigrid.fields import prolong_to
from multigrid.grid import Grid
from multigrid.solvers.finite_elements import StiffnessOperator


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
        inverse = self._inverse.to(u)
        stiffness = StiffnessOperator(_transform(log_nu, prolong).exp(), self.spacing)
        scale = (-0.5 * log_nu).exp()

        def operator(fields: Tensor) -> Tensor:
            image = stiffness(_transform(fields, prolong))
            image = _transform(image, [matrix.T for matrix in prolong])
            image[:, [0, -1]] = 0
            return image

        def precondition(residual: Tensor) -> Tensor:
            spectrum = _transform(scale * residual, modes) * inverse
            return scale * _transform(spectrum, [matrix.T for matrix in modes])

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
    eigenvalues, modes = [], []
    for axis, (n, h) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
        free = slice(1, -1) if axis == 0 else slice(None)
        values, vectors = scipy.linalg.eigh(
            _assemble([[1, -1], [-1, 1]], n)[free, free] / h,
            _assemble([[2, 1], [1, 2]], n)[free, free] * h / 6,
        )
        eigenvalues.append(values)
        padded = np.zeros((n, len(values)))
        padded[free] = vectors
        modes.append(torch.from_numpy(padded))
    return modes, torch.from_numpy(1 / reduce(np.add.outer, eigenvalues))


def _prolongations(grid: Grid, finer: Grid, degree: int) -> list[Tensor]:
    """Returns the prolongation between two grids as a matrix for each axis, transposed."""
    return [
        prolong_to(torch.eye(n).double(), Grid((n,), "node"), Grid((m,), "node"), degree)
        for n, m in zip(grid.shape, finer.shape, strict=True)
    ]


def _transform(fields: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiplies fields ``[N, *grid]`` by a matrix ``[n, m]`` along each axis."""
    for matrix in matrices:  # the axis that is contracted comes last, so each has its turn
        fields = torch.tensordot(fields, matrix, dims=([1], [0]))
    return fields


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(list(range(1, x.ndim)), keepdim=True)


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Returns quotients, 0 where the denominator is."""
    return numerator / denominator.where(denominator > 0, torch.inf)


def _assemble(element: list[list[int]], num_nodes: int) -> np.ndarray:
    """Returns the matrix on all nodes of an axis, given that of an element of two nodes."""
    matrix = np.zeros((num_nodes, num_nodes))
    for start in range(num_nodes - 1):
        matrix[start : start + 2, start : start + 2] += element
    return matrix
