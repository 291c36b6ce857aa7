"""Burgers' equation for a velocity in a periodic box: steep fronts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from multigrid.grid import Grid
from multigrid.problems.base import SpaceDimensions, Symmetries
from multigrid.problems.random_fields import GaussianField
from multigrid.problems.spectral import (
    NumStarts,
    PeriodicModes,
    Resolution,
    SpectralPDE,
    Substeps,
    TimeStep,
    Viscosity,
)
from multigrid.registry import register_problem
from multigrid.solvers.exponential_runge_kutta import FourierModes, Term


@register_problem("burgers")
@dataclass
class Burgers(SpectralPDE):
    """u_t + (u . grad) u = nu Laplace(u) in the periodic unit box, u with a component an axis.

    A trajectory starts from independent Gaussian fields of standard deviation one half. Mirroring
    an axis turns a component round, so that shifts are the only symmetry that is made use of.

    Args:
        ndim: Number of space dimensions.
        viscosity: The number nu.
        num_modes: Highest mode of the first state along each axis.
        time_step: Time between two states.
        substeps: Steps of the integrator within it.
        num_starts: Number of start times, of which one is drawn for each sample.
        resolution: Points along an axis that are solved on at least.
    """

    symmetries = Symmetries(shifts=True)

    ndim: SpaceDimensions = 2
    viscosity: Viscosity = 5e-3
    num_modes: PeriodicModes = 4
    time_step: TimeStep = 0.1
    substeps: Substeps = 20
    num_starts: NumStarts = 5
    resolution: Resolution = 128

    def __post_init__(self) -> None:
        self.fields = ("u", "v", "w")[: self.ndim]
        super().__post_init__()

    def symbol(self, modes: FourierModes) -> np.ndarray:
        """Returns ``nu Laplace`` for each component."""
        return np.stack([self.viscosity * modes.laplacian] * self.ndim)

    def nonlinear(self, modes: FourierModes) -> Term:
        """Returns ``-(u . grad) u``."""

        def term(u: np.ndarray) -> np.ndarray:
            speeds = modes.to_points(u)
            slopes = [modes.to_points(d * u) for d in modes.gradient]
            total = sum(speeds[:, i : i + 1] * slope for i, slope in enumerate(slopes))
            return modes.resolved * modes.to_modes(-total)

        return term

    def first_states(self, grid: Grid, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Draws independent Gaussian fields."""
        fields = [self._field.sample(grid.axes(), rngs) for _ in range(self.ndim)]
        return 0.5 * np.stack(fields, axis=1)

    @cached_property
    def _field(self) -> GaussianField:
        return GaussianField(self.ndim, "periodic", 2.0, 10.0, self.num_modes)
