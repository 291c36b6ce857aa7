"""Periodic equations in time, solved by one spectral integrator: each gives its two terms."""

from abc import abstractmethod
from collections.abc import Callable
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
    and gives ``fields``, :meth:`symbol`, :meth:`nonlinear` and maybe :meth:`first_states`. The box
    has the length ``extent`` along each axis, in units of the equation, which is solved on a
    multiple of the grid asked for with at least ``resolution`` points along each axis.
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
        self.input_names, self.output_names = self.fields, tuple(f"{f}_next" for f in self.fields)
        if (count := self.num_states) > 1:
            blocks = (range(count), range(count, 2 * count))
            self.input_names, self.output_names = (
                tuple(f"{field}_{i}" for i in block for field in self.fields) for block in blocks
            )

    @abstractmethod
    def symbol(self, modes: FourierModes) -> np.ndarray:
        """Returns L, ``[components, *modes]``."""

    @abstractmethod
    def nonlinear(self, modes: FourierModes) -> Term:
        """Returns N, a function of spectra ``[N, components, *modes]`` to such spectra."""

    def first_states(self, grid: Grid, rngs: Generators) -> np.ndarray:
        """Draws states ``[N, components, *grid]`` at t = 0, by default smooth Gaussian fields."""
        return np.stack([self.smooth_fields(grid, rngs) for _ in self.fields], axis=1)

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
        flow = self._integrator(self._solver_grid(grid))
        size = max(1, CACHED_POINTS // flow.modes.grid.size)
        groups = [rngs[start : start + size] for start in range(0, len(rngs), size)]
        return np.concatenate([self._solve(flow, grid, some, num_steps, True) for some in groups])

    def trajectory(self, grid: Grid, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        """Returns consecutive blocks of states from the first start time on."""
        flow = self._integrator(self._solver_grid(grid))
        return self._solve(flow, grid, [rng], num_steps, False)[0]

    def _solve(
        self, flow: ExponentialRungeKutta, grid: Grid, rngs: Generators, num_steps: int, later: bool
    ) -> np.ndarray:
        """Returns ``num_steps + 1`` blocks from the first start time on, or from a random one."""
        modes, state = flow.modes, self.first_states(flow.modes.grid, rngs)
        delays = [rng.integers(self.num_starts) if later else 0 for rng in rngs]
        starts = self.first_start + np.array(delays)
        for time in range(starts.max()):
            waiting = starts > time
            state[waiting] = flow.advance(state[waiting], self.substeps)
        states = []
        for number in range(count := (num_steps + 1) * self.num_states):
            states.append(
                state if modes.grid == grid else modes.sampled(modes.to_modes(state), grid)
            )
            if number + 1 < count:
                state = flow.advance(state, self.substeps)
        shape = len(rngs), num_steps + 1, -1, *grid.shape
        return np.stack(states, axis=1).reshape(shape)

    def _solver_grid(self, grid: Grid) -> Grid:
        self.check_grids([grid])
        if min(grid.shape) >= self.resolution:
            return grid
        shape = tuple(n * -(-self.resolution // n) for n in grid.shape)
        return Grid(shape, "node", tuple(1 / n for n in shape))

    def _integrator(self, grid: Grid) -> ExponentialRungeKutta:
        modes = FourierModes(grid, self.extent)
        step = self.time_step / self.substeps
        return ExponentialRungeKutta(self.symbol(modes), self.nonlinear(modes), modes, step)
