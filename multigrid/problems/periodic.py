"""Semilinear equations in a periodic box: fronts, chaos, and two species that react."""

from dataclasses import dataclass
from functools import reduce
from typing import Annotated

import numpy as np
from pydantic import Field

from multigrid.grid import Grid
from multigrid.problems.base import Generators, SpaceDimensions, Symmetries
from multigrid.problems.spectral import (
    FirstStart,
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

Diffusivity = Annotated[float, Field(ge=0, le=1, description="a diffusivity in [0, 1]")]
Share = Annotated[float, Field(gt=0, le=1, description="a number in (0, 1]")]
SPOT = 0.03
"""Standard deviation of the first spots of Gray-Scott, over the length of the box."""


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
