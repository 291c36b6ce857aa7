"""Steps that lower the energy of a field: a correction towards the solution, without labels."""

import copy
from collections.abc import Sequence
from functools import reduce

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from multigrid.fields import prolong_to
from multigrid.grid import Grid
from multigrid.solvers.finite_elements import StiffnessOperator

NUM_STEPS = 16
NUM_FIELDS = 4
"""Fields of the finer grid that a step holds beside the stencils."""


def energy_bytes(finer: Grid) -> float:
    """Returns the memory of the steps for a sample, on the grid whose energy they lower."""
    num_stencils = (3**finer.ndim + 1) // 2
    return 4.0 * (num_stencils + NUM_FIELDS) * finer.size


class EnergyDescent:
    """Steps of conjugate gradients that lower the energy of fields between the plates.

    The energy is that of the fields prolonged to a finer grid, and the steps lead to the best
    among the fields of the coarse one, the Galerkin solution. The preconditioner is that of
    ``solve_between_plates`` on the coarse grid, the inverse for nu = 1 scaled from both sides by
    ``nu^(-1/2)``. The first steps get the direction to the solution about right, its length less.

    Args:
        grid: Node-centred grid with both boundary points on all axes.
        finer: Such a grid that halves to it, or the same.
        degree: Polynomial degree of the prolongation.
        num_steps: Steps of conjugate gradients.
    """

    def __init__(
        self, grid: Grid, finer: Grid, degree: int = 4, num_steps: int = NUM_STEPS
    ) -> None:
        self.spacing = finer.spacing
        self.num_steps = num_steps
        self._inverse = DenseElements(grid)
        self._prolongations = [] if finer == grid else _prolongations(grid, finer, degree)

    @torch.no_grad()
    def __call__(self, log_nu: Tensor, u: Tensor) -> Tensor:
        """Returns what the steps, started from u, add to u: zero if u is the solution.

        Args:
            log_nu: Logarithms of the coefficients at the nodes, ``[N, *grid]``.
            u: Fields with the boundary values of the solution, ``[N, *grid]``.

        Returns:
            Fields ``[N, *grid]``, zero on the plates.
        """
        prolong = [matrix.to(u) for matrix in self._prolongations]
        transposed = [matrix.T for matrix in prolong]
        stiffness = StiffnessOperator(_transform(log_nu, prolong).exp(), self.spacing)

        def operator(fields: Tensor) -> Tensor:
            image = _transform(stiffness(_transform(fields, prolong)), transposed)
            image[:, [0, -1]] = 0
            return image

        inverse = self._inverse.to(u)
        scale = (-0.5 * log_nu).exp()
        residual = -operator(u)
        total = step = torch.zeros_like(u)
        product = torch.ones_like(_dot(u, u))
        for _ in range(self.num_steps):
            correction = scale * inverse(scale * residual)
            previous, product = product, _dot(residual, correction)
            step = correction + _divide(product, previous) * step
            image = operator(step)
            length = _divide(product, _dot(step, image))
            residual = residual - length * image
            total = total + length * step
        return total


class DenseElements:
    """The inverse of ``FastElements`` for tensors: dense matrices, one for each axis.

    They hold the vectors V with ``V' M V = 1`` and ``V' S V`` diagonal, for the one-dimensional
    mass and stiffness matrices M and S without the given end nodes of the first axis.

    Args:
        grid: Node-centred grid with both boundary points on all axes.
    """

    def __init__(self, grid: Grid) -> None:
        eigenvalues: list[np.ndarray] = []
        self._vectors: list[Tensor] = []
        for axis, (n, h) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
            free = slice(1, -1) if axis == 0 else slice(None)
            values, vectors = scipy.linalg.eigh(
                _assemble([[1, -1], [-1, 1]], n)[free, free] / h,
                _assemble([[2, 1], [1, 2]], n)[free, free] * h / 6,
            )
            eigenvalues.append(values)
            padded = np.zeros((n, len(values)))
            padded[free] = vectors
            self._vectors.append(torch.from_numpy(padded))
        self._inverse = torch.from_numpy(1 / reduce(np.add.outer, eigenvalues))

    def to(self, fields: Tensor) -> "DenseElements":
        """Returns the same for fields of a type and on a device."""
        other = copy.copy(self)
        other._vectors = [matrix.to(fields) for matrix in self._vectors]
        other._inverse = self._inverse.to(fields)
        return other

    def __call__(self, fields: Tensor) -> Tensor:
        """Returns u with ``K u = f`` for right-hand sides ``[N, *grid]``.

        The first and last planes of f along the first axis are ignored, those of u are zero.
        """
        spectrum = _transform(fields, self._vectors) * self._inverse
        return _transform(spectrum, [matrix.T for matrix in self._vectors])


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
