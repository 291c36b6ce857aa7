"""Restriction and prolongation of fields between a grid and the next coarser one.

Fields are tensors ``[..., *grid]`` with one trailing axis per space dimension. Both operations
are tensor products of small one-dimensional matrices, so they work in any dimension, are exact
for polynomials up to the given degree right up to the boundary, and are differentiable.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multigrid.grid import Centering, Grid

Periodic = bool | tuple[bool, ...]
"""Whether fields wrap around the box, for all axes or each."""


def restrict(field: Tensor, grid: Grid) -> Tensor:
    """Restricts a field to the next coarser grid.

    Cell-centred fields are averaged over the 2^d cells that become one, the last of an odd number
    being repeated; of node-centred fields every second point is kept.
    """
    if grid.centering != "cell":
        every_second: Any = (..., *(slice(None, None, 2),) * grid.ndim)
        return field[every_second]
    for axis in range(field.ndim - grid.ndim, field.ndim):
        if field.shape[axis] % 2:
            field = torch.cat([field, field.narrow(axis, -1, 1)], dim=axis)
        field = field.unflatten(axis, (-1, 2)).mean(axis + 1)
    return field


def restrict_to(field: Tensor, grid: Grid, target: Grid) -> Tensor:
    """Restricts a field from ``grid`` to ``target``, a coarser one of its hierarchy."""
    while grid.shape != target.shape:
        field, grid = restrict(field, grid), grid.coarsen()
    return field


def prolong(field: Tensor, fine: Grid, degree: int = 4, periodic: Periodic = False) -> Tensor:
    """Prolongs a field ``[..., *fine.coarsen().shape]`` to ``[..., *fine.shape]``.

    By interpolation with polynomials that reproduce those of a degree exactly. Values of
    cell-centred fields are taken as cell averages, and an even degree is conservative: restricting
    the result gives the field back (Harten, J. Comput. Phys. 115, 1994). The stencil wraps around
    the box along all axes or those that are periodic, and leans inwards at the edge of others.
    """
    key = fine.shape, fine.centering, degree, periodic, field.dtype, field.device
    if key not in _matrices:
        by_axis = periodic if isinstance(periodic, tuple) else (periodic,) * fine.ndim
        _matrices[key] = [
            torch.as_tensor(
                _prolongation(n, fine.centering, degree, wraps),
                dtype=field.dtype,
                device=field.device,
            )
            for n, wraps in zip(fine.shape, by_axis, strict=True)
        ]
    return multiply(field, _matrices[key])


def multiply(field: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiplies a field ``[..., *grid]`` by a matrix ``[new, old]`` along each of its axes."""
    for axis, matrix in enumerate(matrices, start=field.ndim - len(matrices)):
        field = torch.tensordot(field, matrix, dims=([axis], [1])).movedim(-1, axis)
    return field


def prolong_to(
    field: Tensor, grid: Grid, target: Grid, degree: int = 4, periodic: Periodic = False
) -> Tensor:
    """Prolongs a field from ``grid`` to ``target``, a finer one of its hierarchy."""
    chain = [target]
    while chain[-1].shape != grid.shape:
        chain.append(chain[-1].coarsen())
    for fine in chain[-2::-1]:
        field = prolong(field, fine, degree, periodic)
    return field


_matrices: dict[Hashable, list[Tensor]] = {}
"""Not cached by functools, because torch.compile would trace the construction of each matrix."""


def _prolongation(n_fine: int, centering: Centering, degree: int, periodic: bool) -> np.ndarray:
    """Returns the one-dimensional prolongation as a matrix ``[n_fine, n_coarse]``.

    Each fine value takes the ``degree + 1`` nearest coarse ones, fewer where a grid that does not
    wrap around is smaller.
    """
    n_coarse = (n_fine + 1) // 2
    num_points = degree + 1 if periodic else min(degree + 1, n_coarse)
    matrix = np.zeros((n_fine, n_coarse))
    for i in range(n_fine):
        centre = (i + 0.5) / 2 - 0.5 if centering == "cell" else i / 2
        start = int(np.floor(centre - num_points / 2 + 1))
        if not periodic:
            start = min(max(start, 0), n_coarse - num_points)
        weights = _weights(centre - start, num_points, centering)
        np.add.at(matrix[i], np.arange(start, start + num_points) % n_coarse, weights)
    return matrix


def _weights(x: float, num_points: int, centering: Centering) -> np.ndarray:
    """Returns the weights of coarse values 0..num_points-1 for the fine value at ``x``.

    They solve the moment equations ``sum_j w_j f_j(p) = f(p)`` for all monomials p up to the
    degree, f being the point value (nodes) or the cell average (cells of width 1 and 1/2).
    """
    powers, positions = np.arange(num_points), np.arange(num_points, dtype=float)
    if centering != "cell":
        return np.linalg.solve(positions[None, :] ** powers[:, None], x**powers)
    moments = _cell_average(positions[None, :], 1.0, powers[:, None])
    return np.linalg.solve(moments, _cell_average(np.asarray(x), 0.5, powers))


def _cell_average(centre: np.ndarray, width: float, power: np.ndarray) -> np.ndarray:
    """Average of ``x^power`` over a cell."""
    right, left = centre + width / 2, centre - width / 2
    return (right ** (power + 1) - left ** (power + 1)) / ((power + 1) * width)
