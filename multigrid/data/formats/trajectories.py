"""Files of trajectories, whose samples are the pairs of successive states."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from multigrid.data.formats import hdf5
from multigrid.data.formats.base import Description, FieldFile
from multigrid.data.formats.layout import SPACE_DIMENSIONS
from multigrid.errors import UserError, nearest


@dataclass(frozen=True)
class Field:
    """A dataset ``[trajectory, step, *grid, *components]``, some of these axes left out.

    Attributes:
        path: Name of the dataset in the file.
        channels: Names of its components.
        dtype: Its number type.
        by_trajectory: Whether it has an axis for trajectories.
        by_step: Whether it has an axis for time steps.
        by_axis: For each space axis whether it has it.
    """

    path: str
    channels: tuple[str, ...]
    dtype: str
    by_trajectory: bool
    by_step: bool
    by_axis: tuple[bool, ...]

    def read(
        self, dataset: h5py.Dataset, trajectory: int, steps: slice, shape: Sequence[int]
    ) -> np.ndarray:
        """Returns some steps of a trajectory as ``[steps, channels, *shape]``."""
        where = ((trajectory,) if self.by_trajectory else ()) + ((steps,) if self.by_step else ())
        values: np.ndarray = dataset[where]
        if not self.by_step:
            values = values[None]
        for axis, varies in enumerate(self.by_axis, start=1):
            values = values if varies else np.expand_dims(values, axis)
        num_steps = steps.stop - steps.start if not self.by_step else len(values)
        values = values.reshape(*values.shape[: len(shape) + 1], len(self.channels))
        whole = np.broadcast_to(values, (num_steps, *shape, len(self.channels)))
        return np.moveaxis(whole, -1, 1)


@dataclass(frozen=True)
class Trajectories:
    """What a file of trajectories holds.

    Attributes:
        count: Number of trajectories.
        num_steps: Number of states in each.
        shape: Number of points along each axis.
        states: Fields that change in time, which are input and output.
        constants: Fields that do not, which are only input.
    """

    count: int
    num_steps: int
    shape: tuple[int, ...]
    states: tuple[Field, ...]
    constants: tuple[Field, ...] = ()


class TrajectoryFile(FieldFile):
    """A file of trajectories.

    Sample ``k (T - 1) + t`` is the step from state t to state t + 1 of trajectory k, each of T
    states. Inputs are all states and all fields constant in time, outputs the states.
    """

    takes_fields = True
    leading_test = 0.0

    @abstractmethod
    def _survey(self, file: h5py.File) -> Trajectories:
        """Finds the fields and checks their shapes."""

    def _examine(self) -> Description:
        with hdf5.open_file(self.path) as file:
            held = self._select(self._survey(file))
            for field in (*held.states, *held.constants):
                hdf5.require_complete(file, hdf5.find(file, field.path))
        if held.num_steps < 2:
            raise UserError(
                f"{self.path}: the trajectories have {held.num_steps} state, but pairs of "
                "successive states are needed"
            )
        if len(held.shape) not in SPACE_DIMENSIONS or self.options.ndim not in (
            None,
            len(held.shape),
        ):
            wanted = self.options.ndim or "2 or 3"
            raise UserError(
                f"{self.path}: the number of space dimensions is {len(held.shape)}, not {wanted}"
            )
        self._held = held
        states = [name for field in held.states for name in field.channels]
        constants = [name for field in held.constants for name in field.channels]
        dtype = ", ".join(sorted({field.dtype for field in held.states}))
        return Description(
            held.shape,
            (*states, *constants),
            tuple(states),
            dtype,
            dtype,
            held.count,
            held.num_steps - 1,
            leading_test=self.leading_test,
        )

    def _select(self, held: Trajectories) -> Trajectories:
        """Returns the file's content with the fields the user asks for."""
        wanted = self.options.fields
        named = {field.path.rpartition("/")[2]: field for field in held.states}
        if not named:
            raise UserError(f"{self.path}: no field changes in time")
        for name in wanted or ():
            if name not in named:
                raise UserError(
                    f"{self.path}: there is no field '{name}'; those that change in time are "
                    f"{', '.join(named)}{nearest(name, named)}"
                )
        states = tuple(named[name] for name in wanted or named)
        return Trajectories(held.count, held.num_steps, held.shape, states, held.constants)

    def _load(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        held, size = self._held, self._held.num_steps - 1
        num_states = sum(len(field.channels) for field in held.states)
        num_inputs = num_states + sum(len(field.channels) for field in held.constants)
        dtype = np.result_type(*(field.dtype for field in (*held.states, *held.constants)))
        inputs = np.empty((len(indices), num_inputs, *held.shape), dtype)
        outputs = np.empty((len(indices), num_states, *held.shape), dtype)
        order = np.argsort(indices, kind="stable")
        ordered = indices[order]
        # a gap after each trajectory ends a run there
        with hdf5.open_file(self.path) as file:
            for start, stop in hdf5.runs(ordered + ordered // size):
                trajectory, step = divmod(int(ordered[start]), size)
                steps = slice(step, step + stop - start + 1)
                states, constants = (
                    self._block(file, fields, trajectory, steps)
                    for fields in (held.states, held.constants)
                )
                inputs[order[start:stop], :num_states] = states[:-1]
                outputs[order[start:stop]] = states[1:]
                if held.constants:
                    inputs[order[start:stop], num_states:] = constants[:-1]
        return inputs, outputs

    def _block(
        self, file: h5py.File, fields: tuple[Field, ...], trajectory: int, steps: slice
    ) -> np.ndarray:
        """Returns some steps of fields as ``[steps, channels, *grid]``."""
        if not fields:
            return np.empty(0)
        shape = self._held.shape
        blocks = [
            field.read(hdf5.find(file, field.path), trajectory, steps, shape) for field in fields
        ]
        return np.concatenate(blocks, axis=1)
