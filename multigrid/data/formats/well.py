"""The Well's HDF5 files."""

from math import prod
from pathlib import Path

import h5py

from multigrid.data.formats import hdf5
from multigrid.data.formats.base import ReaderOptions, channel_names
from multigrid.data.formats.layout import SPACE_DIMENSIONS
from multigrid.data.formats.trajectories import Field, Trajectories, TrajectoryFile
from multigrid.errors import UserError

GROUPS = ("t0_fields", "t1_fields", "t2_fields")
ATTRIBUTES = ("n_spatial_dims", "n_trajectories")
MAX_COMPONENTS = 9


class Well(TrajectoryFile):
    """Trajectories of scalars, vectors and tensors on one grid.

    The groups ``t0_fields``, ``t1_fields`` and ``t2_fields`` hold arrays
    ``[trajectory, step, x, y(, z), components]``; the attributes ``sample_varying``,
    ``time_varying`` and ``dim_varying`` say which of the axes are left out.
    """

    reader = "well"
    expects = "HDF5 with the groups t0_fields, t1_fields, ... and the attribute n_spatial_dims"

    @classmethod
    def matches(cls, path: Path, options: ReaderOptions) -> bool:
        """Whether it is an HDF5 file with one of the groups and the root attributes."""
        if not hdf5.is_hdf5(path):
            return False
        with hdf5.open_file(path) as file:
            return bool(set(GROUPS) & set(file)) and set(ATTRIBUTES) <= set(file.attrs)

    def _survey(self, file: h5py.File) -> Trajectories:
        ndim, count = (_whole_number(file, name) for name in ATTRIBUTES)
        if ndim not in SPACE_DIMENSIONS:
            raise UserError(f"{self.path}: has {ndim} space dimensions, not 2 or 3")
        shapes: dict[str, tuple[int, ...]] = {}
        fields = []
        for group in GROUPS:
            if group in set(file):
                for name in hdf5.find_group(file, group):
                    dataset = hdf5.find(file, f"{group}/{name}")
                    field = self._field(f"{group}/{name}", name, dataset, ndim)
                    fields.append(field)
                    shapes[field.path] = dataset.shape
        states = tuple(field for field in fields if field.by_step)
        constants = tuple(field for field in fields if not field.by_step)
        whole = [field for field in states if field.by_trajectory and all(field.by_axis)]
        if not whole:
            raise UserError(f"{self.path}: no field changes in time and along all axes")
        num_steps, *grid = shapes[whole[0].path][1 : ndim + 2]
        held = Trajectories(count, num_steps, tuple(grid), states, constants)
        for field in fields:
            self._require_shape(field, shapes[field.path], held)
        return held

    def _field(self, path: str, name: str, dataset: h5py.Dataset, ndim: int) -> Field:
        attributes = dataset.attrs
        by_trajectory = bool(attributes.get("sample_varying", True))
        by_step = bool(attributes.get("time_varying", True))
        by_axis = tuple(bool(varies) for varies in attributes.get("dim_varying", [True] * ndim))
        if len(by_axis) != ndim:
            raise UserError(f"{self.path}: dim_varying of '{path}' must have {ndim} entries")
        components = dataset.shape[by_trajectory + by_step + sum(by_axis) :]
        if prod(components) > MAX_COMPONENTS:
            raise UserError(
                f"{self.path}: '{path}' {list(dataset.shape)} has more axes than its attributes say"
            )
        channels = channel_names(name, prod(components))
        return Field(path, channels, str(dataset.dtype), by_trajectory, by_step, by_axis)

    def _require_shape(self, field: Field, shape: tuple[int, ...], held: Trajectories) -> None:
        expected = (held.count,) * field.by_trajectory + (held.num_steps,) * field.by_step
        expected += tuple(n for n, v in zip(held.shape, field.by_axis, strict=True) if v)
        if shape[: len(expected)] != expected:
            raise UserError(
                f"{self.path}: the shape of '{field.path}', {list(shape)}, disagrees with the "
                f"{list(expected)} of {held.count} trajectories, {held.num_steps} steps and the "
                "grid"
            )


def _whole_number(file: h5py.File, name: str) -> int:
    try:
        return int(file.attrs[name])
    except (TypeError, ValueError):
        raise UserError(f"{file.filename}: the attribute '{name}' must be a whole number") from None
