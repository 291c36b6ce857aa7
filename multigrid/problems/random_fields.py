"""Gaussian random fields as series of cosines or of periodic modes."""

from collections.abc import Sequence
from functools import reduce
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field

from multigrid.errors import UserError

Basis = Literal["cosine", "periodic"]
Smoothness: TypeAlias = Annotated[
    float,
    Field(gt=0, le=10, description="the exponent alpha of (-Laplace + tau^2)^-alpha, in (0, 10]"),
]
InverseLength: TypeAlias = Annotated[
    float, Field(ge=0, le=1000, description="the tau of (-Laplace + tau^2)^-alpha, in [0, 1000]")
]
CosineModes: TypeAlias = Annotated[
    int, Field(ge=1, le=1024, description="the highest cosine mode along each axis, 1 to 1024")
]


MAX_TERMS = 2**24


def check_terms(num_modes: int, ndim: int) -> None:
    """Checks that a series of products of modes is short enough to be summed.

    Raises:
        UserError: If it is not.
    """
    if (num_modes + 1) ** ndim > MAX_TERMS:
        limit = round(MAX_TERMS ** (1 / ndim)) - 1
        raise UserError(
            f"problem.num_modes: {num_modes} modes along each of {ndim} axes are too many; at most "
            f"{limit} are allowed"
        )


class GaussianField:
    """The field N(0, (-Laplace + tau^2)^-alpha) on the unit box, cut after some modes.

    The constant mode is left out, so that each field has zero mean over the box, and the variance
    averaged over the box is scaled to one. The modes are fixed and not those of a grid: one set of
    random numbers gives one continuous field, whatever grid it is evaluated on.

    Args:
        ndim: Number of space dimensions.
        basis: ``cosine``: products of cos(pi k x), k = 0..K, with zero normal derivatives on the
            boundary, as in GRF.m of Li et al., Fourier Neural Operator (arXiv 2010.08895).
            ``periodic``: products of 1, cos(2 pi k x) and sin(2 pi k x), k = 1..K.
        smoothness: The exponent alpha.
        inverse_length: The parameter tau.
        num_modes: The number K.
    """

    def __init__(
        self, ndim: int, basis: Basis, smoothness: float, inverse_length: float, num_modes: int
    ) -> None:
        k = np.arange(num_modes + 1)
        if basis == "periodic":
            k = 2 * np.concatenate([k, k[1:]])
        self._basis = basis
        self._frequencies = np.pi * k
        eigenvalues = reduce(np.add.outer, [self._frequencies**2] * ndim)
        amplitudes = np.zeros_like(eigenvalues)
        waves = eigenvalues > 0
        amplitudes[waves] = (eigenvalues[waves] + inverse_length**2) ** (-smoothness / 2)
        self._amplitudes = amplitudes / np.sqrt(np.sum(amplitudes**2))

    def sample(self, axes: Sequence[np.ndarray], rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Draws one field from each source of randomness.

        Args:
            axes: Coordinates of the points along each axis.
            rngs: One generator a field.

        Returns:
            Array ``[N, *points]``.
        """
        noise = np.stack([rng.standard_normal(self._amplitudes.shape) for rng in rngs])
        values = self._amplitudes * noise
        for x in axes:
            values = np.tensordot(values, self._modes(x), axes=(1, 1))
        return values

    def _modes(self, x: np.ndarray) -> np.ndarray:
        """Returns the modes of one axis, orthonormal on the unit interval, ``[points, modes]``."""
        phases = np.outer(x, self._frequencies)
        modes = np.cos(phases)
        if self._basis == "periodic":
            second = len(self._frequencies) // 2 + 1
            modes[:, second:] = np.sin(phases[:, second:])
        modes[:, 1:] *= np.sqrt(2)
        return modes
