"""Layouts: what each axis of an array is, and which arrays are inputs and outputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod

import numpy as np

from multigrid.config.data import ReaderOptions
from multigrid.data.formats.container import ArrayInfo, Arrays, Container
from multigrid.errors import UserError, nearest
from multigrid.grid import Centering
from multigrid.tables import counted

SPACE = "XYZ"
LETTERS = "NTC" + SPACE


def stated_axes(options: ReaderOptions, name: str, shape: Sequence[int]) -> str | None:
    """Returns what the user says the axes of an array are, None if nothing."""
    stated = options.axes or {}
    if isinstance(stated, str):  # of all arrays with so many axes
        axes = stated.replace(" ", "")
        return axes if len(axes) == len(shape) else None
    text = stated.get(name, stated.get(name.rpartition("/")[2], "")).replace(" ", "")
    if text:
        require_number(text, {name: shape})
    return text or None


def require_number(axes: str, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raises a UserError if none of the arrays has as many axes as the user states."""
    if shapes and len(axes) not in map(len, shapes.values()):
        arrays = " and ".join(f"'{name}' has {len(s)}, {list(s)}" for name, s in shapes.items())
        number = counted(len(axes), "axis", "axes")
        raise UserError(f"problem.axes: '{' '.join(axes)}' names {number}, but {arrays}")


def require_stated(options: ReaderOptions, fields: Sequence["Field"], container: Container) -> None:
    """Raises a UserError if the axes that the user states are not those of what is read."""
    if isinstance(options.axes, str):
        axes = options.axes.replace(" ", "")
        require_number(axes, {item.label: item.info(container).shape for item in fields})
        fitting = [item for item in fields if len(item.axes) == len(axes)]
        if any(item.axes == axes for item in fitting):
            return
        item = fitting[0]
        raise UserError(
            f"problem.axes: '{options.axes}' is not how '{item.label}' is read, "
            f"[{', '.join(item.axes)}], {item.why}; leave it out, or choose another problem.reader"
        )
    names = [item.label for item in fields]
    names += [name.rpartition("/")[2] for name in names]
    for name in options.axes or {}:
        if name not in names:
            listed = ", ".join(dict.fromkeys(names))
            raise UserError(
                f"problem.axes: no array '{name}' is read, only {listed}{nearest(name, names)}"
            )


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
        values = np.asarray(array[tuple(where.get(letter, slice(None)) for letter in self.axes)])
        order = sorted(range(len(self.axes)), key=lambda axis: LETTERS.index(self.axes[axis]))
        values = values.transpose(order)
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
        axes: A letter for each of its axes; ``...`` stands for those of space.
        name: Name of the field; by default that of the array without its groups.
        why: Where the axes come from.

    Raises:
        UserError: If the array has another number of axes.
    """
    label = array if isinstance(array, str) else name or "u"
    shape = container.info(array).shape if isinstance(array, str) else array.shape
    axes = axes.replace("...", SPACE[: max(1, len(shape) - len(axes) + 3)])
    if len(shape) != len(axes):
        raise UserError(f"{container.path}: '{label}' {list(shape)} must be [{', '.join(axes)}]")
    count = prod(n for n, letter in zip(shape, axes, strict=True) if letter == "C")
    label = name or label.rpartition("/")[2]
    channels = (label,) if count == 1 else tuple(f"{label}_{index}" for index in range(count))
    return Field(array, axes, channels, why)


# --- guesses from shapes ---


def guess_axes(
    shapes: Sequence[tuple[int, ...]], lead: str, ndim: int | None
) -> tuple[str, ...] | None:
    """Infers the axes of arrays on one grid from their shapes.

    Each has the axes ``lead`` and those of space, and maybe one of channels, behind the former or
    at the end. Of all choices that give one grid the one whose shortest space axis is longest is
    taken, where a channel axis counts half: channels are fewer than points.

    Args:
        shapes: Their shapes.
        lead: ``N`` or ``NT``.
        ndim: Number of space dimensions; None for 2 or 3, or 1 if no array can have more.

    Returns:
        The axes of each array, or None if no choice gives one grid.
    """
    allowed: tuple[int, ...] = (2, 3) if ndim is None else (ndim,)
    if ndim is None and lead == "N" and min(map(len, shapes)) == 2:
        allowed = (1,)
    best, most = None, 0.0
    for space in (SPACE[:n] for n in allowed):
        forms = (f"{lead}C{space}", f"{lead}{space}C", lead + space)
        fitting = ([form for form in forms if len(form) == len(shape)] for shape in shapes)
        for choice in product(*fitting):
            grids = {grid_of(axes, shape) for axes, shape in zip(choice, shapes, strict=True)}
            num_mixed = sum("C" in axes for axes in choice)
            points = min(min(grid) for grid in grids) * 0.5 ** (num_mixed / len(shapes))
            if len(grids) == 1 and points > most:
                best, most = choice, points
    return best


def grid_of(axes: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the sizes of the space axes."""
    return tuple(n for letter, n in zip(axes, shape, strict=True) if letter in SPACE)


def axes_on_grid(shape: tuple[int, ...], grid: tuple[int, ...]) -> str | None:
    """Returns the axes of an array on a grid that is clear, None if it is on another."""
    space = SPACE[: len(grid)]
    for form in ("{}", "N{}", "NC{}", "N{}C", "NT{}", "NTC{}", "NT{}C"):
        axes = form.format(space)
        if len(axes) == len(shape) and grid_of(axes, shape) == grid:
            return axes
    return None
