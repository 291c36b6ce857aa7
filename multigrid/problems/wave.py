"""The wave equation with fixed ends, of the Convolutional Neural Operator's benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import Field

from multigrid.grid import Grid
from multigrid.problems.base import PDE, SpaceDimensions, Symmetries
from multigrid.problems.poisson import SineModes, check_modes, sine_series
from multigrid.registry import register_problem

Decay = Annotated[float, Field(ge=0, le=5, description="the exponent r of (|k|^2)^-r, in [0, 5]")]


@register_problem("wave")
@dataclass
class Wave(PDE):
    """u_tt = c^2 Laplace(u) on the unit box, u = 0 on its boundary, u_t = 0 at first: u(T).

        u(0) = (pi / K^d) sum_k a_k |k|^(-2 r) prod_i sin(pi k_i x_i),
        u(T) = (pi / K^d) sum_k a_k |k|^(-2 r) cos(c pi |k| T) prod_i sin(pi k_i x_i)

    with k_i = 1..K and a_k uniform on [-1, 1]: the exact solution. After Raonic et al.,
    Convolutional Neural Operators (arXiv 2302.01178), with K = 24 and r = 1, and K = 32 and
    r = 0.85 out of distribution.

    Args:
        ndim: Number of space dimensions d.
        num_modes: The number K.
        decay: The exponent r.
        speed: The speed c.
        time: The time T.
    """

    input_names = ("u_0",)
    output_names = ("u",)
    symmetries = Symmetries(reflections=True, rotations=True, linear=True, homogeneous=True)

    ndim: SpaceDimensions = 2
    num_modes: SineModes = 24
    decay: Decay = 1.0
    speed: Annotated[float, Field(gt=0, le=100, description="a speed in (0, 100]")] = 0.1
    time: Annotated[float, Field(gt=0, le=1000, description="a time in (0, 1000]")] = 5.0

    def check_grids(self, levels: Sequence[Grid]) -> None:
        """Checks that the points of the finest level tell the modes apart."""
        check_modes(self.num_modes, levels[-1])

    def sample(
        self, grid: Grid, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws first states ``[N, 1, *grid]`` and those at the time T, ``[N, 1, *grid]``."""
        first = random_sines(self.num_modes, self.decay, self.ndim, rngs)
        last = first * np.cos(self.speed * np.pi * self.time * np.sqrt(self._squares))
        return sine_series(first, grid)[:, None], sine_series(last, grid)[:, None]

    @cached_property
    def _squares(self) -> np.ndarray:
        return squares(self.num_modes, self.ndim)


def squares(num_modes: int, ndim: int) -> np.ndarray:
    """Returns |k|^2 for the modes 1..K along each axis."""
    k = np.arange(1.0, num_modes + 1)
    return sum(np.meshgrid(*[k**2] * ndim, indexing="ij", sparse=True))  # type: ignore[return-value]


def random_sines(
    num_modes: int, decay: float, ndim: int, rngs: Sequence[np.random.Generator]
) -> np.ndarray:
    """Draws ``(pi / K^d) a_k |k|^(-2 r)`` with a_k uniform on [-1, 1], ``[N, K, ..., K]``."""
    amplitudes = np.pi / num_modes**ndim * squares(num_modes, ndim) ** -decay
    return np.stack([amplitudes * rng.uniform(-1, 1, amplitudes.shape) for rng in rngs])
