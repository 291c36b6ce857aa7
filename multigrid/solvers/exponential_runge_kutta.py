"""Exponential time differencing for semilinear equations with periodic boundaries."""

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import scipy

from multigrid.grid import Grid

Reaction = Callable[[np.ndarray], np.ndarray]

CONTOUR_POINTS = 32


class ExponentialRungeKutta:
    """The fourth-order method ETDRK4 for ``u_t = D Laplace(u) + r(u)`` on the periodic unit box.

    Spectral in space: diffusion is exact in the Fourier modes of the grid, the reaction is
    evaluated at its points. After Cox and Matthews, J. Comput. Phys. 176 (2002), with the
    coefficients as contour integrals of Kassam and Trefethen, SIAM J. Sci. Comput. 26 (2005).

    Args:
        diffusivities: D of each component.
        reaction: Maps states ``[N, components, *grid]`` to r(u), of the same shape.
        grid: Periodic grid: cell-centred, or node-centred with even sizes.
        step: Time step.
    """

    def __init__(
        self, diffusivities: Sequence[float], reaction: Reaction, grid: Grid, step: float
    ) -> None:
        self._reaction = reaction
        self._shape = grid.shape
        self._axes = tuple(range(2, 2 + grid.ndim))
        z = step * np.multiply.outer(np.asarray(diffusivities), _laplacian(grid))
        self._half_decay, self._decay = np.exp(z / 2), np.exp(z)
        self._half, self._first, self._middle, self._last = (
            step * weights for weights in _weights(z)
        )

    def advance(self, state: np.ndarray, num_steps: int) -> np.ndarray:
        """Returns the states ``[N, components, *grid]`` after a number of steps."""
        spectrum = scipy.fft.rfftn(state, axes=self._axes)
        for _ in range(num_steps):
            spectrum = self._advance_once(spectrum)
        return self._to_points(spectrum)

    def _advance_once(self, spectrum: np.ndarray) -> np.ndarray:
        at_start = self._react(spectrum)
        half = self._half_decay * spectrum
        a = half + self._half * at_start
        at_a = self._react(a)
        at_b = self._react(half + self._half * at_a)
        c = self._half_decay * a + self._half * (2 * at_b - at_start)
        at_c = self._react(c)
        return (
            self._decay * spectrum
            + self._first * at_start
            + self._middle * (at_a + at_b)
            + self._last * at_c
        )

    def _react(self, spectrum: np.ndarray) -> np.ndarray:
        return scipy.fft.rfftn(self._reaction(self._to_points(spectrum)), axes=self._axes)

    def _to_points(self, spectrum: np.ndarray) -> np.ndarray:
        return scipy.fft.irfftn(spectrum, s=self._shape, axes=self._axes)


def _laplacian(grid: Grid) -> np.ndarray:
    """Returns the symbol of the Laplacian for the modes of a real transform."""
    *others, last = grid.shape
    frequencies = [np.fft.fftfreq(n, 1 / n) for n in others] + [np.fft.rfftfreq(last, 1 / last)]
    return -reduce(np.add.outer, [(2 * np.pi * k) ** 2 for k in frequencies])


def _weights(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the weights of ETDRK4, for real z and a step of one.

    Averages over circles around z replace formulas that cancel where z is small.
    """
    half, first, middle, last = (np.zeros_like(z) for _ in range(4))
    for angle in np.pi * (np.arange(CONTOUR_POINTS) + 0.5) / CONTOUR_POINTS:
        r = z + np.exp(1j * angle)
        e = np.exp(r)
        half += ((np.exp(r / 2) - 1) / r).real
        first += ((-4 - r + e * (4 - 3 * r + r**2)) / r**3).real
        middle += 2 * ((2 + r + e * (r - 2)) / r**3).real
        last += ((-4 - 3 * r - r**2 + e * (4 - r)) / r**3).real
    return tuple(total / CONTOUR_POINTS for total in (half, first, middle, last))  # type: ignore[return-value]
