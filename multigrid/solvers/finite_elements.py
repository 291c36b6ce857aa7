"""Bilinear and trilinear (Q1) finite elements for div(nu grad u) = 0.

nu is given at the nodes, interpolated in each element like u itself, and all integrals are exact:
the energy, the matrix and the solution belong to one and the same discretisation.
"""

from functools import reduce
from itertools import product
from typing import Any

import numpy as np
import scipy

from multigrid.grid import Grid
from multigrid.solvers.conjugate_gradients import conjugate_gradients


class StiffnessOperator:
    """The stiffness matrices K of nodal coefficients: ``1/2 u K u = 1/2 int nu |grad u|^2``.

    Kept as stencils: for each of the 3^d offsets between nodes that share an element an array of
    entries, of which symmetry saves nearly half. The coefficients nu ``[N, *grid]``, at all nodes,
    are an array or torch tensor.
    """

    def __init__(self, nu: Any, spacing: tuple[float, ...]) -> None:
        ndim, shape = len(spacing), nu.shape[1:]
        corners = list(product((0, 1), repeat=ndim))
        # where the corners of all elements are among the nodes
        nodes: list[Any] = [
            (..., *(slice(c, c + n - 1) for c, n in zip(corner, shape, strict=True)))
            for corner in corners
        ]
        triples = _triple_integrals(spacing)
        self._entries: dict[tuple[int, ...], Any] = {}
        for (p, a), (q, b) in product(enumerate(corners), repeat=2):
            offset = tuple(y - x for x, y in zip(a, b, strict=True))
            if offset < (0,) * ndim:
                continue
            if offset not in self._entries:
                self._entries[offset] = 0 * nu
            terms = (float(w) * nu[where] for w, where in zip(triples[p, q], nodes, strict=True))
            self._entries[offset][nodes[p]] += sum(terms)
        self._diagonal = self._entries.pop((0,) * ndim)

    def __call__(self, u: Any) -> Any:
        """Maps nodal values ``[N, *grid]``, of nu's library, to ``K u``, of the same shape."""
        image = self._diagonal * u
        for offset, entries in self._entries.items():
            low, high = _neighbours(offset)
            image[low] += entries[low] * u[high]
            image[high] += entries[low] * u[low]
        return image


def element_eigenvalues(grid: Grid) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the eigenvalues of the one-dimensional stiffness and mass matrices of each axis.

    They are ``2 (1 - cos theta) / h`` and ``h (2 + cos theta) / 3``, ``theta = pi k / n`` for n
    elements, with k = 1..n - 1 on the first axis, whose end nodes are given, else k = 0..n.
    """
    stiffness, mass = [], []
    for axis, (n, h) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
        k = np.arange(1, n - 1) if axis == 0 else np.arange(n)
        cosine = np.cos(np.pi * k / (n - 1))
        stiffness.append(2 * (1 - cosine) / h)
        mass.append(h * (2 + cosine) / 3)
    return stiffness, mass


class FastElements:
    """Inverse of the Q1 stiffness matrix of -Delta, Dirichlet on the first axis, else natural.

    A sum of tensor products of one-dimensional stiffness and mass matrices. Sine transforms of
    type 1 diagonalise them on the first axis, where both end nodes are given; cosine transforms of
    type 1 do so on the others, after the rows of the end nodes have been doubled.
    """

    def __init__(self, grid: Grid) -> None:
        self._natural = tuple(range(2, 1 + grid.ndim))
        stiffness, mass = element_eigenvalues(grid)
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
        natural: Any = {"type": 1, "axes": self._natural, "overwrite_x": True}
        spectrum = scipy.fft.dst(inner, type=1, axis=1, overwrite_x=True)
        spectrum = scipy.fft.dctn(spectrum, **natural) * self._inverse
        spectrum = scipy.fft.idctn(spectrum, **natural)
        u = np.zeros_like(f)
        u[:, 1:-1] = scipy.fft.idst(spectrum, type=1, axis=1, overwrite_x=True)
        return u


def solve_between_plates(nu: np.ndarray, grid: Grid, tolerance: float) -> np.ndarray:
    """Solves div(nu grad u) = 0, u = 1 at x = 0 and u = 0 at x = 1, natural elsewhere.

    x is the first axis. Conjugate gradients, preconditioned by the solver for nu = 1 scaled from
    both sides by ``nu^(-1/2)``, which suits coefficients that are smooth, whatever their contrast.
    nu and u are values ``[N, *grid]`` at nodes, with both boundary points on all axes.
    """
    elements = FastElements(grid)
    # one sample at a time, as iterations differ too much between samples to go together
    return np.concatenate([_solve_one(one[None], grid, elements, tolerance) for one in nu])


def _solve_one(nu: np.ndarray, grid: Grid, elements: FastElements, tolerance: float) -> np.ndarray:
    stiffness = StiffnessOperator(nu, grid.spacing)
    scale = 1 / np.sqrt(nu)

    def operator(u: np.ndarray) -> np.ndarray:
        image: np.ndarray = stiffness(u)
        image[:, [0, -1]] = 0
        return image

    def preconditioner(residual: np.ndarray) -> np.ndarray:
        return scale * elements.solve(scale * residual)

    first = grid.axes()[0].reshape(-1, *(1,) * (grid.ndim - 1))
    lift = np.broadcast_to(1 - first, nu.shape)
    return lift + conjugate_gradients(operator, -operator(lift), preconditioner, tolerance)


def _triple_integrals(spacing: tuple[float, ...]) -> np.ndarray:
    """Returns ``int grad phi_a . grad phi_b phi_c`` over one element, for all corners a, b, c."""
    same = np.eye(2)
    stiffness = [np.repeat((2 * same - 1)[:, :, None], 2, axis=2) / (2 * h) for h in spacing]
    equal = same[:, :, None] * same[:, None, :]
    mass = [h * (equal / 6 + 1 / 12) for h in spacing]
    kron: Any = np.kron
    total: np.ndarray = np.zeros((2 ** len(spacing),) * 3)
    for axis in range(len(spacing)):
        total += reduce(kron, [*mass[:axis], stiffness[axis], *mass[axis + 1 :]])
    return total


def _neighbours(offset: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Returns where the nodes i are that have a node i + offset, and where the latter are."""
    ends = {0: slice(None), 1: slice(None, -1), -1: slice(1, None)}
    low = (slice(None), *(ends[o] for o in offset))
    high = (slice(None), *(ends[-o] for o in offset))
    return low, high
