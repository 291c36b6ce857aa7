"""Layouts: what each axis of an array is, and which arrays are inputs and outputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from pathlib import Path
from sys import float_info
from typing import Any
from urllib.parse import quote

import numpy as np
from filelock import FileLock

from multigrid.config.data import ReaderOptions
from multigrid.data.arrays import blocks, written_npy
from multigrid.data.formats.array_files import NpyFiles
from multigrid.data.formats.container import ArrayInfo, Arrays, Container
from multigrid.errors import UserError, nearest
from multigrid.grid import Centering
from multigrid.tables import counted

SPACE = "XYZ"
LETTERS = "NTC" + SPACE


def stated_axes(options: ReaderOptions, container: Container, name: str) -> str:
    """Returns what the user says the axes of an array are, an empty text if nothing."""
    stated, shape = options.axes, container.shape(name)
    if isinstance(stated, dict):
        stated = stated.get(name, stated.get(name.rpartition("/")[2]))
        require_number(stated, {name: shape})
    axes = (stated or "").replace(" ", "")
    return axes if len(axes) == len(shape) else ""  # it is of arrays with so many axes


def require_number(stated: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raises a UserError if one text says what axes are, and none of the arrays has as many."""
    if isinstance(stated, str) and shapes and len(stated.split()) not in map(len, shapes.values()):
        arrays = " and ".join(f"'{name}' has {len(s)}, {list(s)}" for name, s in shapes.items())
        number = counted(len(stated.split()), "axis", "axes")
        raise UserError(f"problem.axes: '{stated}' names {number}, but {arrays}")


def require_stated(options: ReaderOptions, fields: Sequence["Field"]) -> None:
    """Raises a UserError if the axes that the user states are not those of what is read."""
    require_number(options.axes, {item.label: item.info.shape for item in fields})
    if isinstance(options.axes, str):
        axes = options.axes.replace(" ", "")
        fitting = [item for item in fields if len(item.axes) == len(axes)]
        if all(item.axes != axes for item in fitting):
            raise UserError(
                f"problem.axes: '{options.axes}' is stated, but {fitting[0]}; leave it out, or "
                "choose another problem.reader"
            )
        return
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
    """An array with what its axes are: a letter for each.

    ``N``, ``T``, ``C`` (several make up the channels together), ``X``, ``Y``, ``Z``; along those
    that are missing it is constant.
    """

    array: str | np.ndarray  # its name in the container, or the array itself
    info: ArrayInfo
    axes: str
    channels: tuple[str, ...]  # their names
    why: str  # where the axes come from

    @property
    def label(self) -> str:
        """Name of the array, or of its channel."""
        return self.array if isinstance(self.array, str) else self.channels[0]

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yields the letter and the size of each axis."""
        return zip(self.axes, self.info.shape, strict=True)

    def __str__(self) -> str:
        axes = ", ".join(self.axes)
        return f"'{self.label}' {list(self.info.shape)} is read as [{axes}], {self.why}"

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
    """Which arrays of a container are inputs and outputs, and all that it says besides."""

    states: tuple[Field, ...] = ()  # that change in time and are input and output
    inputs: tuple[Field, ...] = ()  # that are only inputs: constants in time, or those of pairs
    outputs: tuple[Field, ...] = ()  # that are only outputs, those of pairs
    count: int | None = None  # samples or trajectories, where that is less than the arrays hold
    split: str | None = None  # the split that all of it is for, if the file names one
    centering: Centering | None = None  # where the points lie, if the file says so
    leading_test: float = 0.0  # the fraction, from the first sample on, that its authors test on
    coordinates: str = ""  # pattern of the names of arrays that only say where points and times lie
    boundaries: Mapping[str, str] = field(default_factory=dict)  # such as ``{"x": "periodic"}``
    time_step: float | None = None  # time between two states
    pairs_in_trajectory: int = 1  # consecutive pairs that are of one trajectory
    notes: tuple[str, ...] = ()  # remarks on how the file is read
    grid_kind: str | None = None  # if it is not Cartesian, such as ``spherical``

    @property
    def fields(self) -> tuple[Field, ...]:
        """All fields."""
        return (*self.states, *self.inputs, *self.outputs)

    @property
    def arrays(self) -> list[str]:
        """Names of the arrays of the container that are read."""
        return [item.array for item in self.fields if isinstance(item.array, str)]


def make_field(
    container: Container,
    array: str | np.ndarray,
    axes: str,
    name: str | None = None,
    why: str = "the format",
) -> Field:
    """Returns an array of a container, or one that a reader has opened itself, as a field.

    Of ``axes``, ``...`` stands for those of space. The field is called ``name``, by default like
    the array without its groups.

    Raises:
        UserError: If the array has another number of axes.
    """
    if isinstance(array, str):
        label, info = array, container.info(array)
    else:
        label, info = name or "u", ArrayInfo(array.shape, array.dtype)
    axes = axes.replace("...", SPACE[: max(1, len(info.shape) - len(axes) + 3)])
    if len(info.shape) != len(axes):
        listed = list(info.shape)
        raise UserError(f"{container.path}: '{label}' {listed} must be [{', '.join(axes)}]")
    count = prod(n for n, letter in zip(info.shape, axes, strict=True) if letter == "C")
    label = name or label.rpartition("/")[2]
    channels = (label,) if count == 1 else tuple(f"{label}_{index}" for index in range(count))
    return Field(array, info, axes, channels, why)


# --- guesses from shapes ---


def guess_axes(
    shapes: Sequence[tuple[int, ...]], lead: str, ndim: int | None
) -> tuple[str, ...] | None:
    """Infers the axes of arrays on one grid from their shapes.

    Each has the axes ``lead`` and those of space, and maybe one of channels, behind the former or
    at the end. Of all choices that give one grid the one whose shortest space axis is longest is
    taken, where a channel axis counts half: channels are fewer than points. None is returned if no
    choice gives one grid. Without ``ndim`` this has 2 or 3 dimensions, or 1 if no array can have
    more.
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


