"""Darcy flow through random media: two phases, or smooth log-normal permeability."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from multigrid.grid import Grid
from multigrid.problems.base import Symmetries
from multigrid.problems.elliptic import EllipticPDE
from multigrid.problems.random_fields import GaussianField
from multigrid.solvers.finite_volumes import closed_axes, solve_diffusion


class DarcyFlow(EllipticPDE):
    """-div(a grad u) = 1 on the unit box, u = 0 on its boundary, a made of a Gaussian field.

    Solved with finite volumes on the very grid asked for, cell-centred or node-centred, to which
    the declared symmetries apply exactly. The field under a is the same on any grid.

    Args:
        ndim: Number of space dimensions.
        smoothness: The exponent alpha of the field N(0, (-Laplace + tau^2)^-alpha).
        inverse_length: Its parameter tau.
        num_modes: Its highest cosine mode along each axis.
        tolerance: Relative error of the solver in the energy norm, roughly.
    """

    version = 1
    input_names = ("a",)
    output_names = ("u",)
    symmetries = Symmetries(reflections=True, rotations=True)

    def __init__(
        self,
        ndim: int,
        smoothness: float,
        inverse_length: float,
        num_modes: int,
        tolerance: float,
    ) -> None:
        self.ndim = ndim
        self.smoothness = smoothness
        self.inverse_length = inverse_length
        self.num_modes = num_modes
        self.tolerance = tolerance
        self._field = GaussianField(ndim, "cosine", smoothness, inverse_length, num_modes)

    def sample(
        self, grid: Grid, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws permeabilities ``[N, 1, *grid]`` and the pressures ``[N, 1, *grid]`` they give."""
        a = self.permeability(self._field.sample(closed_axes(grid), rngs))
        source = np.ones((len(rngs), *grid.shape))
        u = solve_diffusion(a, source, grid, self.tolerance, self.is_smooth).values
        on_grid = a[(slice(None), *(slice(n) for n in grid.shape))]
        return on_grid[:, None], u[:, None]

    @staticmethod
    def terms(inputs: Any) -> tuple[Any, Any]:
        """Returns the permeability and 1."""
        a = inputs[:, 0]
        return a, 0 * a + 1

    @property
    @abstractmethod
    def is_smooth(self) -> bool:
        """Whether the permeability has no jumps."""

    @abstractmethod
    def permeability(self, field: np.ndarray) -> np.ndarray:
        """Returns the permeability that a Gaussian field of unit variance stands for, at points."""


class TwoPhaseDarcy(DarcyFlow):
    """Darcy flow through two phases, after Li et al., FNO (arXiv 2010.08895): 12 and 3.

    Args:
        ndim: Number of space dimensions.
        high: Permeability where the field is not negative.
        low: Permeability where it is negative.
        smoothness: As in ``DarcyFlow``.
        inverse_length: As in ``DarcyFlow``.
        num_modes: As in ``DarcyFlow``.
        tolerance: As in ``DarcyFlow``.
    """

    kind = "darcy"
    is_smooth = False

    def __init__(
        self,
        ndim: int = 2,
        high: float = 12.0,
        low: float = 3.0,
        smoothness: float = 2.0,
        inverse_length: float = 3.0,
        num_modes: int = 64,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__(ndim, smoothness, inverse_length, num_modes, tolerance)
        self.high = high
        self.low = low

    def permeability(self, field: np.ndarray) -> np.ndarray:
        """Returns ``high`` where the field is not negative, else ``low``."""
        return np.where(field >= 0, self.high, self.low)


class LognormalDarcy(DarcyFlow):
    """Darcy flow through a smooth medium, a = exp(sigma g), g Gaussian of unit variance.

    Args:
        ndim: Number of space dimensions.
        log_std: The standard deviation sigma of log(a).
        smoothness: As in ``DarcyFlow``.
        inverse_length: As in ``DarcyFlow``.
        num_modes: As in ``DarcyFlow``.
        tolerance: As in ``DarcyFlow``.
    """

    kind = "darcy_lognormal"
    is_smooth = True

    def __init__(
        self,
        ndim: int = 2,
        log_std: float = 1.0,
        smoothness: float = 3.0,
        inverse_length: float = 3.0,
        num_modes: int = 64,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__(ndim, smoothness, inverse_length, num_modes, tolerance)
        self.log_std = log_std

    def permeability(self, field: np.ndarray) -> np.ndarray:
        """Returns ``exp(log_std * field)``."""
        return np.exp(self.log_std * field)
