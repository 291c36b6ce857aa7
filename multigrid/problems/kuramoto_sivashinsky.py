"""The Kuramoto-Sivashinsky equation: chaos of short waves that grow and shorter ones that decay."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import Field

from multigrid.grid import Grid
from multigrid.problems.base import SpaceDimensions, Symmetries
from multigrid.problems.random_fields import GaussianField
from multigrid.problems.spectral import (
    FirstStart,
    NumStarts,
    PeriodicModes,
    Resolution,
    SpectralPDE,
    Substeps,
    TimeStep,
)
from multigrid.registry import register_problem
from multigrid.solvers.exponential_runge_kutta import FourierModes, Term


@register_problem("kuramoto_sivashinsky")
@dataclass
class KuramotoSivashinsky(SpectralPDE):
    """u_t = -Laplace(u) - Laplace^2(u) - |grad u|^2 / 2 in a periodic box, less its mean.

    The mean of u, which decreases for ever and nothing depends on, stays zero. A trajectory
    starts from a smooth Gaussian field; start times leave out the transient. Laplace^2 is the whole
    biharmonic operator; in APEBench's data its mixed derivatives are left out.

    Args:
        ndim: Number of space dimensions.
        extent: Length of the box along each axis; about extent / 9 waves fit in.
        num_modes: Highest mode of the first state along each axis.
        time_step: Time between two states.
        substeps: Steps of the integrator within it.
        num_starts: Number of start times, of which one is drawn for each sample.
        first_start: The first of them, in time steps.
        resolution: Points along an axis that are solved on at least.
    """

    fields = ("u",)
    symmetries = Symmetries(reflections=True, rotations=True, shifts=True)

    ndim: SpaceDimensions = 2
    extent: Annotated[float, Field(gt=0, le=1000, description="a length in (0, 1000]")] = 60.0
    num_modes: PeriodicModes = 4
    time_step: TimeStep = 1.0
    substeps: Substeps = 5
    num_starts: NumStarts = 50
    first_start: FirstStart = 50
    resolution: Resolution = 64

    def symbol(self, modes: FourierModes) -> np.ndarray:
        """Returns ``-Laplace - Laplace^2``."""
        return (-modes.laplacian - modes.laplacian**2)[None]

    def nonlinear(self, modes: FourierModes) -> Term:
        """Returns ``-|grad u|^2 / 2`` without its mean."""
        keep = modes.resolved & (modes.laplacian != 0)

        def term(u: np.ndarray) -> np.ndarray:
            slopes = modes.to_points(np.concatenate([d * u for d in modes.gradient], axis=1))
            return -0.5 * keep * modes.to_modes(np.sum(slopes**2, axis=1, keepdims=True))

        return term

    def first_states(self, grid: Grid, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Draws Gaussian fields of standard deviation one."""
        return self._field.sample(grid.axes(), rngs)[:, None]

    @cached_property
    def _field(self) -> GaussianField:
        return GaussianField(self.ndim, "periodic", 2.0, 10.0, self.num_modes)
