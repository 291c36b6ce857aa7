"""The Poisson problem of the Convolutional Neural Operator's benchmarks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from multigrid.grid import Grid
from multigrid.problems.base import Symmetries
from multigrid.problems.elliptic import EllipticPDE
from multigrid.problems.poisson import sine_series


class CNOPoisson(EllipticPDE):
    """-Laplace(u) = f on the unit square, u = 0 on its boundary, f a random multiscale field.

        f = (pi / K^2) sum_ij a_ij (i^2 + j^2)^(1/2) sin(pi i x) sin(pi j y)
        u = (1 / (pi K^2)) sum_ij a_ij (i^2 + j^2)^(-1/2) sin(pi i x) sin(pi j y)

    with i, j = 1..K and a_ij uniform on [-1, 1]: the exact solution of the differential equation,
    evaluated at the points of the grid, cell centres or nodes. After Raonic et al., Convolutional
    Neural Operators (arXiv 2302.01178), with K = 16, and K = 20 out of distribution.

    Args:
        num_modes: The number K.
    """

    kind = "cno_poisson"
    version = 1
    input_names = ("f",)
    output_names = ("u",)
    symmetries = Symmetries(
        reflections=True, rotations=True, linear=True, homogeneous=True, mode_shifts=True
    )

    def __init__(self, num_modes: int = 16) -> None:
        self.num_modes = num_modes
        k = np.arange(1, num_modes + 1)
        self._wavenumbers = np.hypot(k[:, None], k)

    def sample(
        self, grid: Grid, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws right-hand sides ``[N, 1, *grid]`` and their solutions ``[N, 1, *grid]``."""
        a = np.stack([rng.uniform(-1, 1, self._wavenumbers.shape) for rng in rngs])
        f = sine_series(np.pi / self.num_modes**2 * a * self._wavenumbers, grid)
        u = sine_series(a / self._wavenumbers / (np.pi * self.num_modes**2), grid)
        return f[:, None], u[:, None]

    @staticmethod
    def terms(inputs: Any) -> tuple[Any, Any]:
        """Returns 1 and f."""
        f = inputs[:, 0]
        return 0 * f + 1, f
