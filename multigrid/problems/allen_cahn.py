"""The Allen-Cahn equation with fixed ends, of the Convolutional Neural Operator's benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy
from pydantic import Field

from multigrid.grid import Grid
from multigrid.problems.base import PDE, Symmetries
from multigrid.problems.poisson import SineModes, check_modes, sine_series
from multigrid.problems.spectral import Resolution, Substeps
from multigrid.problems.wave import Decay, random_sines, squares
from multigrid.registry import register_problem
from multigrid.solvers.exponential_runge_kutta import ExponentialRungeKutta


@register_problem("allen_cahn")
@dataclass
class AllenCahn(PDE):
    """u_t = Laplace(u) - e^2 u (u^2 - 1) on the unit square, u = 0 on its boundary: u(0) to u(T).

    The first state is that of :class:`multigrid.problems.wave.Wave`. After Raonic et al.,
    Convolutional Neural Operators (arXiv 2302.01178), with e = 220, T = 2e-4, K = 24, r = 1, and
    K = 16, r between 0.85 and 1.15 out of distribution. Interfaces are 1 / e wide, less than the
    spacing of their 64x64 grid. Spectral in sines of the solver's grid, which is finer than the
    one asked for, and fourth order in time.

    Args:
        rate: The number e.
        time: The time T.
        num_modes: The number K.
        decay: The exponent r, or the smallest one.
        largest_decay: The largest exponent r, uniform from sample to sample; null for one alone.
        resolution: Intervals along an axis that are solved on.
        substeps: Steps of the integrator.
    """

    input_names = ("u_0",)
    output_names = ("u",)
    symmetries = Symmetries(reflections=True, rotations=True)

    rate: Annotated[float, Field(gt=0, le=1000, description="a number in (0, 1000]")] = 220.0
    time: Annotated[float, Field(gt=0, le=1, description="a time in (0, 1]")] = 2e-4
    num_modes: SineModes = 24
    decay: Decay = 1.0
    largest_decay: Annotated[
        float | None, Field(ge=0, le=5, description="an exponent in [0, 5] or null")
    ] = None
    resolution: Resolution = 192
    substeps: Substeps = 40

    def check_grids(self, levels: Sequence[Grid]) -> None:
        """Checks that the points of the finest level tell the first modes apart."""
        check_modes(self.num_modes, levels[-1])

    def sample(
        self, grid: Grid, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws first states ``[N, 1, *grid]`` and those at the time T, ``[N, 1, *grid]``."""
        first = np.concatenate([self._first(rng) for rng in rngs])
        return sine_series(first, grid)[:, None], sine_series(self.advance(first), grid)[:, None]

    def advance(self, first: np.ndarray) -> np.ndarray:
        """Returns the sine coefficients at the time T.

        Args:
            first: Those at t = 0, ``[N, K, K]`` with any K up to the number of the solver's modes.

        Returns:
            ``[N, n, n]``, n being the number of inner nodes of the solver's grid.
        """
        modes = SineModes2D(max(self.resolution, self.num_modes + 1))
        start = np.zeros((len(first), modes.size, modes.size))
        start[:, : first.shape[1], : first.shape[2]] = first
        square = self.rate**2

        def term(spectrum: np.ndarray) -> np.ndarray:
            return -square * modes.to_modes(modes.to_points(spectrum) ** 3)

        symbol = square - np.pi**2 * squares(modes.size, 2)
        flow = ExponentialRungeKutta(symbol, term, modes, self.time / self.substeps)
        return modes.to_modes(flow.advance(modes.to_points(start), self.substeps))

    def _first(self, rng: np.random.Generator) -> np.ndarray:
        """Draws the coefficients of a first state, ``[1, K, K]``."""
        decay = self.decay
        if self.largest_decay is not None:
            decay = rng.uniform(self.decay, self.largest_decay)
        return random_sines(self.num_modes, decay, 2, [rng])


class SineModes2D:
    """Sines on the unit square with some number of intervals along each axis.

    Args:
        intervals: Number of intervals; there is one mode less.
    """

    def __init__(self, intervals: int) -> None:
        self.size = intervals - 1

    def to_modes(self, points: np.ndarray) -> np.ndarray:
        """Transforms values at the inner nodes ``[N, n, n]`` to coefficients."""
        return scipy.fft.dstn(points, 1, axes=(1, 2)) / (self.size + 1) ** 2

    def to_points(self, modes: np.ndarray) -> np.ndarray:
        """Transforms back."""
        return scipy.fft.dstn(modes, 1, axes=(1, 2)) / 4
