"""Equations in time in a periodic box: each gives two terms to one spectral integrator."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, TypeAlias

import numpy as np
from pydantic import Field

from multigrid.grid import Grid
from multigrid.problems.base import PDE, Generators, Pair, SpaceDimensions, Symmetries
from multigrid.problems.series import gaussian_fields
from multigrid.registry import register_problem
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
Diffusivity = Annotated[float, Field(ge=0, le=1, description="a diffusivity in [0, 1]")]
Share = Annotated[float, Field(gt=0, le=1, description="a number in (0, 1]")]
SPOT = 0.03
"""Standard deviation of the first spots of Gray-Scott, over the length of the box."""
CACHED_POINTS = 2**14
"""Points of the samples that are solved at once. More leave a core's cache: on 128x128, a step for
16 samples together takes four times as long for each as a step for one."""


def in_groups(
    draw: Callable[[Generators], np.ndarray], num_points: int, rngs: Generators
) -> np.ndarray:
    """Draws samples ``[N, ...]`` that are solved on so many points, as many at once as suit."""
    size = max(1, CACHED_POINTS // num_points)
    groups = [draw(rngs[start : start + size]) for start in range(0, len(rngs), size)]
    return np.concatenate(groups)


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

        def draw(some: Generators) -> np.ndarray:
            return self._solve(flow, grid, some, num_steps, delayed=True)

        return in_groups(draw, flow.modes.grid.size, rngs)

    def trajectory(self, grid: Grid, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        """Returns consecutive blocks of states from the first start time on."""
        flow = self._integrator(self._solver_grid(grid))
        return self._solve(flow, grid, [rng], num_steps, delayed=False)[0]

    def _solve(
        self,
        flow: ExponentialRungeKutta,
        grid: Grid,
        rngs: Generators,
        num_steps: int,
        delayed: bool,
    ) -> np.ndarray:
        """Returns ``num_steps + 1`` blocks from the first start time on, or from a random one."""
        modes, state = flow.modes, self.first_states(flow.modes.grid, rngs)
        delays = [rng.integers(self.num_starts) if delayed else 0 for rng in rngs]
        starts = self.first_start + np.array(delays)
        for time in range(starts.max()):
            waiting = starts > time
            state[waiting] = flow.advance(state[waiting], self.substeps)
        states = []
        for number in range((num_steps + 1) * self.num_states):
            if number:
                state = flow.advance(state, self.substeps)
            same = modes.grid == grid
            states.append(state if same else modes.sampled(modes.to_modes(state), grid))
        return np.stack(states, axis=1).reshape(len(rngs), num_steps + 1, -1, *grid.shape)

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


@register_problem("advection_diffusion")
@dataclass
class AdvectionDiffusion(SpectralPDE):
    """u_t + v . grad u = D Laplace(u) in the periodic unit box, v = ``speed`` along each axis.

    Each mode is exact in time: ``exp(-(i v . k + D |k|^2) t)`` times its first value.
    """

    fields = ("u",)
    symmetries = Symmetries(rotations=True, linear=True, homogeneous=True, shifts=True)
    substeps = 1

    ndim: SpaceDimensions = 2
    speed: Annotated[float, Field(ge=0, le=100, description="a speed in [0, 100]")] = 1.0
    diffusivity: Diffusivity = 1e-3
    num_modes: PeriodicModes = 16
    time_step: TimeStep = 0.1
    num_starts: NumStarts = 5

    def symbol(self, modes: FourierModes) -> np.ndarray:
        """Returns ``-v . grad + D Laplace``."""
        advection = -self.speed * sum(modes.gradient)
        return (advection + self.diffusivity * modes.laplacian)[None]

    def nonlinear(self, modes: FourierModes) -> Term:
        """Returns zero."""
        return np.zeros_like


@register_problem("burgers")
@dataclass
class Burgers(SpectralPDE):
    """u_t + (u . grad) u = nu Laplace(u) in the periodic unit box, u with a component an axis.

    Mirroring an axis turns a component round, so that shifts are the only symmetry that is made use
    of.
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

    def first_states(self, grid: Grid, rngs: Generators) -> np.ndarray:
        """Draws independent Gaussian fields of standard deviation one half."""
        return 0.5 * super().first_states(grid, rngs)


@register_problem("kuramoto_sivashinsky")
@dataclass
class KuramotoSivashinsky(SpectralPDE):
    """u_t = -Laplace(u) - Laplace^2(u) - |grad u|^2 / 2 in a periodic box, less its mean.

    The mean of u, which decreases for ever and nothing depends on, stays zero. About extent / 9
    waves fit into the box. Start times leave out the transient. Laplace^2 is the whole biharmonic
    operator; in APEBench's data its mixed derivatives are left out.
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


@register_problem("reaction_diffusion")
@dataclass
class ReactionDiffusion(SpectralPDE):
    """The FitzHugh-Nagumo equations on the periodic unit box.

        u_t = D_u Laplace(u) + u - u^3 - k - v,    v_t = D_v Laplace(v) + u - v

    As in the diffusion-reaction case of PDEBench (arXiv 2210.07182), there with walls; k is
    ``threshold``. Solved on the very grid asked for: with the defaults a state is off by 2e-5 for
    the steps in time, and by 2e-6 for a grid of 64 points along an axis, but by 4e-3 for one of 32.
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


@register_problem("gray_scott")
@dataclass
class GrayScott(SpectralPDE):
    """Two chemicals u and v that react and diffuse in a periodic box.

        u_t = D_u Laplace(u) - u v^2 + F (1 - u),    v_t = D_v Laplace(v) + u v^2 - (F + k) v

    with F = ``feed`` and k = ``kill``. After Pearson, Science 261 (1993), as in The Well (arXiv
    2412.00568). A trajectory starts from ``v = (1 - exp(-s)) / 2, u = 1 - v``, s a sum of Gaussian
    spots at random places.
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

    def first_states(self, grid: Grid, rngs: Generators) -> np.ndarray:
        """Draws spots."""
        spots = np.zeros((len(rngs), *grid.shape))
        for total, rng in zip(spots, rngs, strict=True):
            for centre in rng.uniform(0, 1, (self.num_spots, self.ndim)):
                pairs = zip(grid.axes(), centre, strict=True)
                distances = [(x - c + 0.5) % 1 - 0.5 for x, c in pairs]
                bumps = [np.exp(-(distance**2) / (2 * SPOT**2)) for distance in distances]
                total += reduce(np.multiply.outer, bumps)
        v = (1 - np.exp(-spots)) / 2
        return np.stack([1 - v, v], axis=1)
