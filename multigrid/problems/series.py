"""Random fields as series of sines, of cosines or of periodic modes."""

from collections.abc import Sequence
from functools import reduce
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field

from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.problems.base import Generators, Problem

Basis = Literal["cosine", "periodic"]
Smoothness: TypeAlias = Annotated[
    float,
    Field(gt=0, le=10, description="the exponent alpha of (-Laplace + tau^2)^-alpha, in (0, 10]"),
]
InverseLength: TypeAlias = Annotated[
    float, Field(ge=0, le=1000, description="the tau of (-Laplace + tau^2)^-alpha, in [0, 1000]")
]
CosineModes: TypeAlias = Annotated[
    int, Field(ge=1, le=1024, description="the highest cosine mode along each axis, 1 to 1024")
]
SineModes: TypeAlias = Annotated[
    int, Field(ge=1, le=1024, description="the number of sine modes along each axis, 1 to 1024")
]


class SineSeries(Problem):
    """A problem whose input fields are sums of ``num_modes`` sines along each axis."""

    num_modes: int

    def check_grids(self, levels: Sequence[Grid]) -> None:
        """Checks that the points of the finest level tell the modes apart."""
        limit = min(levels[-1].shape)
        if self.num_modes > limit:
            raise UserError(
                f"problem.num_modes: {self.num_modes} sine modes need more than the {limit} points "
                f"of the finest level; at most {limit} are allowed"
            )


def sine_series(coefficients: np.ndarray, grid: Grid) -> np.ndarray:
    """Returns ``sum_k c_k prod_d sin(pi k_d x_d)``, k_d = 1..K, as ``[N, 1, *grid]``.

    The coefficients c_k of the fields are ``[N, K, ..., K]``.
    """
    values = coefficients
    for x, num_modes in zip(grid.axes(), coefficients.shape[1:], strict=True):
        modes = np.sin(np.pi * np.outer(x, np.arange(1, num_modes + 1)))
        values = np.tensordot(values, modes, axes=(1, 1))
    return values[:, None]


def squares(k: np.ndarray, ndim: int) -> np.ndarray:
    """Returns |k|^2 for all vectors of wavenumbers, given those of one axis."""
    total: np.ndarray = reduce(np.add.outer, [k**2] * ndim)
    return total


def gaussian_fields(
    axes: Sequence[np.ndarray],
    rngs: Generators,
    basis: Basis,
    smoothness: float,
    inverse_length: float,
    num_modes: int,
) -> np.ndarray:
    """Draws N fields N(0, (-Laplace + tau^2)^-alpha) on the unit box, cut after some modes.

    The constant mode is left out, so that each field has zero mean over the box, and the variance
    averaged over the box is scaled to one. The modes are fixed and not those of a grid: one set of
    random numbers gives one continuous field, whatever the points it is evaluated at.

    The ``cosine`` modes are products of cos(pi k x), k = 0..K = ``num_modes``, with zero normal
    derivatives on the boundary, as in GRF.m of Li et al., Fourier Neural Operator (arXiv
    2010.08895); ``periodic`` ones are products of 1, cos(2 pi k x) and sin(2 pi k x), k = 1..K.
    alpha is ``smoothness``, tau ``inverse_length``. Returns ``[N, *points]``, for points with
    coordinates ``axes`` along each axis.
    """
    k = np.arange(num_modes + 1)
    frequencies = np.pi * (2 * np.concatenate([k, k[1:]]) if basis == "periodic" else k)
    eigenvalues = squares(frequencies, len(axes))
    eigenvalues.flat[0] = np.inf  # no constant mode
    amplitudes = (eigenvalues + inverse_length**2) ** (-smoothness / 2)
    amplitudes /= np.sqrt(np.sum(amplitudes**2))
    values = amplitudes * np.stack([rng.standard_normal(amplitudes.shape) for rng in rngs])
    for x in axes:
        phases = np.outer(x, frequencies)
        modes = np.cos(phases)
        if basis == "periodic":
            modes[:, num_modes + 1 :] = np.sin(phases[:, num_modes + 1 :])
        modes[:, 1:] *= np.sqrt(2)  # orthonormal on the unit interval
        values = np.tensordot(values, modes, axes=(1, 1))
    return values
