"""Periodic equations in time, solved by one spectral integrator: each gives its two terms."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Annotated, TypeAlias

import numpy as np
from pydantic import Field

from multigrid.grid import Grid
from multigrid.problems.base import PDE, Generators, Pair
from multigrid.problems.series import gaussian_fields
from multigrid.solvers.exponential_runge_kutta import ExponentialRungeKutta, FourierModes, Term

TimeStep: TypeAlias = Annotated[
    float, Field(gt=0, le=1000, description="the time between two states, in (0, 1000]")
]
Substeps: TypeAlias = Annotated[
    int, Field(ge=1, le=10_000, description="the integrator's steps within time_step, 1 to 10000")
]
NumStarts: TypeAlias = Annotated[
    int, Field(ge=1, le=1000, description="the start times to draw from, 1 to 1000")
]
FirstStart: TypeAlias = Annotated[
    int, Field(ge=0, le=10_000, description="time steps before the first start time, 0 to 10000")
]
Resolution: TypeAlias = Annotated[
    int, Field(ge=1, le=4096, description="the least number of points along an axis, 1 to 4096")
]
PeriodicModes: TypeAlias = Annotated[
    int, Field(ge=1, le=256, description="the highest mode of the first state, 1 to 256")
]
Viscosity: TypeAlias = Annotated[float, Field(gt=0, le=1, description="a viscosity in (0, 1]")]
CACHED_POINTS = 2**14
"""Points of the samples that are solved at once. More leave a core's cache: on 128x128, a step for
16 samples together takes four times as long for each as a step for one."""


def in_groups(sample: Callable[[Generators], Pair], num_points: int, rngs: Generators) -> Pair:
    """Draws samples of so many points in groups that fit into the cache."""
    size = max(1, CACHED_POINTS // num_points)
    pairs = [sample(rngs[start : start + size]) for start in range(0, len(rngs), size)]
    first, last = (np.concatenate(fields) for fields in zip(*pairs, strict=True))
    return first, last


class SpectralPDE(PDE):
    """``u_t = L u + N(u)`` in a periodic box, L diagonal in Fourier modes.

    A sample is a pair of blocks of consecutive states, time dt apart, of a trajectory of its own:
    the first block starts at a random time out of a few. With one state in a block, the default,
    a network has to map a state onto the next one.

    A subclass is a dataclass of parameters, of which ``time_step`` and ``substeps`` are needed,
    and gives ``fields`` and the methods :meth:`symbol`, :meth:`nonlinear` and
    :meth:`first_states`. The box has the length ``extent`` along each axis, in units of the
    equation, which is solved on a multiple of the grid asked for with at least ``resolution``
    points along each axis.
    """

    fields: tuple[str, ...]
    extent: float = 1.0
    time_step: float
    substeps: int
    num_modes: int
    num_starts: int = 1
    first_start: int = 0
    num_states: int = 1
    resolution: int = 1
    periodic = True
    time_dependent = True

    def __post_init__(self) -> None:
        count = self.num_states
        self.input_names, self.output_names = self.fields, tuple(f"{f}_next" for f in self.fields)
        if count > 1:
            names = [f"{field}_{i}" for i in range(2 * count) for field in self.fields]
            half = count * len(self.fields)
            self.input_names, self.output_names = tuple(names[:half]), tuple(names[half:])

    @abstractmethod
    def symbol(self, modes: FourierModes) -> np.ndarray:
        """Returns L, ``[components, *modes]``."""

    @abstractmethod
    def nonlinear(self, modes: FourierModes) -> Term:
        """Returns N, a function of spectra ``[N, components, *modes]`` to such spectra."""

    @abstractmethod
    def first_states(self, grid: Grid, rngs: Generators) -> np.ndarray:
        """Draws states ``[N, components, *grid]`` at t = 0."""

    def smooth_fields(
        self, grid: Grid, rngs: Generators, smoothness: float = 2.0, inverse_length: float = 10.0
    ) -> np.ndarray:
        """Draws Gaussian fields of unit variance with ``num_modes`` modes, ``[N, *grid]``."""
        return gaussian_fields(
            grid.axes(), rngs, "periodic", smoothness, inverse_length, self.num_modes
        )

    def sample(self, grid: Grid, rngs: Generators) -> Pair:
        """Draws blocks of states and those that follow."""
        first, last = self.sequences(grid, rngs, 1).swapaxes(0, 1)
        return first, last

    def sequences(self, grid: Grid, rngs: Generators, num_steps: int) -> np.ndarray:
        """Draws blocks of states and those that follow, ``[N, num_steps + 1, C, *grid]``."""
        fine = self._solver_grid(grid)
        integrator, size = self._integrator(fine), max(1, CACHED_POINTS // fine.size)
        groups = [rngs[start : start + size] for start in range(0, len(rngs), size)]
        drawn = [islice(self._drawn(integrator, grid, some), num_steps + 1) for some in groups]
        return np.concatenate([np.stack(list(states), axis=1) for states in drawn])

    def _drawn(
        self, integrator: ExponentialRungeKutta, grid: Grid, rngs: Generators
    ) -> Iterator[np.ndarray]:
        """Yields consecutive blocks of states from random start times on."""
        state = self.first_states(integrator.modes.grid, rngs)
        starts = np.array([self.first_start + rng.integers(self.num_starts) for rng in rngs])
        for time in range(starts.max()):
            later = starts > time
            state[later] = integrator.advance(state[later], self.substeps)
        return self._blocks(integrator, state, grid)

    def trajectory(self, grid: Grid, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        """Returns consecutive blocks of states from the first start time on."""
        fine = self._solver_grid(grid)
        integrator = self._integrator(fine)
        state = self.first_states(fine, [rng])
        for _ in range(self.first_start):
            state = integrator.advance(state, self.substeps)
        return np.concatenate(list(islice(self._blocks(integrator, state, grid), num_steps + 1)))

    def _blocks(
        self, integrator: ExponentialRungeKutta, state: np.ndarray, grid: Grid
    ) -> Iterator[np.ndarray]:
        """Yields consecutive blocks of states from a state on, without end."""
        states = []
        while True:
            modes = integrator.modes
            states.append(
                state if modes.grid == grid else modes.sampled(modes.to_modes(state), grid)
            )
            if len(states) == self.num_states:
                yield np.concatenate(states, axis=1)
                states = []
            state = integrator.advance(state, self.substeps)

    def _solver_grid(self, grid: Grid) -> Grid:
        """Returns the grid to solve on."""
        self.check_grids([grid])
        if min(grid.shape) >= self.resolution:
            return grid
        shape = tuple(n * -(-self.resolution // n) for n in grid.shape)
        return Grid(shape, "node", tuple(1 / n for n in shape))

    def _integrator(self, grid: Grid) -> ExponentialRungeKutta:
        modes = FourierModes(grid, self.extent)
        step = self.time_step / self.substeps
        return ExponentialRungeKutta(self.symbol(modes), self.nonlinear(modes), modes, step)