# --- scalars ---


def available_parameters(container: Container, count: int) -> dict[str, Field]:
    """Returns the scalars that could become input channels, by name.

    These are arrays with one value for each of ``count`` trajectories, or one for the file, and
    numbers among the attributes of the file.
    """
    available = {
        name: make_field(container, np.array(float(value)), "", name, "an attribute")
        for name, value in container.attributes.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
        if abs(value) <= float_info.max
    }
    forms = {(count,): "N", (count, 1): "NC", (1, count): "CN"}  # MATLAB's vectors have two axes
    for name, info in container.numeric().items():
        axes = "C" * len(info.shape) if prod(info.shape) == 1 else forms.get(info.shape)
        if axes is not None:
            available[name] = make_field(container, name, axes, why="one value a trajectory")
    return available


def chosen_parameters(container: Container, wanted: Sequence[str], count: int) -> list[Field]:
    """Returns the parameters that the user names."""
    available = available_parameters(container, count) if wanted else {}
    chosen = []
    for name in wanted:
        matches = [n for n in available if name in (n, n.rpartition("/")[2])]
        if not matches and name in container.numeric():
            raise UserError(
                f"{container.path}: '{name}' {list(container.shape(name))} is no parameter: "
                f"there must be one value, or one for each of the {count} samples or trajectories "
                "(axis N, see problem.axes)"
            )
        if not matches:
            raise UserError(
                f"{container.path}: there is no parameter '{name}'; there are "
                f"{', '.join(available) or 'none'}{nearest(name, available)}"
            )
        chosen.append(available[matches[-1]])
    return chosen


# --- a file and its layout ---


