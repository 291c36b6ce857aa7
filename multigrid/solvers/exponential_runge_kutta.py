"""Exponential time differencing for semilinear equations with periodic boundaries."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import scipy

from multigrid.grid import Grid

Term = Callable[[np.ndarray], np.ndarray]

CONTOUR_POINTS = 32


class FourierModes:
    """The modes of real fields on a periodic box, and what is done to them.

    Spectra are those of ``rfftn`` over the space axes, ``[N, components, *modes]``;
    ``wavenumbers`` are ``2 pi k / extent`` for each axis, to be broadcast over the modes.
    """

    def __init__(self, grid: Grid, extent: float = 1.0) -> None:
        self.grid = grid
        self._axes = tuple(range(2, 2 + grid.ndim))
        *others, last = grid.shape
        self._frequencies = np.meshgrid(
            *[np.fft.fftfreq(n, 1 / n) for n in others],
            np.fft.rfftfreq(last, 1 / last),
            indexing="ij",
            sparse=True,
        )
        self.wavenumbers = [2 * np.pi * k / extent for k in self._frequencies]

    def to_modes(self, points: np.ndarray) -> np.ndarray:
        """Transforms values at points ``[N, components, *grid]``."""
        return scipy.fft.rfftn(points, axes=self._axes)

    def to_points(self, modes: np.ndarray) -> np.ndarray:
        """Transforms back."""
        return scipy.fft.irfftn(modes, s=self.grid.shape, axes=self._axes)

    @cached_property
    def laplacian(self) -> np.ndarray:
        """The symbol of the Laplacian, ``[*modes]``."""
        return -sum(k**2 for k in self.wavenumbers)

    @cached_property
    def inverse_laplacian(self) -> np.ndarray:
        """Its inverse, zero for the constant mode, ``[*modes]``."""
        inverse = np.zeros_like(self.laplacian)
        np.divide(1, self.laplacian, out=inverse, where=self.laplacian != 0)
        return inverse

    @cached_property
    def gradient(self) -> list[np.ndarray]:
        """The symbols of the first derivatives, zero for the shortest wave of even grids."""
        pairs = zip(self.grid.shape, self.wavenumbers, strict=True)
        return [
            1j * (k if n % 2 else np.where(np.abs(k) < np.abs(k).max() * (1 - 0.5 / n), k, 0))
            for n, k in pairs
        ]

    @cached_property
    def resolved(self) -> np.ndarray:
        """The modes that products of two fields do not alias onto: two thirds, ``[*modes]``."""
        mask = np.ones((), dtype=bool)
        for k in self.wavenumbers:
            mask = mask & (np.abs(k) < 2 / 3 * np.abs(k).max())
        return mask

    def sampled(self, modes: np.ndarray, grid: Grid) -> np.ndarray:
        """Evaluates fields at the points of a coarser grid, whose waves may alias.

        This grid must be node-centred; the sizes of the other one divide its sizes.
        """
        pairs = zip(self.grid.shape, grid.shape, strict=True)
        where: tuple[Any, ...] = (..., *(slice(None, None, m // n) for m, n in pairs))
        return self.to_points(self._moved(modes, grid))[where]

    def truncated(self, modes: np.ndarray, grid: Grid) -> np.ndarray:
        """Evaluates the waves of fields that a coarser grid can have, at its points.

        This grid must be node-centred.
        """
        coarse = FourierModes(grid)
        pairs = zip(coarse._frequencies, grid.shape, strict=True)
        waves = [k[np.abs(k) < n / 2].astype(int) for k, n in pairs]
        where = (..., *np.ix_(*waves))  # a negative frequency is its place from the end
        spectrum = np.zeros((*modes.shape[:2], *coarse.laplacian.shape), dtype=complex)
        spectrum[where] = self._moved(modes, grid)[where]
        return coarse.to_points(grid.size / self.grid.size * spectrum)

    def _moved(self, modes: np.ndarray, grid: Grid) -> np.ndarray:
        """Moves fields so that the first point of a grid comes to lie at zero."""
        if grid.centering != "cell":
            return modes
        for k, h in zip(self._frequencies, grid.spacing, strict=True):
            modes = modes * np.exp(1j * np.pi * k * h)
        return modes


class ExponentialRungeKutta:
    """The fourth-order method ETDRK4 for ``u_t = L u + N(u)`` in Fourier modes.

    L is diagonal, with the symbol given, and exact in time. After Cox and Matthews, J. Comput.
    Phys. 176 (2002), with the coefficients as contour integrals of Kassam and Trefethen, SIAM J.
    Sci. Comput. 26 (2005).

    Args:
        symbol: L for each mode, ``[components, *modes]``, real or complex.
        nonlinear: Maps modes ``[N, components, *modes]`` to those of N(u).
        modes: Transforms between points and modes.
        step: Time step.
    """

    def __init__(self, symbol: np.ndarray, nonlinear: Term, modes: Any, step: float) -> None:
        self._nonlinear = nonlinear
        self.modes = modes
        z = step * symbol
        self._half_decay, self._decay = np.exp(z / 2), np.exp(z)
        self._half, self._first, self._middle, self._last = (step * w for w in _weights(z))

    def advance(self, state: np.ndarray, num_steps: int) -> np.ndarray:
        """Returns the states ``[N, components, *grid]`` after a number of steps."""
        spectrum = self.modes.to_modes(state)
        for _ in range(num_steps):
            spectrum = self._advance_once(spectrum)
        return self.modes.to_points(spectrum)

    def _advance_once(self, spectrum: np.ndarray) -> np.ndarray:
        at_start = self._nonlinear(spectrum)
        half = self._half_decay * spectrum
        a = half + self._half * at_start
        at_a = self._nonlinear(a)
        at_b = self._nonlinear(half + self._half * at_a)
        c = self._half_decay * a + self._half * (2 * at_b - at_start)
        total = self._decay * spectrum + self._first * at_start + self._middle * (at_a + at_b)
        return total + self._last * self._nonlinear(c)


def _weights(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the weights of ETDRK4 for a step of one.

    Averages over circles around z replace formulas that cancel where z is small; for real z half
    a circle is enough.
    """
    real = not np.iscomplexobj(z)
    half, first, middle, last = (np.zeros_like(z) for _ in range(4))
    for angle in (1 if real else 2) * np.pi * (np.arange(CONTOUR_POINTS) + 0.5) / CONTOUR_POINTS:
        r = z + np.exp(1j * angle)
        e = np.exp(r)
        terms = (
            (np.exp(r / 2) - 1) / r,
            (-4 - r + e * (4 - 3 * r + r**2)) / r**3,
            2 * ((2 + r + e * (r - 2)) / r**3),
            (-4 - 3 * r - r**2 + e * (4 - r)) / r**3,
        )
        for total, value in zip((half, first, middle, last), terms, strict=True):
            total += value.real if real else value
    return tuple(total / CONTOUR_POINTS for total in (half, first, middle, last))  # type: ignore[return-value]
