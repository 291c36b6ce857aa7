"""Layouts: what each axis of an array is, and which arrays are inputs and outputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from multigrid.config.data import TimeConfig
from multigrid.data.formats.container import ArrayInfo, Arrays, Container
from multigrid.errors import UserError
from multigrid.grid import Centering

SPACE = "XYZ"
LETTERS = "NTC" + SPACE
MEANING = "N samples or trajectories, T time steps, C channels, X Y Z space"


@dataclass(frozen=True)
class ReaderOptions:
    """What the user says about a file: settings of ``problem`` by the same names, ``data.time``.

    Several names may be given as a list, one as text. ``axes`` has what the axes of arrays are, by
    the array's name; under the name ``""`` of all arrays with so many axes.
    """

    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    ndim: int | None = None
    reduced_resolution: int = 1
    fields: tuple[str, ...] | None = None
    axes: Mapping[str, str] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    input_channels: tuple[str, ...] | None = None
    output_channels: tuple[str, ...] | None = None
    noncartesian: bool = False
    time: TimeConfig = field(default_factory=TimeConfig)

    def __post_init__(self) -> None:
        for name in ("input", "output", "parameters"):
            value = getattr(self, name)
            names = (value,) if isinstance(value, str) else tuple(value or ())
            object.__setattr__(self, name, names)
        for name in ("fields", "input_channels", "output_channels"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if value else None)
        axes = {"": self.axes} if isinstance(self.axes, str) else dict(self.axes or {})
        object.__setattr__(self, "axes", {name: parse_axes(text) for name, text in axes.items()})

    @classmethod
    def of(cls, settings: Any, time: TimeConfig | None = None) -> "ReaderOptions":
        """Returns what the sections ``problem`` and ``data.time`` say, or objects like them."""
        keys = [name for name in cls.__dataclass_fields__ if name != "time"]
        values = {name: getattr(settings, name) for name in keys if hasattr(settings, name)}
        return cls(**values, time=time or TimeConfig())

    @property
    def named(self) -> bool:
        """Whether the user names arrays."""
        return bool(self.input or self.output)

    def stated_axes(self, name: str, num_axes: int) -> str | None:
        """Returns what the user says the axes of an array are, None if nothing."""
        axes = self.axes.get(name, self.axes.get(name.rpartition("/")[2]))
        if axes is not None and len(axes) != num_axes:
            raise UserError(
                f"problem.axes: '{' '.join(axes)}' names {len(axes)} axes, but '{name}' has "
                f"{num_axes}"
            )
        if axes is None and len(self.axes.get("", "")) == num_axes:
            axes = self.axes[""]
        return axes


def parse_axes(text: str) -> str:
    """Returns axes as letters, ``"NTCXY"`` for ``"N T C X Y"``."""
    letters = text.replace(" ", "").replace(",", "").upper()
    twice = any(letters.count(letter) > 1 for letter in letters if letter != "C")
    if not letters or set(letters) - set(LETTERS) or twice:
        raise UserError(
            f"problem.axes: '{text}' must name each axis once, with the letters N, T, C, X, Y, Z "
            f"({MEANING})"
        )
    return letters


@dataclass(frozen=True)
class Field:
    """An array with what its axes are.

    Attributes:
        array: Its name in the container, or the array itself.
        axes: A letter for each axis: ``N``, ``T``, ``C`` (several make up the channels together),
            ``X``, ``Y``, ``Z``; along those that are missing it is constant.
        channels: Names of its channels.
        why: Where the axes come from.
    """

    array: str | np.ndarray
    axes: str
    channels: tuple[str, ...]
    why: str = "the format"

    @property
    def label(self) -> str:
        """Name of the array, or of its channel."""
        return self.array if isinstance(self.array, str) else self.channels[0]

    def info(self, container: Container) -> ArrayInfo:
        """Returns what is known of the array."""
        if isinstance(self.array, str):
            return container.info(self.array)
        return ArrayInfo(self.array.shape, self.array.dtype)

    def read(self, arrays: Arrays, rows: slice, steps: slice, grid: Sequence[int]) -> np.ndarray:
        """Returns some rows and steps as ``[rows, steps, channels, *grid]``.

        Rows and steps have length 1 where the field has no such axis.
        """
        array = arrays(self.array) if isinstance(self.array, str) else self.array
        where = {"N": rows, "T": steps}
        values = array[tuple(where.get(letter, slice(None)) for letter in self.axes)]
        order = sorted(range(len(self.axes)), key=lambda axis: LETTERS.index(self.axes[axis]))
        values = np.transpose(values, order)
        sizes = dict.fromkeys(LETTERS[: 3 + len(grid)], 1)
        for axis, size in zip(order, values.shape, strict=True):
            sizes[self.axes[axis]] *= size
        values = values.reshape(tuple(sizes.values()))
        return np.broadcast_to(values, (*values.shape[:3], *grid))


@dataclass(frozen=True)
class Layout:
    """Which arrays of a container are inputs and outputs, and all that it says besides.

    Attributes:
        states: Fields that change in time and are input and output.
        inputs: Fields that are only inputs: constants in time, or the inputs of pairs.
        outputs: Fields that are only outputs, those of pairs.
        count: Number of samples or trajectories, where that is less than the arrays hold.
        split: The split that all of it is for, if the file names one.
        centering: Where the points lie, if the file says so.
        leading_test: The fraction of the samples, from the first on, that its authors test on.
        coordinates: Names of arrays that only say where points and times lie.
        boundaries: What holds on the boundary across each axis, such as ``{"x": "periodic"}``.
        time_step: Time between two states.
        pairs_in_trajectory: Number of consecutive pairs that are of one trajectory.
        notes: Remarks on how the file is read.
        grid_kind: Kind of the grid if it is not Cartesian, such as ``spherical``.
    """

    states: tuple[Field, ...] = ()
    inputs: tuple[Field, ...] = ()
    outputs: tuple[Field, ...] = ()
    count: int | None = None
    split: str | None = None
    centering: Centering | None = None
    leading_test: float = 0.0
    coordinates: tuple[str, ...] = ()
    boundaries: Mapping[str, str] = field(default_factory=dict)
    time_step: float | None = None
    pairs_in_trajectory: int = 1
    notes: tuple[str, ...] = ()
    grid_kind: str | None = None

    @property
    def fields(self) -> tuple[Field, ...]:
        """All fields."""
        return (*self.states, *self.inputs, *self.outputs)

    @property
    def used(self) -> set[str]:
        """Names of all arrays that are read or only say where points lie."""
        return {f.array for f in self.fields if isinstance(f.array, str)} | set(self.coordinates)


Reader = Callable[[Container, ReaderOptions], "Layout | Sequence[Layout] | None"]


def make_field(
    container: Container,
    array: str | np.ndarray,
    axes: str,
    name: str | None = None,
    why: str = "the format",
) -> Field:
    """Returns an array of a container as a field, with names for its channels.

    Args:
        container: The container.
        array: Name of the array, or an array that a reader has opened itself.
        axes: A letter for each of its axes.
        name: Name of the field; by default that of the array without its groups.
        why: Where the axes come from.

    Raises:
        UserError: If the array has another number of axes.
    """
    label = array if isinstance(array, str) else name or "u"
    shape = container.info(array).shape if isinstance(array, str) else array.shape
    if len(shape) != len(axes):
        raise UserError(f"{container.path}: '{label}' {list(shape)} must be [{', '.join(axes)}]")
    count = prod(n for n, letter in zip(shape, axes, strict=True) if letter == "C")
    label = name or label.rpartition("/")[2]
    channels = (label,) if count == 1 else tuple(f"{label}_{index}" for index in range(count))
    return Field(array, axes, channels, why)


# --- guesses from shapes ---


def choose_axes(
    path: Path, inputs: tuple[int, ...], outputs: tuple[int, ...], ndim: int | None
) -> tuple[str, str]:
    """Infers the axes of an input and an output array ``[N, ...]`` from their shapes.

    Each has its channels behind the samples, at the end, or no axis for them. Of all choices that
    give both the same grid the one whose shortest space axis is longest is taken, as channels are
    fewer than points; among equals the one with fewer channel axes, then channels first.
    """
    if not inputs or not outputs or inputs[0] != outputs[0]:
        raise UserError(
            f"{path}: input {list(inputs)} and output {list(outputs)} must have the same number "
            "of samples along their first axis"
        )
    allowed: tuple[int, ...] = (2, 3) if ndim is None else (ndim,)
    if ndim is None and min(len(inputs), len(outputs)) == 2:
        allowed = (1,)
    pairs = [
        (first, second)
        for first in _choices(len(inputs), allowed)
        for second in _choices(len(outputs), allowed)
        if grid_of(first, inputs) == grid_of(second, outputs)
    ]
    if pairs:
        return max(pairs, key=lambda pair: min(grid_of(pair[0], inputs)))
    wanted = " or ".join(f"{n}-D" for n in allowed)
    raise UserError(
        f"{path}: the shapes of input {list(inputs)} and output {list(outputs)} disagree: no "
        f"choice of a channel axis gives both the same {wanted} grid"
    )


def _choices(num_axes: int, allowed: Sequence[int]) -> list[str]:
    """Returns the axes that an array may have: no channels, channels first, channels last."""
    plain, mixed = SPACE[: num_axes - 1], SPACE[: num_axes - 2]
    choices = [f"N{plain}"] if num_axes - 1 in allowed else []
    return choices + ([f"NC{mixed}", f"N{mixed}C"] if num_axes - 2 in allowed else [])


def grid_of(axes: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the sizes of the space axes."""
    return tuple(n for letter, n in zip(axes, shape, strict=True) if letter in SPACE)


