"""Reaction and diffusion of two species in a periodic box, one step in time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import Field

from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.problems.base import PDE, SpaceDimensions, Symmetries
from multigrid.problems.random_fields import GaussianField
from multigrid.registry import register_problem
from multigrid.solvers.exponential_runge_kutta import ExponentialRungeKutta

Diffusivity = Annotated[float, Field(ge=0, le=1, description="a diffusivity in [0, 1]")]


@register_problem("reaction_diffusion")
@dataclass
class ReactionDiffusion(PDE):
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

    input_names = ("u", "v")
    output_names = ("u_next", "v_next")
    symmetries = Symmetries(reflections=True, rotations=True, shifts=True)
    periodic = True
    time_dependent = True

    ndim: SpaceDimensions = 2
    diffusivity_u: Diffusivity = 1e-3
    diffusivity_v: Diffusivity = 5e-3
    threshold: Annotated[float, Field(ge=-1, le=1, description="a number in [-1, 1]")] = 5e-3
    time_step: Annotated[float, Field(gt=0, le=10, description="a time in (0, 10]")] = 0.5
    num_starts: Annotated[
        int, Field(ge=1, le=1000, description="a number of start times, 1 to 1000")
    ] = 10
    substeps: Annotated[
        int,
        Field(ge=1, le=10_000, description="the integrator's steps within time_step, 1 to 10000"),
    ] = 10
    num_modes: Annotated[
        int, Field(ge=1, le=64, description="the highest mode of the first state, 1 to 64")
    ] = 8

    def check_grids(self, levels: Sequence[Grid]) -> None:
        """Checks that the grids are periodic."""
        check_periodic(self.kind, levels)

    def sample(
        self, grid: Grid, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws states ``[N, 2, *grid]`` and those a time step later, ``[N, 2, *grid]``.

        Raises:
            UserError: If the grid is not periodic.
        """
        integrator = self._integrator(grid)
        inputs = self._first_states(grid, rngs)
        starts = np.array([rng.integers(self.num_starts) for rng in rngs])
        for time in range(starts.max()):
            later = starts > time
            inputs[later] = integrator.advance(inputs[later], self.substeps)
        return inputs, integrator.advance(inputs, self.substeps)

    def trajectory(self, grid: Grid, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        """Returns the states at t = 0, dt, ..., of the trajectory a sample would be taken from.

        Args:
            grid: Periodic grid.
            rng: Source of randomness of the first state.
            num_steps: Number of time steps dt.

        Returns:
            Array ``[num_steps + 1, 2, *grid]``.

        Raises:
            UserError: If the grid is not periodic.
        """
        integrator = self._integrator(grid)
        states = [self._first_states(grid, [rng])]
        for _ in range(num_steps):
            states.append(integrator.advance(states[-1], self.substeps))
        return np.concatenate(states)

    @cached_property
    def _field(self) -> GaussianField:
        return GaussianField(
            self.ndim, "periodic", smoothness=2.0, inverse_length=10.0, num_modes=self.num_modes
        )

    def _integrator(self, grid: Grid) -> ExponentialRungeKutta:
        if not grid.is_open:
            raise UserError(
                "reaction_diffusion needs a cell-centred grid, or a node-centred one with even "
                f"sizes, not a node-centred {grid}"
            )
        diffusivities = (self.diffusivity_u, self.diffusivity_v)
        step = self.time_step / self.substeps
        return ExponentialRungeKutta(diffusivities, self._reaction, grid, step)

    def _first_states(self, grid: Grid, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        return np.stack([self._field.sample(grid.axes(), rngs) for _ in range(2)], axis=1)

    def _reaction(self, states: np.ndarray) -> np.ndarray:
        u, v = states[:, 0], states[:, 1]
        return np.stack([u - u * u * u - self.threshold - v, u - v], axis=1)


def check_periodic(kind: str, levels: Sequence[Grid]) -> None:
    """Checks that the grids of a ladder have no boundary points.

    Raises:
        UserError: If nodes have both ends of an axis.
    """
    finest = levels[-1]
    if finest.centering == "node" and any(n % 2 for n in finest.shape):
        raise UserError(
            f"levels[{len(levels) - 1}]: problem '{kind}' is periodic, which nodes with both "
            f"boundary points are not: the sizes of {finest} must be even"
        )
