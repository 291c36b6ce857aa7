"""What a PDE says about itself."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from inspect import getsource, signature
from typing import Annotated, Any, TypeAlias

import numpy as np
from pydantic import Field

from multigrid.errors import UserError, printable
from multigrid.grid import Grid

SpaceDimensions: TypeAlias = Annotated[
    int, Field(ge=1, le=3, description="the number of space dimensions, 1 to 3")
]
Tolerance: TypeAlias = Annotated[
    float, Field(ge=1e-12, le=1e-2, description="the solver's relative error, 1e-12 to 0.01")
]
Generators: TypeAlias = Sequence[np.random.Generator]
Pair: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Input fields ``[N, in, *grid]`` and output fields ``[N, out, *grid]`` in float64."""


@dataclass(frozen=True)
class Symmetries:
    """What maps solutions of a problem to solutions, exactly.

    Attributes:
        reflections: Mirroring any axis of input and output together.
        rotations: Exchanging axes of equal length of input and output together.
        linear: Any linear combination of samples.
        homogeneous: Multiplying input and output by the same positive number.
        odd: Changing the signs of input and output together, as linear problems allow anyway.
        shifts: Moving input and output together by whole points, wrapping around the box.
        translations: The same on the plane: as far as the input stays within the box and nothing
            comes in, as far as lines of zeros at its edges tell.
        drift: The direction of a constant velocity: what mirrors and exchanges do together leaves
            it as it is.
        force: The wave vector k and the phase p of a force ``cos(2 pi k . x - p)``, None without
            one: what mirrors, exchanges and shifts do together leaves it as it is.
        mode_shifts: Moving the sines that make up input and output to shorter ones, which is a
            property of ``-Laplace(u) = f`` with u = 0 on the boundary. The equation stays the
            same, but new fields have shorter waves than any that occur.
        mirror_signs: What fields are multiplied by when an axis is mirrored: -1 for the velocity
            along it, and for a vorticity on all axes. Exchanging axes is a reflection as well.
        fixed_axes: The space axes that are neither mirrored nor exchanged, as they differ from
            the others: 0 for plates across x.
    """

    reflections: bool = False
    rotations: bool = False
    linear: bool = False
    homogeneous: bool = False
    odd: bool = False
    shifts: bool = False
    translations: bool = False
    drift: tuple[int, ...] = (0, 0, 0)
    force: tuple[tuple[int, ...], float] | None = None
    mode_shifts: bool = False
    mirror_signs: tuple[int, ...] = (1, 1, 1)
    fixed_axes: tuple[int, ...] = ()

    @property
    def wave(self) -> tuple[int, ...]:
        """The wave vector of the force, zero without one."""
        return (0, 0, 0) if self.force is None else self.force[0]


class Problem:
    """A map from input fields to output fields.

    What is special about a problem is an attribute or a method here, with a default for problems
    without it; nothing else in the package depends on the class of a problem.

    Attributes:
        kind: Name of the problem in experiment files.
        ndim: Number of space dimensions.
        input_names: Names of the input fields.
        output_names: Names of the output fields.
        symmetries: What is exact for the problem.
        periodic: Whether fields wrap around the box.
        time_dependent: Whether outputs are inputs at a later time, so that a surrogate can be
            applied to its own output; a PDE then has :meth:`PDE.trajectory`.
        mask_channel: The input that is zero where all fields count as zero.
    """

    kind: str
    ndim: int = 2
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    symmetries: Symmetries = Symmetries()
    periodic: bool = False
    time_dependent: bool = False
    mask_channel: int | None = None

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

    def check_grids(self, levels: Sequence[Grid]) -> None:
        """Checks that the problem can be solved on the grids of a ladder, coarsest first.

        Raises:
            UserError: If it cannot; the sentence starts with the key of the experiment file.
        """
        finest = levels[-1]
        if self.periodic and not finest.is_open:
            raise UserError(
                f"levels[{len(levels) - 1}]: problem '{self.kind}' is periodic, which nodes with "
                f"both boundary points are not: the sizes of {finest} must be even"
            )

    def discrete_equation(self, inputs: Any, outputs: Any, grid: Grid) -> tuple[Any, Any] | None:
        """Returns both sides of the discrete equation, for ``loss.residual``.

        Args:
            inputs: Input fields ``[N, in, *grid]``, a numpy array or torch tensor.
            outputs: Any output fields ``[N, out, *grid]`` of the same library.
            grid: Their grid.

        Returns:
            ``A u`` and ``f``, ``[N, ...]`` each; None if the equation is not available.
        """
        return None

    def energy_loss(self, grid: Grid, finer: Grid, degree: int) -> Callable[..., Any] | None:
        """Returns the loss ``energy``, which needs no labels.

        Args:
            grid: Grid of the fields.
            finer: Grid whose energy is to be minimised.
            degree: Polynomial degree of the prolongation to it.

        Returns:
            A function of a prediction ``[N, out, *grid]`` and a batch of samples that returns a
            scalar tensor; None if the problem has no energy.
        """
        return None

    @classmethod
    def has(cls, hook: str) -> bool:
        """Whether a class overrides an optional method: ``discrete_equation``, ``energy_loss``."""
        return getattr(cls, hook) is not getattr(Problem, hook)


