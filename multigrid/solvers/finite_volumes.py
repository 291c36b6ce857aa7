"""Finite volumes for -div(a grad u) = f with zero Dirichlet values."""

from functools import reduce
from typing import Any, Literal

import numpy as np
import scipy

from multigrid.grid import Grid
from multigrid.solvers.conjugate_gradients import conjugate_gradients

# Points of one batch: what conjugate gradients touch then stays in a cache of some megabytes.
BATCH_POINTS = 2**16


def closed_axes(grid: Grid) -> tuple[np.ndarray, ...]:
    """Returns where the coefficient is needed: on the grid, and nodes on the right boundary."""
    if grid.centering == "cell":
        return grid.axes()
    return tuple(h * np.arange(round(1 / h) + 1) for h in grid.spacing)


def unknowns(grid: Grid) -> tuple[slice, ...]:
    """Returns where in a grid the unknowns are: everywhere but at nodes on the boundary."""
    if grid.centering == "cell":
        return (slice(None),) * grid.ndim
    return tuple(slice(1, round(1 / h)) for h in grid.spacing)


class DiffusionOperator:
    """The matrix of -div(a grad u) for all samples, stored by diagonals.

    A face between two points has the harmonic mean of their coefficients ``[N, *points]``, given at
    ``closed_axes(grid)``: exact where they jump half-way in between. A face on the boundary is half
    a spacing away from a cell's centre.
    """

    def __init__(self, coefficient: np.ndarray, grid: Grid) -> None:
        resistance = 1 / coefficient
        shape = coefficient[(slice(None), *unknowns(grid))].shape
        data: np.ndarray = np.zeros((1 + 2 * grid.ndim, *shape))
        diagonal, offsets = data[0], [0]
        for axis, h in enumerate(grid.spacing, start=1):
            faces = -2 / h**2 / _resistance_sums(resistance, axis, grid)
            diagonal -= _cut(faces, axis, 0, -1)
            diagonal -= _cut(faces, axis, 1, None)
            _cut(data[2 * axis - 1], axis, 1, None)[...] = _cut(faces, axis, 1, -1)
            _cut(data[2 * axis], axis, 0, -1)[...] = _cut(faces, axis, 1, -1)
            stride = int(np.prod(shape[axis + 1 :]))
            offsets += [stride, -stride]
        self._matrix: Any = scipy.sparse.dia_array(
            (data.reshape(len(offsets), -1), offsets), shape=(diagonal.size,) * 2
        )
        self._single = self._matrix.astype(np.float32)

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """Maps ``[N, *unknowns]`` to ``-div(a grad u)`` there, in u's float32 or float64."""
        matrix = self._single if u.dtype == np.float32 else self._matrix
        return (matrix @ u.ravel()).reshape(u.shape)


class FastPoisson:
    """Inverse of the finite-volume Laplacian -Delta_h with zero Dirichlet values.

    The three-point formula along each axis, with the boundary half a cell beyond the outermost
    cell centres, or at the nodes beyond the outermost interior ones. Sine transforms of type 2
    (cells) or 1 (nodes) diagonalise it: ``4 sin^2(pi k / (2 n)) / h^2`` for n intervals.
    """

    def __init__(self, grid: Grid) -> None:
        self._type: Literal[1, 2] = 2 if grid.centering == "cell" else 1
        self._axes = tuple(range(1, 1 + grid.ndim))
        eigenvalues = []
        for h in grid.spacing:
            n = round(1 / h)
            k = np.arange(1, n + 1 if grid.centering == "cell" else n)
            eigenvalues.append(4 / h**2 * np.sin(np.pi * k / (2 * n)) ** 2)
        self._inverse = 1 / reduce(np.add.outer, eigenvalues)
        self._inverse_single = self._inverse.astype(np.float32)

    def solve(self, f: np.ndarray) -> np.ndarray:
        """Returns u with ``-Delta_h u = f``, ``[N, *unknowns]``, in the precision of f."""
        inverse = self._inverse_single if f.dtype == np.float32 else self._inverse
        spectrum = scipy.fft.dstn(f, type=self._type, axes=self._axes)
        spectrum *= inverse
        return scipy.fft.idstn(spectrum, type=self._type, axes=self._axes, overwrite_x=True)


