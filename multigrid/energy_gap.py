"""How far the energy of a field lies above the least one, told without knowing the solution."""

from functools import reduce

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from multigrid.grid import Grid
from multigrid.problems import Diffusion

NUM_STEPS = 4


class EnergyGap:
    """Estimates ``E(u) - E(u*)`` of fields, u* being the unknown solution on their grid.

    By what a few steps of conjugate gradients, started from u, lower the energy: a lower bound,
    which rises to the exact gap with the number of steps. The preconditioner is that of
    ``solve_between_plates``, the inverse for nu = 1 scaled from both sides by ``nu^(-1/2)``.

    Args:
        problem: Whose energy it is.
        grid: Node-centred grid with both boundary points on all axes.
        num_steps: Steps of conjugate gradients.
    """

    def __init__(self, problem: Diffusion, grid: Grid, num_steps: int = NUM_STEPS) -> None:
        self.problem = problem
        self.grid = grid
        self.num_steps = num_steps
        self._inverse = DenseElements(grid)

    def __call__(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Returns the estimate for input fields and outputs ``[N, 1, *grid]``, as ``[N]``."""
        scale = (-0.5 * inputs[:, :1]).exp()
        residual = -self._gradient(inputs, outputs)
        gap = residual.new_zeros(len(residual))
        step, product = torch.zeros_like(residual), torch.ones_like(gap)
        for _ in range(self.num_steps):
            correction = scale * self._inverse(scale * residual)
            previous, product = product, _dot(residual, correction)
            step = correction + _ratio(product, previous, step) * step
            image = self._gradient(inputs, step)
            length = _ratio(product, _dot(step, image), step)
            residual = residual - length * image
            gap = gap + 0.5 * length.flatten() * product
        return gap

    def _gradient(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Returns the gradient of the energy at the nodes between the plates, else 0."""
        with torch.enable_grad():
            field = outputs.detach().requires_grad_()
            energy = self.problem.energy(inputs, field, self.grid.spacing).sum()
            (gradient,) = torch.autograd.grad(energy, field)
        gradient[:, :, [0, -1]] = 0
        return gradient


class DenseElements:
    """The inverse of ``FastElements`` for tensors: dense matrices, one for each axis.

    They hold the vectors V with ``V' M V = 1`` and ``V' S V`` diagonal, for the one-dimensional
    mass and stiffness matrices M and S without the given end nodes of the first axis.
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
        """Returns u with ``K u = f`` for right-hand sides ``[N, 1, *grid]``.

        The first and last planes of f along the first axis are ignored, those of u are zero.
        """
        vectors = [matrix.to(fields) for matrix in self._vectors]
        for matrix in vectors:  # the axis that is contracted comes last, so each has its turn
            fields = torch.tensordot(fields, matrix, dims=([2], [0]))
        fields = fields * self._inverse.to(fields)
        for matrix in vectors:
            fields = torch.tensordot(fields, matrix, dims=([2], [1]))
        return fields


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).flatten(1).sum(1)


def _ratio(numerator: Tensor, denominator: Tensor, like: Tensor) -> Tensor:
    """Returns quotients ``[N]`` with the axes of a field, 0 where the denominator is."""
    quotient = numerator / denominator.where(denominator > 0, torch.inf)
    return quotient.reshape(-1, *(1,) * (like.ndim - 1))


def _assemble(element: list[list[int]], num_nodes: int) -> np.ndarray:
    """Returns the matrix on all nodes of an axis, given that of an element of two nodes."""
    matrix = np.zeros((num_nodes, num_nodes))
    for start in range(num_nodes - 1):
        matrix[start : start + 2, start : start + 2] += element
    return matrix
