"""Reaction and diffusion of two species in a periodic box, one step in time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import Field

from multigrid.grid import Grid
from multigrid.problems.base import SpaceDimensions, Symmetries
from multigrid.problems.random_fields import GaussianField
from multigrid.problems.spectral import NumStarts, PeriodicModes, SpectralPDE, Substeps, TimeStep
from multigrid.registry import register_problem
from multigrid.solvers.exponential_runge_kutta import FourierModes, Term

Diffusivity = Annotated[float, Field(ge=0, le=1, description="a diffusivity in [0, 1]")]


@register_problem("reaction_diffusion")
@dataclass
class ReactionDiffusion(SpectralPDE):
    """The FitzHugh-Nagumo equations on the periodic unit box.

        u_t = D_u Laplace(u) + u - u^3 - k - v,    v_t = D_v Laplace(v) + u - v

    As in the diffusion-reaction case of PDEBench (arXiv 2210.07182), there with walls. A
    trajectory starts at t = 0 from two independent periodic Gaussian fields. A sample is the pair
    of states at t = j dt and t = (j + 1) dt of a trajectory of its own, j random: what a network
    has to map onto each other to be rolled out.

    Spectral in space on the very grid asked for, fourth order in time. With the defaults a state
    is off by 2e-5 for the steps in time, and by 2e-6 for the grid at 64 points along an axis, but
    by 4e-3 at 32: grids that resolve the fields agree on them, coarser ones do not.

    Args:
        ndim: Number of space dimensions.
        diffusivity_u: The number D_u.
        diffusivity_v: The number D_v.
        threshold: The number k.
        time_step: The time dt between the states of a pair.
        num_starts: The number of start times 0, dt, ..., of which one is drawn for each sample.
        substeps: Steps of the integrator within dt.
        num_modes: Highest mode of the first state along each axis.
    """

    fields = ("u", "v")
    symmetries = Symmetries(reflections=True, rotations=True, shifts=True)

    ndim: SpaceDimensions = 2
    diffusivity_u: Diffusivity = 1e-3
    diffusivity_v: Diffusivity = 5e-3
    threshold: Annotated[float, Field(ge=-1, le=1, description="a number in [-1, 1]")] = 5e-3
    time_step: TimeStep = 0.5
    num_starts: NumStarts = 10
    substeps: Substeps = 10
    num_modes: PeriodicModes = 8

    def symbol(self, modes: FourierModes) -> np.ndarray:
        """Returns ``D Laplace`` for both species."""
        return np.multiply.outer((self.diffusivity_u, self.diffusivity_v), modes.laplacian)

    def nonlinear(self, modes: FourierModes) -> Term:
        """Returns the reaction, evaluated at the points."""

        def reaction(spectrum: np.ndarray) -> np.ndarray:
            u, v = modes.to_points(spectrum).swapaxes(0, 1)
            return modes.to_modes(np.stack([u - u * u * u - self.threshold - v, u - v], axis=1))

        return reaction

    def first_states(self, grid: Grid, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Draws two independent Gaussian fields."""
        return np.stack([self._field.sample(grid.axes(), rngs) for _ in range(2)], axis=1)

    @cached_property
    def _field(self) -> GaussianField:
        return GaussianField(
            self.ndim, "periodic", smoothness=2.0, inverse_length=10.0, num_modes=self.num_modes
        )