def equations(grid: Grid) -> tuple[slice, ...]:
    """Returns where in a grid ``apply_diffusion`` holds: everywhere but at the outermost nodes.

    An unknown at the right end of a grid is left out: a coefficient beyond goes into its equation.
    """
    outermost = slice(None) if grid.centering == "cell" else slice(1, -1)
    return (outermost,) * grid.ndim


def apply_diffusion(coefficient: Any, u: Any, grid: Grid) -> Any:
    """Returns -div(a grad u) at ``equations(grid)``, as ``DiffusionOperator`` discretises it.

    a and u, ``[N, *grid]``, are arrays or torch tensors; u = 0 at nodes on the boundary, whatever
    its values there are.
    """
    if grid.centering != "cell":
        u = _with_zero_boundary(u, grid)
    image = 0 * u
    for axis, h in enumerate(grid.spacing, start=1):
        below, above = (0, -1), (1, None)
        resistance = sum(1 / _cut(coefficient, axis, *side) for side in (below, above))
        flux = 2 / h**2 * (_cut(u, axis, *above) - _cut(u, axis, *below)) / resistance
        image_below, image_above = (_cut(image, axis, *side) for side in (below, above))
        image_below -= flux
        image_above += flux
        if grid.centering == "cell":
            for end in ((0, 1), (-1, None)):
                conductance = 2 / h**2 * _cut(coefficient, axis, *end)
                image_end = _cut(image, axis, *end)
                image_end += conductance * _cut(u, axis, *end)
    return image[(slice(None), *equations(grid))]


def solve_diffusion(
    coefficient: np.ndarray,
    source: np.ndarray,
    grid: Grid,
    tolerance: float = 1e-6,
    smooth: bool = False,
) -> np.ndarray:
    """Solves -div(a grad u) = f in the unit box, u = 0 on its boundary.

    Second order for smooth a. Conjugate gradients to the tolerance, preconditioned by the Poisson
    solver: the number of iterations grows with the contrast of a and not with the grid. If a is
    ``smooth``, the preconditioner is scaled from both sides by ``a^(-1/2)``: the fewer iterations
    the smoother a is, whatever its contrast, and far more where a jumps.

    The coefficient a is positive, at the points of ``closed_axes(grid)``, ``[N, *points]``, the
    source f at those of the grid, ``[N, *grid]``; so is u, zero at nodes on the boundary.

    Raises:
        UserError: If the contrast is too high for the preconditioner.
    """
    poisson = FastPoisson(grid)
    where = (slice(None), *unknowns(grid))

    def solve(a: np.ndarray, f: np.ndarray) -> np.ndarray:
        scale = a[where].astype(np.float32) ** -0.5

        def scaled(residual: np.ndarray) -> np.ndarray:
            return scale * poisson.solve(scale * residual)

        preconditioner = scaled if smooth else poisson.solve
        operator = DiffusionOperator(a, grid)
        return conjugate_gradients(operator, f, preconditioner, tolerance, single=True)

    size = max(1, BATCH_POINTS // grid.size)
    u = np.zeros_like(source)
    for start in range(0, len(source), size):
        batch = slice(start, start + size)
        u[batch][where] = solve(coefficient[batch], source[batch][where])
    return u


def _resistance_sums(resistance: np.ndarray, axis: int, grid: Grid) -> np.ndarray:
    """Returns 1/a of both sides of all faces along an axis, at the unknowns along the others."""
    if grid.centering == "cell":
        low, high = _cut(resistance, axis, 0, 1), _cut(resistance, axis, -1, None)
        inner = _cut(resistance, axis, 0, -1) + _cut(resistance, axis, 1, None)
        return np.concatenate([low, inner, high], axis=axis)
    for other in range(1, resistance.ndim):
        if other != axis:
            resistance = _cut(resistance, other, 1, -1)
    return _cut(resistance, axis, 0, -1) + _cut(resistance, axis, 1, None)


def _with_zero_boundary(u: Any, grid: Grid) -> Any:
    """Returns a copy of values at nodes, with zeros at those on the boundary."""
    u = 1 * u
    for axis in range(grid.ndim):
        _cut(u, axis + 1, 0, 1)[...] = 0
        if grid.is_symmetric(axis):
            _cut(u, axis + 1, -1, None)[...] = 0
    return u


def _cut(x: Any, axis: int, start: int, stop: int | None) -> Any:
    """Returns a view of a part along one axis."""
    return x[(slice(None),) * axis + (slice(start, stop),)]