class FileProblem(Problem):
    """A problem known by samples in files alone, with the symmetries that the user declares."""

    kind = "file"

    def __init__(
        self,
        input_names: tuple[str, ...],
        output_names: tuple[str, ...],
        symmetries: Symmetries,
        mask: str | None = None,
    ) -> None:
        self.mask_channel = None if mask is None else input_names.index(mask)
        self.input_names = tuple(map(printable, input_names))
        self.output_names = tuple(map(printable, output_names))
        self.symmetries = symmetries


class PDE(Problem, ABC):
    """A problem whose samples are generated.

    The parameters of the constructor are the keys of the section ``problem`` of an experiment
    file. Each has a type and usually a default, stands as ``Annotated[type, Field(...)]`` where
    its values have limits or a description, and is kept as an attribute of the same name.
    Experiments with invalid values are refused before an object is made, but objects are made to
    check experiments, so constructors should be cheap.

    Attributes:
        version: To be raised when the same parameters begin to give other samples.
    """

    version: int = 1

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything that the samples depend on besides grid and seed, as plain values."""
        return {name: getattr(self, name) for name in signature(type(self)).parameters}

    @property
    def source(self) -> str:
        """Hash of the code of the user's module, or of a class in a script.

        Samples are made anew when it changes.
        """
        module = type(self).__module__
        if module.startswith("multigrid."):
            return ""
        try:
            code = getsource(type(self) if module == "__main__" else sys.modules[module])
        except (OSError, TypeError):
            return ""
        return sha256(code.encode()).hexdigest()[:16]

    @abstractmethod
    def sample(self, grid: Grid, rngs: Generators) -> Pair:
        """Draws one sample from each source of randomness.

        Args:
            grid: Where to evaluate the fields.
            rngs: One generator a sample; a sample depends on its generator alone, and equal states
                give equal continuous input fields on any grid.

        Returns:
            Input fields ``[N, in, *grid]`` and output fields ``[N, out, *grid]`` in float64.
        """

    def trajectory(self, grid: Grid, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        """Returns consecutive states ``[num_steps + 1, C, *grid]``, for time-dependent problems.

        Args:
            grid: Where to evaluate the fields.
            rng: Source of randomness of the first state.
            num_steps: Number of steps of the size that lies between input and output.
        """
        raise UserError(
            f"problem '{self.kind}': {type(self).__name__} is time_dependent, but has no method "
            "trajectory"
        )

    def sequences(self, grid: Grid, rngs: Generators, num_steps: int) -> np.ndarray:
        """Returns consecutive states ``[N, num_steps + 1, C, *grid]`` to train roll-outs on.

        Where the states of :meth:`sample` begin otherwise than trajectories, a problem overrides
        it, such that the first two states are those of :meth:`sample`.
        """
        return np.stack([self.trajectory(grid, rng, num_steps) for rng in rngs])

    def draw_inputs(self, grid: Grid, rngs: Generators) -> np.ndarray:
        """Returns the inputs ``[N, in, *grid]`` of :meth:`sample` without solving.

        By default it solves; problems that can be trained without labels should override it.
        """
        return self.sample(grid, rngs)[0]

    def initial_outputs(self, grid: Grid) -> np.ndarray:
        """Returns outputs ``[out, *grid]`` to start from where there are no labels.

        The statistics of the outputs are those of these fields.
        """
        return np.zeros((len(self.output_names), *grid.shape))
