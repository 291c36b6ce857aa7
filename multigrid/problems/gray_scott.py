"""The Gray-Scott equations: spots and stripes of two chemicals in a periodic box."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from multigrid.grid import Grid
from multigrid.problems.base import SpaceDimensions, Symmetries
from multigrid.problems.spectral import (
    FirstStart,
    NumStarts,
    Resolution,
    SpectralPDE,
    Substeps,
    TimeStep,
)
from multigrid.registry import register_problem
from multigrid.solvers.exponential_runge_kutta import FourierModes, Term

Share = Annotated[float, Field(gt=0, le=1, description="a number in (0, 1]")]
SPOT = 0.03
"""Standard deviation of the first spots, over the length of the box."""


@register_problem("gray_scott")
@dataclass
class GrayScott(SpectralPDE):
    """Two chemicals u and v that react and diffuse in a periodic box.

        u_t = D_u Laplace(u) - u v^2 + F (1 - u),    v_t = D_v Laplace(v) + u v^2 - (F + k) v

    After Pearson, Science 261 (1993), as in The Well (arXiv 2412.00568). A trajectory starts from
    ``v = (1 - exp(-s)) / 2, u = 1 - v``, s a sum of Gaussian spots at random places.

    Args:
        ndim: Number of space dimensions.
        extent: Length of the box along each axis.
        diffusivity_u: The number D_u.
        diffusivity_v: The number D_v.
        feed: The number F.
        kill: The number k.
        num_spots: Number of spots at first.
        time_step: Time between two states.
        substeps: Steps of the integrator within it.
        num_starts: Number of start times, of which one is drawn for each sample.
        first_start: The first of them, in time steps.
        resolution: Points along an axis that are solved on at least.
    """

    fields = ("u", "v")
    symmetries = Symmetries(reflections=True, rotations=True, shifts=True)

    ndim: SpaceDimensions = 2
    extent: Annotated[float, Field(gt=0, le=100, description="a length in (0, 100]")] = 2.0
    diffusivity_u: Share = 2e-5
    diffusivity_v: Share = 1e-5
    feed: Share = 0.04
    kill: Share = 0.06
    num_spots: Annotated[int, Field(ge=1, le=1000, description="a number, 1 to 1000")] = 20
    time_step: TimeStep = 20.0
    substeps: Substeps = 10
    num_starts: NumStarts = 50
    first_start: FirstStart = 5
    resolution: Resolution = 128

    def symbol(self, modes: FourierModes) -> np.ndarray:
        """Returns ``D_u Laplace - F`` and ``D_v Laplace - F - k``."""
        u = self.diffusivity_u * modes.laplacian - self.feed
        return np.stack([u, self.diffusivity_v * modes.laplacian - self.feed - self.kill])

    def nonlinear(self, modes: FourierModes) -> Term:
        """Returns ``-u v^2 + F`` and ``u v^2``, evaluated at the points."""

        def term(spectrum: np.ndarray) -> np.ndarray:
            u, v = modes.to_points(spectrum).swapaxes(0, 1)
            turned = u * v**2
            return modes.to_modes(np.stack([self.feed - turned, turned], axis=1))

        return term

    def first_states(self, grid: Grid, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Draws spots."""
        spots = np.zeros((len(rngs), *grid.shape))
        for total, rng in zip(spots, rngs, strict=True):
            for centre in rng.uniform(0, 1, (self.num_spots, self.ndim)):
                spot = np.ones(())
                for x, c in zip(grid.axes(), centre, strict=True):
                    distance = (x - c + 0.5) % 1 - 0.5
                    spot = np.multiply.outer(spot, np.exp(-(distance**2) / (2 * SPOT**2)))
                total += spot
        v = (1 - np.exp(-spots)) / 2
        return np.stack([1 - v, v], axis=1)
