"""How far the energy of a field lies above the least one, told without knowing the solution."""

from functools import reduce

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from multigrid.grid import Grid
from multigrid.solvers.finite_elements import StiffnessOperator

NUM_STEPS = 4


class EnergyGap:
    """Estimates ``E(u) - E(u*)`` of fields between the plates, u* being the unknown solution.

    By what a few steps of conjugate gradients, started from u, lower the energy: a lower bound,
    which rises to the exact gap with the number of steps. The preconditioner is that of
    ``solve_between_plates``, the inverse for nu = 1 scaled from both sides by ``nu^(-1/2)``.

    Args:
        grid: Node-centred grid with both boundary points on all axes.
        num_steps: Steps of conjugate gradients.
    """

    def __init__(self, grid: Grid, num_steps: int = NUM_STEPS) -> None:
        self.grid = grid
        self.num_steps = num_steps
        self._inverse = DenseElements(grid)

    @torch.no_grad()
    def __call__(self, log_nu: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the energies of fields, their gradients, and the estimated gaps.

        Args:
            log_nu: Logarithms of the coefficients at the nodes, ``[N, *grid]``.
            u: Fields with the boundary values of the solution, ``[N, *grid]``.

        Returns:
            ``[N]``; ``[N, *grid]``, zero on the plates; ``[N]``.
        """
        stiffness = StiffnessOperator(log_nu.exp(), self.grid.spacing)
        scale = (-0.5 * log_nu).exp()
        image = stiffness(u)
        energy = 0.5 * _dot(u, image)
        gradient = _clear_plates(image)
        residual = -gradient
        gap = torch.zeros_like(energy)
        step, product = torch.zeros_like(residual), torch.ones_like(energy)
        for _ in range(self.num_steps):
            correction = scale * self._inverse(scale * residual)
            previous, product = product, _dot(residual, correction)
            step = correction + _wide(_divide(product, previous), step) * step
            image = _clear_plates(stiffness(step))
            length = _divide(product, _dot(step, image))
            residual = residual - _wide(length, image) * image
            gap = gap + 0.5 * length * product
        return energy, gradient, gap


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

    def __call__(self, fields: Tensor) -> Tensor:
        """Returns u with ``K u = f`` for right-hand sides ``[N, *grid]``.

        The first and last planes of f along the first axis are ignored, those of u are zero.
        """
        vectors = [matrix.to(fields) for matrix in self._vectors]
        for matrix in vectors:  # the axis that is contracted comes last, so each has its turn
            fields = torch.tensordot(fields, matrix, dims=([1], [0]))
        fields = fields * self._inverse.to(fields)
        for matrix in vectors:
            fields = torch.tensordot(fields, matrix, dims=([1], [1]))
        return fields


def _clear_plates(fields: Tensor) -> Tensor:
    fields[:, [0, -1]] = 0
    return fields


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).flatten(1).sum(1)


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Returns quotients, 0 where the denominator is."""
    return numerator / denominator.where(denominator > 0, torch.inf)


def _wide(factors: Tensor, like: Tensor) -> Tensor:
    return factors.reshape(-1, *(1,) * (like.ndim - 1))


def _assemble(element: list[list[int]], num_nodes: int) -> np.ndarray:
    """Returns the matrix on all nodes of an axis, given that of an element of two nodes."""
    matrix = np.zeros((num_nodes, num_nodes))
    for start in range(num_nodes - 1):
        matrix[start : start + 2, start : start + 2] += element
    return matrix
