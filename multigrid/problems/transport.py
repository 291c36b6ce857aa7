"""Transport along a constant velocity, smooth and discontinuous, with exact solutions."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from multigrid.grid import Grid
from multigrid.problems.base import PDE, Symmetries
from multigrid.registry import register_problem

VELOCITY = (0.2, -0.2)
Coordinate = Annotated[float, Field(ge=-1, le=2, description="a coordinate in [-1, 2]")]
Length = Annotated[float, Field(gt=0, le=1, description="a length in (0, 1]")]


@dataclass
class Transport(PDE):
    """u_t + v . grad u = 0 on the plane, v = (0.2, -0.2): from u(0) to u(1) on the unit square.

        u(x, 1) = u(x - v, 0)

    After Raonic et al., Convolutional Neural Operators (arXiv 2302.01178). Nothing flows in, as
    u vanishes far from its bump, whose centre is uniform on (low, high)^2.

    Args:
        low: Smallest coordinate of centres.
        high: Largest coordinate of centres.
    """

    input_names = ("u_0",)
    output_names = ("u",)
    symmetries = Symmetries(linear=True, homogeneous=True)

    low: Coordinate = 0.2
    high: Coordinate = 0.4

    def sample(
        self, grid: Grid, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws first states ``[N, 1, *grid]`` and those at time 1, ``[N, 1, *grid]``."""
        centres = np.stack([rng.uniform(self.low, self.high, 2) for rng in rngs])
        sizes = np.array([self.draw_size(rng) for rng in rngs]).reshape(-1, 1, 1)
        first, last = (
            self.profile(_squared_distances(grid, centres + shift), sizes)[:, None]
            for shift in ((0.0, 0.0), VELOCITY)
        )
        return first, last

    @abstractmethod
    def draw_size(self, rng: np.random.Generator) -> float:
        """Draws the size of a bump."""

    @abstractmethod
    def profile(self, squared: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Returns a bump, given the squares of distances to its centre, ``[N, *grid]``."""


@register_problem("smooth_transport")
@dataclass
class SmoothTransport(Transport):
    """Transport of ``u = exp(-|x - c|^2 / (2 s)) / (2 pi s)``, scaled to a peak of one.

    The variance s is uniform on an interval. Out of distribution: centres in (0.4, 0.6)^2.

    Args:
        low: As in ``Transport``.
        high: As in ``Transport``.
        smallest: Smallest variance.
        largest: Largest variance.
    """

    smallest: Length = 0.003
    largest: Length = 0.009

    def draw_size(self, rng: np.random.Generator) -> float:
        """Draws a variance."""
        return float(rng.uniform(self.smallest, self.largest))

    def profile(self, squared: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Returns a Gaussian."""
        return np.exp(-squared / (2 * size))


@register_problem("discontinuous_transport")
@dataclass
class DiscontinuousTransport(Transport):
    """Transport of the indicator of a disc, the radius uniform on an interval.

    Out of distribution: centres in (0.4, 0.6)^2.

    Args:
        low: As in ``Transport``.
        high: As in ``Transport``.
        smallest: Smallest radius.
        largest: Largest radius.
    """

    smallest: Length = 0.1
    largest: Length = 0.2

    def draw_size(self, rng: np.random.Generator) -> float:
        """Draws a radius."""
        return float(rng.uniform(self.smallest, self.largest))

    def profile(self, squared: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Returns 1 within the disc, else 0."""
        return (squared <= size**2).astype(float)


def _squared_distances(grid: Grid, centres: np.ndarray) -> np.ndarray:
    """Returns the squares of the distances of points to centres ``[N, 2]``, ``[N, *grid]``."""
    x, y = ((axis - c[:, None]) ** 2 for axis, c in zip(grid.axes(), centres.T, strict=True))
    return x[:, :, None] + y[:, None, :]