@dataclass(frozen=True)
class Part:
    """A file, or a split of one, with its layout; ``count`` samples or trajectories."""

    container: Container
    layout: Layout
    count: int
    num_steps: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, container: Container, layout: Layout, options: ReaderOptions) -> "Part":
        """Checks that the fields fit each other, and adds the parameters."""
        require_stated(options, layout.fields)
        path, sizes = container.path, _sizes(container, layout)
        shape = tuple(sizes[letter] for letter in SPACE if letter in sizes)
        if not shape or set(SPACE[: len(shape)]) - set(sizes):
            raise UserError(
                f"{path}: a grid has the axes X, or X and Y, or X, Y and Z, but "
                f"{' and '.join(map(str, layout.fields))}; see problem.axes"
            )
        if options.ndim not in (None, len(shape)):
            raise UserError(
                f"{path}: the number of space dimensions is {len(shape)}, not {options.ndim}"
            )
        if layout.grid_kind is not None and not options.noncartesian:
            raise UserError(
                f"{path}: the grid is {layout.grid_kind}, not Cartesian, so convolutions distort "
                "it; use it with problem.noncartesian: true (--noncartesian)"
            )
        if options.fields is not None:
            layout = _with_fields(path, layout, options.fields)
        count = sizes.get("N", 1) if layout.count is None else layout.count
        parameters = chosen_parameters(container, options.parameters, count)
        new = (p for p in parameters if not (isinstance(p.array, str) and p.array in layout.arrays))
        layout = replace(layout, inputs=(*layout.inputs, *new))
        with container.open() as arrays:
            for name in layout.arrays:
                for member in container.members(name):
                    arrays(member)  # refuses what is incomplete, or no numbers
        return cls(container, layout, count, sizes.get("T", 1), shape)

    @property
    def is_scattered(self) -> bool:
        """Whether a random sample takes reading or decompressing several others with it."""
        for item in self.layout.fields:
            if isinstance(item.array, str) and set(item.axes) & set("NT"):
                sample = prod(size for letter, size in item.sizes() if letter not in "NT")
                if self.container.chunk(item.array) > 2 * sample:
                    return True
        return False

    def copied(self, folder: Path, name: str) -> "Part":
        """Returns it with its arrays in plain files of a folder, copied unless they are there.

        A single step of a compressed array can be read from its copy without the rest of a chunk.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = {a: folder / f"{name}_{quote(a, safe='')}.npy" for a in self.layout.arrays}
        with FileLock(folder / f"{name}.lock"):
            for array, path in files.items():
                if not path.exists():
                    copy_array(self.container, array, path)
        return replace(self, container=NpyFiles(self.container.path, files))


def _sizes(container: Container, layout: Layout) -> dict[str, int]:
    """Returns the sizes of the axes, in which all fields must agree."""
    sizes: dict[str, int] = {}
    for item in layout.fields:
        if any(item.axes.count(letter) > 1 for letter in set(item.axes) - {"C"}):
            raise UserError(
                f"{container.path}: {item}, but only C may stand twice; name the array with "
                "'input' and 'output', and say with problem.axes what its axes are"
            )
        for letter, size in item.sizes():
            if letter != "C" and sizes.setdefault(letter, size) != size:
                raise UserError(
                    f"{container.path}: '{item.label}' has {size} points along {letter}, but "
                    f"'{layout.fields[0].label}' has {sizes[letter]}; the shapes disagree"
                )
    if layout.count is not None and layout.count > sizes.get("N", layout.count):
        raise UserError(
            f"{container.path}: says that it holds {layout.count} samples or trajectories, which "
            f"disagrees with its arrays, of {sizes['N']}"
        )
    return sizes


def _with_fields(path: Path, layout: Layout, wanted: Sequence[str]) -> Layout:
    """Returns a layout with the time-dependent fields that the user asks for, in their order."""
    if not layout.states:
        raise UserError(f"{path}: 'fields' is for time-dependent files, not for pairs")
    short = {item.label.rpartition("/")[2]: item for item in layout.states}
    named = short | {item.label: item for item in layout.states}
    for name in wanted:
        if name not in named:
            raise UserError(
                f"{path}: there is no field '{name}'; those that change in time are "
                f"{', '.join(short)}{nearest(name, short)}"
            )
    return replace(layout, states=tuple(named[name] for name in wanted))


def copy_array(container: Container, name: str, path: Path) -> None:
    """Copies an array of a file into a ``.npy`` file, block by block."""
    info = container.info(name)
    with container.open() as arrays, written_npy(path, info.shape, info.dtype) as copy:
        array, row_bytes = arrays(name), info.dtype.itemsize * prod(info.shape[1:])
        where = [(rows, ...) for rows in blocks(len(copy), row_bytes)] if info.shape else [()]
        for index in where:
            copy[index] = array[index]
