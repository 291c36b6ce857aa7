"""Direct solvers for constant coefficients, by fast sine and cosine transforms."""

from functools import reduce
from typing import Literal

import numpy as np
import scipy

from multigrid.grid import Grid


class FastPoisson:
    """Inverse of the finite-volume Laplacian -Delta_h with zero Dirichlet values.

    Along each axis -Delta_h is the three-point formula at the unknown points. The boundary lies
    half a cell beyond the outermost cell centres, where the diagonal entry becomes 3 / h^2, or one
    spacing beyond the outermost interior nodes. Sine transforms of type 2 (cells) or 1 (nodes)
    diagonalise it, with the eigenvalues ``4 sin^2(pi k / (2 n)) / h^2`` for n intervals.

    Args:
        grid: Grid of the unknowns. Of node-centred grids only the interior nodes are unknown.
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
        """Returns u with ``-Delta_h u = f``.

        Args:
            f: Right-hand sides at the unknown points, ``[N, *unknowns]``, computed with in their
                own precision, float32 or float64.
        """
        inverse = self._inverse_single if f.dtype == np.float32 else self._inverse
        spectrum = scipy.fft.dstn(f, type=self._type, axes=self._axes)
        spectrum *= inverse
        return scipy.fft.idstn(spectrum, type=self._type, axes=self._axes, overwrite_x=True)


class FastElements:
    """Inverse of the Q1 stiffness matrix of -Delta, Dirichlet on the first axis, else natural.

    The matrix is a sum of tensor products of one-dimensional stiffness and mass matrices. On the
    first axis, where both end nodes are given, sine transforms of type 1 diagonalise them. On the
    others, where the end nodes are unknown, cosine transforms of type 1 do so after the rows of
    the end nodes have been doubled. With ``theta = pi k / n`` the eigenvalues are
    ``2 (1 - cos theta) / h`` for stiffness and ``h (2 + cos theta) / 3`` for mass.

    Args:
        grid: Node-centred grid with both boundary points on all axes.
    """

    def __init__(self, grid: Grid) -> None:
        self._natural = tuple(range(2, 1 + grid.ndim))
        stiffness, mass = [], []
        for axis, (n, h) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
            k = np.arange(1, n - 1) if axis == 0 else np.arange(n)
            cosine = np.cos(np.pi * k / (n - 1))
            stiffness.append(2 * (1 - cosine) / h)
            mass.append(h * (2 + cosine) / 3)
        eigenvalues = sum(
            reduce(np.multiply.outer, [*mass[:axis], stiffness[axis], *mass[axis + 1 :]])
            for axis in range(grid.ndim)
        )
        self._inverse = 1 / eigenvalues

    def solve(self, f: np.ndarray) -> np.ndarray:
        """Returns u with ``K u = f`` for right-hand sides ``[N, *grid]`` in float64.

        The first and last planes of f along the first axis are ignored, those of u are zero.
        """
        inner = f[:, 1:-1].copy()
        for axis in self._natural:
            ends = np.moveaxis(inner, axis, 0)
            ends[0] *= 2
            ends[-1] *= 2
        spectrum = scipy.fft.dst(inner, type=1, axis=1, overwrite_x=True)
        if self._natural:
            spectrum = scipy.fft.dctn(spectrum, type=1, axes=self._natural, overwrite_x=True)
        spectrum *= self._inverse
        if self._natural:
            spectrum = scipy.fft.idctn(spectrum, type=1, axes=self._natural, overwrite_x=True)
        u = np.zeros_like(f)
        u[:, 1:-1] = scipy.fft.idst(spectrum, type=1, axis=1, overwrite_x=True)
        return u
