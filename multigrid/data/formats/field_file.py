"""Data files as samples: pairs of an input and an output, or the steps of trajectories."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np

from multigrid.config.data import ReaderOptions, TimeConfig
from multigrid.data.arrays import blocks, runs, stamp
from multigrid.data.formats.container import Arrays, Container
from multigrid.data.formats.layout import Field, Part, available_parameters
from multigrid.data.time import TimeSetup
from multigrid.errors import UserError, nearest
from multigrid.tables import counted

NUM_IGNORED, NUM_NAMED = 12, 5

Fields = tuple[np.ndarray, np.ndarray]


class ValueCheck:
    """What has been seen of the values of a file's inputs, or outputs.

    Attributes:
        low: Lowest finite value of each channel, as ``high`` is the highest.
        bad: How many NaN and infinite values a sample has, by its number in the file.
    """

    def __init__(self, path: Path, kind: str, names: Sequence[str]) -> None:
        self.path, self.kind, self.names = path, kind, names
        self.low, self.high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
        self.bad: dict[int, int] = {}

    def add(self, indices: np.ndarray, fields: np.ndarray) -> None:
        """Looks at samples ``[n, channels, *grid]``; ``indices`` are their numbers in the file."""
        axes = tuple(range(2, fields.ndim))
        low, high = fields.min(axes), fields.max(axes)
        # minimum and maximum hand NaN and infinite values on, so one look at them is enough
        damaged = ~(np.isfinite(low) & np.isfinite(high)).all(axis=1)
        if damaged.any():
            finite = np.isfinite(fields)
            counts = (~finite).sum(axis=(1, *axes))
            self.bad.update((int(indices[i]), int(counts[i])) for i in np.flatnonzero(damaged))
            low = np.where(finite, fields, np.inf).min(axes)
            high = np.where(finite, fields, -np.inf).max(axes)
        self.low = np.minimum(self.low, low.min(axis=0, initial=np.inf))
        self.high = np.maximum(self.high, high.max(axis=0, initial=-np.inf))

    def require_finite(self) -> None:
        """Raises a UserError if NaN or infinite values have been seen."""
        if self.bad:
            raise UserError(
                f"{self.path}: the {self.kind} holds {sum(self.bad.values())} NaN or infinite "
                f"values as float32, in {name_samples(sorted(self.bad))}"
            )

    def require_variation(self) -> None:
        """Raises a UserError if a channel has had one value everywhere."""
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if low == high:
                raise UserError(
                    f"{self.path}: the {self.kind} channel '{name}' is constant, {low:g} in all "
                    "training samples; there is nothing to learn from it"
                )


def name_samples(indices: Sequence[int]) -> str:
    """Returns ``"samples 3, 7 and 9"``, or the first few and the number of the others."""
    named = [str(index) for index in indices[:NUM_NAMED]]
    if len(indices) == 1:
        return f"sample {named[0]}"
    more = len(indices) - len(named)
    last = f"{more} more" if more else named.pop()
    return f"samples {', '.join(named)} and {last}"


class FieldFile:
    """One or several files of one format, read lazily as samples ``0, 1, 2, ...``.

    Nothing stays open between two reads. Sample ``k S + s`` of trajectories is step s of trajectory
    k, each of S steps. Its input is made of ``history`` states, oldest first, and all fields
    constant in time; its output is the next state, or the difference to it.

    Attributes:
        path: The first file.
        layout: The layout of the first one.
        shape: Number of points along each axis, after ``reduced_resolution``.
        input_names: Names of the input channels, as ``output_names`` of the output channels.
        num_channels: Number of input and of output channels.
        num_groups: Number of trajectories; of samples, where these are independent.
        group_size: Number of samples (steps or pairs) in each trajectory.
        leading_test: Fraction of the groups, from the first on, that the file's authors test on.
        named_splits: The groups of each split, if the file names them.
        time: How states become inputs, if what is predicted can be rolled out.
        ignored: Names of the arrays that are not read.
        parameters: Names of the scalars that could become input channels.
    """

    def __init__(
        self, parts: Sequence[Part], reader: str, options: ReaderOptions, time: TimeConfig
    ) -> None:
        self.path, self.reader, self.options = parts[0].container.path, reader, options
        self.parts = [part for part in parts if part.count]
        if not self.parts:
            raise UserError(f"{self.path}: holds no samples")
        first = self.parts[0]
        for part in self.parts[1:]:
            _require_alike(first, part)
        self.layout, self._time = first.layout, time
        self.paths = tuple(dict.fromkeys(path for p in self.parts for path in p.container.paths))
        self._stamps = {path: stamp(path) for path in self.paths if path.is_file()}
        self._evolves = bool(self.layout.states)  # samples are steps in time, not pairs
        self._states = range(first.num_steps)[time.start : time.end : time.stride]
        self._starts = np.cumsum([0, *(part.count for part in self.parts)])
        self.shape = tuple(-(-n // options.reduced_resolution) for n in first.shape)
        if min(self.shape) < 2:
            whole, left = ("x".join(map(str, shape)) for shape in (first.shape, self.shape))
            raise UserError(
                f"{self.path}: every {options.reduced_resolution}-th point of a grid {whole} "
                f"leaves {left}, too few"
            )
        self.leading_test = first.layout.leading_test if len(self.parts) == 1 else 0.0
        self.num_groups, self.group_size = self._groups()
        self.num_samples = self.num_groups * self.group_size
        inputs, outputs = self._channel_names()
        self._inputs = _choose(self.path, "input", inputs, options.input_channels)
        self._outputs = _choose(self.path, "output", outputs, options.output_channels)
        self.input_names = tuple(inputs[k] for k in self._inputs)
        self.output_names = tuple(outputs[k] for k in self._outputs)
        self.num_channels = len(self._inputs), len(self._outputs)
        mask = [name for name in [options.mask] if name]
        self._mask = _choose(self.path, "input", self.input_names, mask)
        self.named_splits = self._named_splits()
        self.time = self._time_setup()
        self.ignored = self._ignored()
        scalars = available_parameters(first.container, first.count)
        self.parameters = tuple(name for name in scalars if name in self.ignored)

    @property
    def reading(self) -> str:
        """What axes are taken for by the user or by a guess, for the end of a sentence."""
        fields = [f for f in self.layout.fields if f.why.startswith(("as stated", "a guess"))]
        return f"; {' and '.join(map(str, fields))}" if fields else ""

    @property
    def dtypes(self) -> list[str]:
        """Number types of the arrays of inputs and of outputs."""
        sides = (self.layout.states or side for side in (self.layout.inputs, self.layout.outputs))
        return [", ".join(sorted({str(f.info.dtype) for f in fields})) for fields in sides]

    def remarks(self) -> list[str]:
        """Returns what a user must know of how the file is read: guesses, and what is ignored."""
        lines = [str(item) for item in self.layout.fields if item.why.startswith("a guess")]
        if self.ignored:
            more = ", ..." if len(self.ignored) > NUM_IGNORED else ""
            lines.append(f"not used: {', '.join(self.ignored[:NUM_IGNORED])}{more}")
        if self.layout.boundaries:
            walls = ", ".join(f"{axis} {kind}" for axis, kind in self.layout.boundaries.items())
            lines.append(f"boundaries of the file: {walls}; those of the network: model.padding")
        return [*lines, *self.layout.notes]

    def fetch(self, indices: Sequence[int] | np.ndarray) -> Fields:
        """Reads inputs ``[n, in, *grid]`` and outputs ``[n, out, *grid]`` of samples in any order.

        They are in float32, and their values are not checked.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self.num_samples:
            raise IndexError(f"the file holds {self.num_samples} samples")
        self._require_unchanged()
        with np.errstate(over="ignore", invalid="ignore"):  # infinite values are told as such
            fields = self._load(wanted)
        self._require_unchanged()
        return fields

    def read(self, indices: Sequence[int] | np.ndarray) -> Fields:
        """Reads samples as :meth:`fetch` does and refuses NaN and infinite values."""
        fields = self.fetch(indices)
        for check, values in zip(self.value_checks(), fields, strict=True):
            check.add(np.asarray(indices), values)
            check.require_finite()
        return fields

    def value_checks(self) -> tuple[ValueCheck, ValueCheck]:
        """Returns checks that have seen nothing yet, of the inputs and of the outputs."""
        inputs = ValueCheck(self.path, "input", self.input_names)
        return inputs, ValueCheck(self.path, "output", self.output_names)

    def blocks(self, indices: np.ndarray) -> Iterator[slice]:
        """Yields consecutive parts of ``indices`` that fit into a bounded amount of memory."""
        return blocks(len(indices), 8 * sum(self.num_channels) * prod(self.parts[0].shape))

    def places(self, numbers: np.ndarray) -> list[str]:
        """Returns trajectory and step of samples; nothing if the file holds no trajectories."""
        if self.group_size == 1:
            return []
        pairs = zip(*divmod(numbers, self.group_size), strict=True)
        return [f"trajectory {row}, step {step}" for row, step in pairs]

    # --- what there is ---

    def _groups(self) -> tuple[int, int]:
        """Returns the number of trajectories and the number of samples in each."""
        count, time, states = int(self._starts[-1]), self._time, len(self._states)
        if self._evolves:
            if states <= time.history:
                some = "successive states" if time.history == 1 else f"{time.history} and one more"
                raise UserError(
                    f"{self.path}: the trajectories have {counted(states, 'state')}, but "
                    f"pairs of {some} are needed"
                )
            return count, states - time.history
        if time.history > 1 or time.target != "state":
            raise UserError(
                f"{self.path}: data.time.history and data.time.target are for trajectories, but "
                "the samples are pairs of an input and an output"
            )
        if self.parts[0].num_steps > 1:
            return count, states
        length = time.trajectory or self.layout.pairs_in_trajectory
        if count % length:
            raise UserError(
                f"{self.path}: {count} pairs are not a whole number of trajectories of {length} "
                "each, as data.time.trajectory says"
            )
        return count // length, length

    def _channel_names(self) -> tuple[list[str], list[str]]:
        """Returns the names of all input and output channels that there are."""
        inputs, outputs, states = (
            [name for item in fields for name in item.channels]
            for fields in (self.layout.inputs, self.layout.outputs, self.layout.states)
        )
        ages = range(self._time.history - 1, -1, -1)
        past = [f"{name}(t-{age})" if age else name for age in ages for name in states]
        return [*past, *inputs], states or outputs

    def _named_splits(self) -> dict[str, range]:
        splits: dict[str, range] = {}
        for part, (start, stop) in zip(self.parts, pairwise(self._starts.tolist()), strict=True):
            if split := part.layout.split:
                splits[split] = range(splits.get(split, range(start, stop)).start, stop)
        return splits

    def _time_setup(self) -> TimeSetup | None:
        """Returns how states become inputs, if all of them are inputs and outputs, in order."""
        time, count = self._time, sum(len(item.channels) for item in self.layout.states)
        past = list(range(time.history * count))
        whole = [k for k in self._inputs if k < len(past)] == past == self._inputs[: len(past)]
        if not self._evolves or not whole or self._outputs != list(range(count)):
            return None
        return TimeSetup(count, time.history, time.target)

    def _ignored(self) -> tuple[str, ...]:
        """Returns the names of the arrays that are not read and say nothing of the axes."""
        used: dict[Container, set[str]] = {}
        for part in self.parts:
            members = map(part.container.members, part.layout.arrays)
            used.setdefault(part.container, set(part.container.coordinates)).update(*members)
        names = (name for file, read in used.items() for name in file.names if name not in read)
        return tuple(
            dict.fromkeys(n for n in names if not re.fullmatch(self.layout.coordinates, n))
        )

    # --- reading ---

    def _load(self, indices: np.ndarray) -> Fields:
        inputs, outputs = (
            np.empty((len(indices), count, *self.shape), np.float32) for count in self.num_channels
        )
        by_step = self._evolves or self.parts[0].num_steps > 1
        order = np.argsort(indices, kind="stable")
        rows, steps = np.divmod(indices[order], self.group_size if by_step else 1)
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        gaps = parts + (rows if by_step else 0)  # a run ends with a file or a trajectory
        for number in np.unique(parts):
            of_part = np.flatnonzero(parts == number)
            with self.parts[number].container.open() as arrays:
                for start, stop in runs((indices[order] + gaps)[of_part]):
                    run = of_part[start:stop]
                    row, step = int(rows[run[0]] - self._starts[number]), int(steps[run[0]])
                    height, length = (1, len(run)) if by_step else (len(run), 1)
                    block = slice(row, row + height), slice(step, step + length)
                    values = self._read(self.parts[number], arrays, *block)
                    inputs[order[run]] = values[0][:, self._inputs]
                    outputs[order[run]] = values[1][:, self._outputs]
        for channel in self._mask:
            outside = inputs[:, channel] == 0
            np.moveaxis(inputs, 1, -1)[outside] = np.moveaxis(outputs, 1, -1)[outside] = 0
        return inputs, outputs

    def _read(self, part: Part, arrays: Arrays, rows: slice, steps: slice) -> Fields:
        """Reads consecutive rows of pairs, or consecutive steps of one row."""
        every, grid = slice(None, None, self.options.reduced_resolution), part.shape

        def join(fields: Sequence[Field], start: int, stop: int) -> np.ndarray:
            """Returns fields in the used states ``start`` to ``stop - 1`` as rows of one array."""
            used = self._states[start:stop]
            where = (
                slice(used.start, used[-1] + 1, used.step) if part.num_steps > 1 else slice(None)
            )
            blocks, count = [], (rows.stop - rows.start) * (stop - start)
            for item in fields:
                values = item.read(arrays, rows, where, grid)
                values = values.reshape(-1, *values.shape[2:])[:, :, *[every] * len(grid)]
                blocks.append(np.broadcast_to(values, (count, *values.shape[1:])))
            return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

        layout, history, start, stop = part.layout, self._time.history, steps.start, steps.stop
        if not self._evolves:
            return join(layout.inputs, start, stop), join(layout.outputs, start, stop)
        states = join(layout.states, start, stop + history)
        inputs = [states[k : k + stop - start] for k in range(history)]
        outputs = states[history:]
        if self._time.target == "delta":
            outputs = outputs - inputs[-1]
        if layout.inputs:
            inputs.append(join(layout.inputs, start + history - 1, stop + history - 1))
        return np.concatenate(inputs, axis=1), outputs

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


def _choose(path: Path, side: str, names: Sequence[str], wanted: Sequence[str] | None) -> list[int]:
    """Returns the numbers of the channels to keep."""
    for name in wanted or ():
        if name not in names:
            raise UserError(
                f"{path}: there is no {side} channel '{name}'; there are {', '.join(names)}"
                f"{nearest(name, names)}"
            )
    return list(range(len(names))) if wanted is None else [names.index(n) for n in wanted]
