"""The Poisson problem of the Convolutional Neural Operator's benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from multigrid.grid import Grid
from multigrid.problems.poisson import SineModes, SinePoisson, sine_series
from multigrid.registry import register_problem


@register_problem("cno_poisson")
@dataclass
class CNOPoisson(SinePoisson):
    """-Laplace(u) = f on the unit square, u = 0 on its boundary, f a random multiscale field.

        f = (pi / K^2) sum_ij a_ij (i^2 + j^2)^(1/2) sin(pi i x) sin(pi j y)
        u = (1 / (pi K^2)) sum_ij a_ij (i^2 + j^2)^(-1/2) sin(pi i x) sin(pi j y)

    with i, j = 1..K and a_ij uniform on [-1, 1]: the exact solution of the differential equation,
    evaluated at the points of the grid, cell centres or nodes. After Raonic et al., Convolutional
    Neural Operators (arXiv 2302.01178), with K = 16, and K = 20 out of distribution.

    Args:
        num_modes: The number K.
    """

    num_modes: SineModes = 16

    def sample(
        self, grid: Grid, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws right-hand sides ``[N, 1, *grid]`` and their solutions ``[N, 1, *grid]``."""
        k = np.arange(1, self.num_modes + 1)
        wavenumbers = np.hypot(k[:, None], k)
        a = np.stack([rng.uniform(-1, 1, wavenumbers.shape) for rng in rngs])
        f = sine_series(np.pi / self.num_modes**2 * a * wavenumbers, grid)
        u = sine_series(a / wavenumbers / (np.pi * self.num_modes**2), grid)
        return f[:, None], u[:, None]
