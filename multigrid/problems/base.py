"""What a PDE has to say of itself."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np

from multigrid.grid import Grid


@dataclass(frozen=True)
class Symmetries:
    """What maps solutions of a problem to solutions, exactly.

    Attributes:
        reflections: Mirroring any axis of input and output together.
        rotations: Exchanging axes of equal length of input and output together.
        linear: Any linear combination of samples.
        homogeneous: Multiplying input and output by the same positive number.
        shifts: Moving input and output together by whole points, wrapping around the box.
        mode_shifts: Moving the sines that make up input and output to shorter ones, which is a
            property of ``-Laplace(u) = f`` with u = 0 on the boundary (see
            :func:`multigrid.solvers.sine_modes.shift_solutions`). The equation stays the same,
            but not the distribution of the fields: new ones have shorter waves than any that occur.
        fixed_axes: The space axes that are neither mirrored nor exchanged, as they differ from
            the others: 0 for plates across x.
    """

    reflections: bool = False
    rotations: bool = False
    linear: bool = False
    homogeneous: bool = False
    shifts: bool = False
    mode_shifts: bool = False
    fixed_axes: tuple[int, ...] = ()


class Problem:
    """A map from input fields to output fields.

    Attributes:
        kind: Name of the problem in experiment files.
        input_names: Names of the input fields.
        output_names: Names of the output fields.
        symmetries: What is exact for the problem.
    """

    kind: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    symmetries: Symmetries

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output fields."""
        return len(self.input_names), len(self.output_names)

    def boundary_values(self, grid: Grid) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns what is known of every solution beforehand, to be imposed exactly.

        Returns:
            Where outputs are known, boolean ``[out, *grid]``, and their values there,
            ``[out, *grid]``; None if nothing is.
        """
        return None


class FileProblem(Problem):
    """A problem of which there are samples in files, and nothing else.

    Args:
        input_names: Names of the input fields.
        output_names: Names of the output fields.
        symmetries: What the user declares exact.
    """

    def __init__(
        self, input_names: tuple[str, ...], output_names: tuple[str, ...], symmetries: Symmetries
    ) -> None:
        self.kind = "file"
        self.input_names = input_names
        self.output_names = output_names
        self.symmetries = symmetries


class PDE(Problem, ABC):
    """A problem with a way to make samples.

    Attributes:
        version: Raised when the same parameters begin to give other samples.
    """

    version: int

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything that the samples depend on besides grid and seed, as plain values.

        These are the constructor's arguments, which a problem keeps under their own names.
        """
        return {name: getattr(self, name) for name in signature(type(self)).parameters}

    @abstractmethod
    def sample(
        self, grid: Grid, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws one sample from each source of randomness.

        Args:
            grid: Where to evaluate the fields.
            rngs: One generator a sample; a sample depends on its own alone, and equal states give
                equal continuous input fields on any grid.

        Returns:
            Input fields ``[N, in, *grid]`` and output fields ``[N, out, *grid]`` in float64.
        """