def axes_on_grid(shape: tuple[int, ...], grid: tuple[int, ...]) -> str | None:
    """Returns the axes of an array on a grid that is clear, None if it is on another."""
    space = SPACE[: len(grid)]
    for axes in (space, f"N{space}", f"NC{space}", f"N{space}C", f"NT{space}", f"NTC{space}"):
        if len(axes) == len(shape) and grid_of(axes, shape) == grid:
            return axes
    return None


def guess_trajectory_axes(shape: tuple[int, ...], ndim: int | None) -> str | None:
    """Returns what the axes of an array ``[N, T, ...]`` may be, None if they cannot be inferred.

    Channels are an axis behind the steps, or at the end, that is at most half as long as the
    shortest of the others.
    """
    rest = shape[2:]
    if len(rest) == ndim or (ndim is None and len(rest) == 2):
        return "NT" + SPACE[: len(rest)]
    num_space = len(rest) - 1
    if num_space not in ((2, 3) if ndim is None else (ndim,)):
        return None
    first, last = 2 * rest[0] <= min(rest[1:]), 2 * rest[-1] <= min(rest[:-1])
    if ndim is None and num_space == 2 and not (first or last):
        return "NT" + SPACE
    space = SPACE[:num_space]
    return f"NT{space}C" if last and not first else f"NTC{space}"
