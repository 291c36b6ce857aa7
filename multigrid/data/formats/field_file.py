"""Data files as samples: pairs of an input and an output, or the steps of trajectories."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from multigrid.data.formats.container import Arrays, Container, stamp
from multigrid.data.formats.hdf5 import runs
from multigrid.data.formats.layout import SPACE, Field, Layout, ReaderOptions
from multigrid.data.formats.readers import available_parameters, chosen_parameters
from multigrid.data.formats.values import ValueCheck
from multigrid.data.time import TimeSetup
from multigrid.errors import UserError, nearest
from multigrid.grid import Centering

BLOCK_BYTES = 2**26
NUM_IGNORED = 12


@dataclass(frozen=True)
class Description:
    """What a file holds.

    Attributes:
        shape: Number of points along each axis.
        num_groups: Number of trajectories; of samples, where these are independent.
        group_size: Number of samples (steps or pairs) in each trajectory.
        named_splits: The groups of each split, if the file names them.
        leading_test: The fraction of the groups, from the first on, that its authors test on.
        time: How states become inputs, if what is predicted can be rolled out.
        arrays: What each array that is read is: its name, its axes, and where these come from.
        ignored: Names of the arrays that are not read.
        parameters: Names of the scalars that could become input channels.
    """

    shape: tuple[int, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    input_dtype: str
    output_dtype: str
    num_groups: int
    group_size: int = 1
    centering: Centering | None = None
    named_splits: Mapping[str, range] = field(default_factory=dict)
    leading_test: float = 0.0
    time: TimeSetup | None = None
    arrays: tuple[tuple[str, str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    boundaries: Mapping[str, str] = field(default_factory=dict)
    time_step: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_samples(self) -> int:
        """Number of samples."""
        return self.num_groups * self.group_size

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""
        return len(self.input_names), len(self.output_names)

    def remarks(self) -> list[str]:
        """Returns what a user must know of how the file is read: guesses, and what is ignored."""
        lines = [
            f"'{name}' is read as [{', '.join(axes)}], {why}"
            for name, axes, why in self.arrays
            if why.startswith("a guess")
        ]
        if self.ignored:
            more = ", ..." if len(self.ignored) > NUM_IGNORED else ""
            lines.append(f"not used: {', '.join(self.ignored[:NUM_IGNORED])}{more}")
        if self.boundaries:
            walls = ", ".join(f"{axis} {kind}" for axis, kind in self.boundaries.items())
            lines.append(f"boundaries of the file: {walls}; those of the network: model.padding")
        return [*lines, *self.notes]


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
        path, sizes = container.path, _sizes(container, layout)
        shape = tuple(sizes[letter] for letter in SPACE if letter in sizes)
        if not shape or set(SPACE[: len(shape)]) - set(sizes):
            raise UserError(f"{path}: no array has the axes of a grid, X, Y and Z")
        if options.ndim not in (None, len(shape)):
            raise UserError(
                f"{path}: the number of space dimensions is {len(shape)}, not {options.ndim}"
            )
        if layout.grid_kind is not None and not options.noncartesian:
            raise UserError(
                f"{path}: the grid is {layout.grid_kind}, not Cartesian, so convolutions distort "
                "it; use it with problem.noncartesian: true (--noncartesian)"
            )
        count = sizes.get("N", 1) if layout.count is None else layout.count
        parameters = [
            item
            for item in chosen_parameters(container, options.parameters, count)
            if not isinstance(item.array, str) or item.array not in layout.used
        ]
        layout = replace(layout, inputs=(*layout.inputs, *parameters))
        with container.open(check=True) as arrays:
            for item in layout.fields:
                if isinstance(item.array, str):
                    arrays(item.array)
        return cls(container, layout, count, sizes.get("T", 1), shape)


def _sizes(container: Container, layout: Layout) -> dict[str, int]:
    """Returns the sizes of the axes, in which all fields must agree."""
    sizes: dict[str, int] = {}
    for item in layout.fields:
        for letter, size in zip(item.axes, item.info(container).shape, strict=True):
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


class FieldFile:
    """One or several files of one format, read lazily as samples ``0, 1, 2, ...``.

    Nothing stays open between two reads, so that it can be copied to other processes. Sample
    ``k S + s`` of trajectories is step s of trajectory k, each of S steps. Its input is made of
    ``history`` states, oldest first, and all fields constant in time; its output is the next state,
    or the difference to it.
    """

    def __init__(self, parts: Sequence[Part], reader: str, options: ReaderOptions) -> None:
        self.path = parts[0].container.path
        self.reader = reader
        self.options = options
        self.parts = [part for part in parts if part.count]
        if not self.parts:
            raise UserError(f"{self.path}: holds no samples")
        for part in self.parts[1:]:
            _require_alike(self.parts[0], part)
        if options.fields is not None:
            if not self._evolves:
                raise UserError(
                    f"{self.path}: 'fields' is for time-dependent files, not for {self.reader}"
                )
            self.parts = [_with_fields(part, options.fields) for part in self.parts]
        self._states = options.time.states(self.parts[0].num_steps)
        self._require_time()
        self._starts = np.cumsum([0, *(part.count for part in self.parts)])
        self._stamps = {path: stamp(path) for path in self.paths if path.is_file()}
        inputs, outputs = self._channel_names()
        self._inputs = _choose(self.path, "input", inputs, options.input_channels)
        self._outputs = _choose(self.path, "output", outputs, options.output_channels)
        self._description = self._describe(
            tuple(inputs[k] for k in self._inputs), tuple(outputs[k] for k in self._outputs)
        )

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that are read."""
        return tuple(dict.fromkeys(path for p in self.parts for path in p.container.paths))

    @property
    def _layout(self) -> Layout:
        return self.parts[0].layout

    @property
    def _evolves(self) -> bool:
        """Whether samples are steps in time, not pairs."""
        return bool(self._layout.states)

    def describe(self) -> Description:
        """Returns what the file holds, after ``reduced_resolution``."""
        return self._description

    def fetch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads samples, in any order, as float32, without looking at their values.

        Returns:
            Inputs ``[n, in, *grid]`` and outputs ``[n, out, *grid]``.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self._description.num_samples:
            raise IndexError(f"the file holds {self._description.num_samples} samples")
        self._require_unchanged()
        with np.errstate(over="ignore", invalid="ignore"):  # infinite values are told as such
            fields = self._load(wanted)
        self._require_unchanged()
        return fields

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads samples as :meth:`fetch` does and refuses NaN and infinite values."""
        inputs, outputs = self.fetch(indices)
        check = ValueCheck(self.path, self._description.input_names, self._description.output_names)
        check.add(np.asarray(indices), inputs, outputs)
        check.require_finite()
        return inputs, outputs

    def blocks(self, indices: np.ndarray) -> Iterator[slice]:
        """Yields consecutive parts of ``indices`` that fit into a bounded amount of memory."""
        points = int(np.prod(self.parts[0].shape))
        size = max(1, BLOCK_BYTES // (8 * sum(self._description.num_channels) * points))
        for start in range(0, len(indices), size):
            yield slice(start, min(start + size, len(indices)))

    def trajectories(
        self, groups: Sequence[int], num_steps: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Reads the beginnings of trajectories.

        Returns:
            First inputs ``[n, in, *grid]`` and states ``[n, num_steps + 1, C, *grid]``, or None
            if what is predicted cannot be rolled out, or the trajectories are shorter.
        """
        setup, size = self._description.time, self._description.group_size
        if setup is None or size < num_steps or not len(groups):
            return None
        inputs, _ = self.fetch([group * size for group in groups])
        states = []
        for group in groups:
            steps, outputs = self.fetch(group * size + np.arange(num_steps))
            stop = setup.history * setup.num_channels
            last = steps[:, stop - setup.num_channels : stop]
            following = outputs if setup.target == "state" else last + outputs
            states.append(np.concatenate([last[:1], following]))
        return inputs, np.stack(states)

    def varying_parameters(self) -> list[str]:
        """Returns the names of the scalars that differ between trajectories or files."""
        values: dict[str, list[np.ndarray]] = {name: [] for name in self._description.parameters}
        for part in self.parts:
            for name in values.keys() & available_parameters(part.container, part.count).keys():
                values[name].append(part.container.read(name).ravel())
        return [
            name
            for name, arrays in values.items()
            if len(arrays) == len(self.parts) and np.ptp(np.concatenate(arrays).astype(float)) > 0
        ]

    # --- what there is ---

    def _require_time(self) -> None:
        time, count = self.options.time, len(self._states)
        if self._evolves and count <= time.history:
            raise UserError(
                f"{self.path}: the trajectories have {count} state{'s' if count > 1 else ''}, but "
                f"pairs of "
                f"{'successive states' if time.history == 1 else f'{time.history} and one more'} "
                "are needed"
            )
        if not self._evolves and (time.history > 1 or time.target != "state"):
            raise UserError(
                f"{self.path}: data.time.history and data.time.target are for trajectories, but "
                "the samples are pairs of an input and an output"
            )

    def _channel_names(self) -> tuple[list[str], list[str]]:
        """Returns the names of all input and output channels that there are."""
        layout = self._layout
        inputs, outputs = _names(layout.inputs), _names(layout.outputs)
        if not self._evolves:
            return inputs, outputs
        states = _names(layout.states)
        ages = range(self.options.time.history - 1, -1, -1)
        past = [f"{name}(t-{age})" if age else name for age in ages for name in states]
        return [*past, *inputs], states

    def _time_setup(self) -> TimeSetup | None:
        """Returns how states become inputs, if all of them are inputs and outputs, in order."""
        time, count = self.options.time, len(_names(self._layout.states))
        past = list(range(time.history * count))
        whole = [k for k in self._inputs if k < len(past)] == past == self._inputs[: len(past)]
        if not self._evolves or not whole or self._outputs != list(range(count)):
            return None
        return TimeSetup(count, time.history, time.target)

    def _describe(self, input_names: tuple[str, ...], output_names: tuple[str, ...]) -> Description:
        first, step, layout = self.parts[0], self.options.reduced_resolution, self._layout
        shape = tuple(-(-n // step) for n in first.shape)
        if min(shape) < 2:
            raise UserError(
                f"{self.path}: every {step}-th point of a grid {_times(first.shape)} leaves "
                f"{_times(shape)}, too few"
            )
        splits: dict[str, range] = {}
        for part, start, stop in zip(self.parts, self._starts, self._starts[1:], strict=False):
            split = part.layout.split
            if split is not None:
                start = splits[split].start if split in splits else int(start)
                splits[split] = range(start, int(stop))
        count, size = self._groups()
        input_dtype, output_dtype = (
            ", ".join(sorted({str(f.info(first.container).dtype) for f in fields}))
            for fields in (layout.states or layout.inputs, layout.states or layout.outputs)
        )
        parameters, ignored = available_parameters(first.container, first.count), self._ignored()
        return Description(
            shape,
            input_names,
            output_names,
            input_dtype,
            output_dtype,
            count,
            size,
            layout.centering,
            splits,
            layout.leading_test if len(self.parts) == 1 else 0.0,
            self._time_setup(),
            tuple((f.label, f.axes, f.why) for f in layout.fields),
            ignored,
            tuple(name for name in parameters if name in ignored),
            layout.boundaries,
            layout.time_step,
            layout.notes,
        )

    def _groups(self) -> tuple[int, int]:
        """Returns the number of trajectories and the number of samples in each."""
        count, time = int(self._starts[-1]), self.options.time
        if self._evolves:
            return count, len(self._states) - time.history
        if self.parts[0].num_steps > 1:
            return count, len(self._states)
        length = time.trajectory or self._layout.pairs_in_trajectory
        if count % length:
            raise UserError(
                f"{self.path}: {count} pairs are not a whole number of trajectories of "
                f"{length} each, as data.time.trajectory says"
            )
        return count // length, length

    def _ignored(self) -> tuple[str, ...]:
        """Returns the names of the arrays that are not read and say nothing of the axes."""
        used: dict[Container, set[str]] = {}
        for part in self.parts:
            members = map(part.container.members, part.layout.used)
            used.setdefault(part.container, set()).update(*members)
        return tuple(
            dict.fromkeys(
                name
                for container, names in used.items()
                for name in container.names
                if name not in names and name not in container.coordinates
            )
        )

    # --- reading ---

    def _load(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = self._description.shape
        inputs = np.empty((len(indices), len(self._inputs), *shape), np.float32)
        outputs = np.empty((len(indices), len(self._outputs), *shape), np.float32)
        by_step = self._evolves or self.parts[0].num_steps > 1
        size = self._description.group_size if by_step else 1
        order = np.argsort(indices, kind="stable")
        rows, steps = np.divmod(indices[order], size)
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        gaps = parts + (rows if by_step else 0)  # a run ends with a file or a trajectory
        for number in np.unique(parts):
            of_part = np.flatnonzero(parts == number)
            part = self.parts[number]
            with part.container.open() as arrays:
                for start, stop in runs((indices[order] + gaps)[of_part]):
                    chosen = of_part[start:stop]
                    row, count = int(rows[chosen[0]] - self._starts[number]), stop - start
                    where = slice(row, row + (1 if by_step else count))
                    first, last = int(steps[chosen[0]]), int(steps[chosen[0]]) + count
                    read = self._steps if self._evolves else self._pairs
                    values = read(part, arrays, where, first, last if by_step else first + 1)
                    inputs[order[chosen]] = values[0][:, self._inputs]
                    outputs[order[chosen]] = values[1][:, self._outputs]
        return inputs, outputs

    def _pairs(
        self, part: Part, arrays: Arrays, rows: slice, start: int, stop: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads the pairs of consecutive rows, or of consecutive steps of one row."""
        where = self._slice(start, stop) if part.num_steps > 1 else slice(None)
        count = (rows.stop - rows.start) * (stop - start)
        inputs, outputs = (
            self._join(part, arrays, fields, rows, where, count)
            for fields in (part.layout.inputs, part.layout.outputs)
        )
        return inputs, outputs

    def _steps(
        self, part: Part, arrays: Arrays, rows: slice, start: int, stop: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads consecutive steps of one row."""
        time, layout, count = self.options.time, part.layout, stop - start
        where = self._slice(start, stop + time.history)
        states = self._join(part, arrays, layout.states, rows, where, count + time.history)
        past = [states[k : k + count] for k in range(time.history)]
        outputs = states[time.history :]
        if time.target == "delta":
            outputs = outputs - past[-1]
        if layout.inputs:
            where = self._slice(start + time.history - 1, stop + time.history - 1)
            past.append(self._join(part, arrays, layout.inputs, rows, where, count))
        return np.concatenate(past, axis=1), outputs

    def _slice(self, start: int, stop: int) -> slice:
        """Returns where the used states ``start`` to ``stop - 1`` lie in the file."""
        used = self._states[start:stop]
        return slice(used.start, used[-1] + 1, used.step)

    def _join(
        self,
        part: Part,
        arrays: Arrays,
        fields: Sequence[Field],
        rows: slice,
        steps: slice,
        count: int,
    ) -> np.ndarray:
        """Returns fields as ``[count, channels, *grid]``, rows and steps laid out in one axis."""
        every = slice(None, None, self.options.reduced_resolution)
        blocks = []
        for item in fields:
            values = item.read(arrays, rows, steps, part.shape)
            values = values.reshape(-1, *values.shape[2:])[:, :, *[every] * len(part.shape)]
            blocks.append(np.broadcast_to(values, (count, *values.shape[1:])))
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def _require_unchanged(self) -> None:
        for path, before in self._stamps.items():
            if stamp(path) != before:
                raise UserError(
                    f"{path}: has changed since it was opened; keep it as it is in a run"
                )


def _require_alike(first: Part, part: Part) -> None:
    here, there = part.layout, first.layout
    for name, a, b in (
        ("grid", part.shape, first.shape),
        ("number of states", part.num_steps, first.num_steps),
        ("fields", [f.channels for f in here.fields], [f.channels for f in there.fields]),
    ):
        if a != b:
            raise UserError(
                f"{part.container.path}: the {name} differs from that of "
                f"{first.container.path}, {a} instead of {b}"
            )


def _names(fields: Sequence[Field]) -> list[str]:
    return [name for item in fields for name in item.channels]


def _with_fields(part: Part, wanted: Sequence[str]) -> Part:
    """Returns a part with the time-dependent fields that the user asks for, in their order."""
    short = {item.label.rpartition("/")[2]: item for item in part.layout.states}
    named = short | {item.label: item for item in part.layout.states}
    for name in wanted:
        if name not in named:
            raise UserError(
                f"{part.container.path}: there is no field '{name}'; those that change in time "
                f"are {', '.join(short)}{nearest(name, short)}"
            )
    states = tuple(named[name] for name in wanted)
    return replace(part, layout=replace(part.layout, states=states))


def _choose(path: Path, side: str, names: Sequence[str], wanted: Sequence[str] | None) -> list[int]:
    """Returns the numbers of the channels to keep."""
    for name in wanted or ():
        if name not in names:
            raise UserError(
                f"{path}: there is no {side} channel '{name}'; there are {', '.join(names)}"
                f"{nearest(name, names)}"
            )
    return list(range(len(names))) if wanted is None else [names.index(n) for n in wanted]


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
