"""The built-in formats: each a short function from a container to its layout.

A reader gets a container and what the user says, and returns the layout, several (for the splits
of a file), or None if the file is not of its format. The first line of its docstring is shown
where no reader fits. Those of users are tried first, then these in the order of :data:`KNOWN`.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from math import isqrt, prod
from typing import Any

import numpy as np

from multigrid.data import SPLIT_NAMES, SPLITS
from multigrid.data.formats.array_files import NAME_PAIRS
from multigrid.data.formats.container import Container
from multigrid.data.formats.layout import (
    SPACE,
    Field,
    Layout,
    Reader,
    ReaderOptions,
    axes_on_grid,
    choose_axes,
    grid_of,
    guess_trajectory_axes,
    make_field,
)
from multigrid.errors import UserError, nearest
from multigrid.registry import READERS

KNOWN = ("store", "well", "pdebench", "cno", "pdearena", "poseidon", "fno", "dimensions")
"""The readers that know their arrays by name, in the order in which they are tried."""

TAKE_NAMES = {
    "hdf5": "HDF5, also of MATLAB or netCDF, with arrays named by 'input' and 'output'",
    "npz": ".npz with two arrays (x/y, input/output, a/u, or named), or one of trajectories",
    "npy": ".npy with the outputs in a second one (x.npy/y.npy or 'output'), or trajectories",
    "neuraloperator": ".pt with tensors {'x': ..., 'y': ...}, two tensors, or trajectories",
    "mat": ".mat of MATLAB with two arrays (coeff/sol, a/u, or named), or one of trajectories",
    "xarray": "zarr or netCDF 3 with arrays named by 'input' and 'output', or 'fields'",
}
"""The readers of arrays that the user may name, tried last; each for containers of its kind."""

DIMENSIONS = {
    "N": "n sample samples member batch b ensemble trajectory realization",
    "T": "t time step times steps",
    "C": "c channel channels component variable lev level",
    "space": "x y z lat latitude lon longitude rlat rlon height",
}
GUESS = "a guess from the shapes"


# --- the formats ---


@READERS.register("store")
def read_store(container: Container, options: ReaderOptions) -> list[Layout] | None:
    """HDF5 written by multigrid, with the groups train, validation and test."""
    if "fingerprint" not in container.attributes or not set(SPLITS) <= set(container.groups):
        return None
    centering = container.attributes.get("centering")
    layouts = []
    for split in SPLITS:
        fields = []
        for side in ("input", "output"):
            info = container.info(f"{split}/{side}")
            item = make_field(container, f"{split}/{side}", "NC" + SPACE[: len(info.shape) - 2])
            names = info.attributes.get("fields", [])
            same_number = isinstance(names, list) and len(names) == len(item.channels)
            fields.append(replace(item, channels=tuple(names)) if same_number else item)
        layouts.append(
            Layout(
                inputs=(fields[0],),
                outputs=(fields[1],),
                count=int(container.group_attributes(split).get("num_complete", 0)),
                split=split,
                centering=centering if centering in ("cell", "node") else None,
                coordinates=(f"{split}/sha256",),
            )
        )
    return layouts


@READERS.register("well")
def read_well(container: Container, options: ReaderOptions) -> Layout | None:
    """HDF5 of The Well: the groups t0_fields, t1_fields, ... and the attribute n_spatial_dims."""
    arrays = [name for name in container.names if re.match("t[012]_fields/", name)]
    needed = {"n_spatial_dims", "n_trajectories"}
    if not arrays or not needed <= set(container.attributes):
        return None
    ndim, count = (_whole(container, name) for name in ("n_spatial_dims", "n_trajectories"))
    if ndim not in (1, 2, 3):
        raise UserError(f"{container.path}: has {ndim} space dimensions, not 1, 2 or 3")
    fields = [_well_field(container, name, ndim) for name in arrays]
    states = tuple(item for item in fields if "T" in item.axes)
    if not states:
        raise UserError(f"{container.path}: no field changes in time")
    boundaries: dict[str, str] = {}
    conditions = container.groups.get("boundary_conditions", ())
    for name in dict.fromkeys(name.partition("/")[0] for name in conditions):
        attributes = container.group_attributes(f"boundary_conditions/{name}")
        axes = attributes.get("associated_dims", [])
        for axis in [axes] if isinstance(axes, str) else axes:
            boundaries[str(axis)] = str(attributes.get("bc_type", "unknown")).lower()
    kind = str(container.attributes.get("grid_type", "cartesian"))
    return Layout(
        states=states,
        inputs=tuple(item for item in fields if "T" not in item.axes),
        count=count,
        coordinates=tuple(n for n in container.names if n.startswith(("dimensions/", "boundary_"))),
        boundaries=boundaries,
        time_step=_time_step(container, "dimensions/time"),
        grid_kind=None if kind in ("cartesian", "uniform") else kind,
    )


def _whole(container: Container, name: str) -> int:
    try:
        return int(container.attributes[name])
    except (TypeError, ValueError):
        raise UserError(
            f"{container.path}: the attribute '{name}' must be a whole number"
        ) from None


def _well_field(container: Container, array: str, ndim: int) -> Field:
    """Returns a field of rank 0, 1 or 2, as its group says, with the axes along which it varies."""
    attributes = container.info(array).attributes
    varying = attributes.get("dim_varying", [True] * ndim)
    if not isinstance(varying, list) or len(varying) != ndim:
        raise UserError(f"{container.path}: dim_varying of '{array}' must have {ndim} entries")
    axes = "N" if attributes.get("sample_varying", True) else ""
    axes += "T" if attributes.get("time_varying", True) else ""
    axes += "".join(letter for letter, varies in zip(SPACE, varying, strict=False) if varies)
    return make_field(container, array, axes + "C" * int(array[1]))


def _time_step(container: Container, name: str) -> float | None:
    """Returns the distance of the first two times, None if there are no such."""
    if name not in container or len(container.info(name).shape) != 1:
        return None
    times = container.read(name)
    return float(times[1] - times[0]) if len(times) > 1 else None


@READERS.register("pdebench")
def read_pdebench(container: Container, options: ReaderOptions) -> Layout | None:
    """HDF5 of PDEBench: 'nu' and 'tensor', 'tensor' [N,t,x,..], fluid fields, or groups 0000."""
    if container.kind != "hdf5":
        return None
    names = set(container.names)
    numbered = sorted(group for group in container.groups if re.fullmatch(r"\d{4,}", group))
    common: dict[str, Any] = {
        "leading_test": 0.1,  # PDEBench tests on the first int(0.1 N)
        "coordinates": tuple(sorted(n for n in names if n.endswith("-coordinate"))),
        "time_step": _time_step(container, "t-coordinate"),
    }
    if {"nu", "tensor"} <= names:
        return pair_layout(container, options, ("nu",), ("tensor",), **common)
    if numbered and f"{numbered[0]}/data" in container:
        array = container.stack("data", [f"{group}/data" for group in numbered])
        space = SPACE[: len(container.info(array).shape) - 3]
        common["coordinates"] = tuple(n for n in names if re.match(r"\d{4,}/grid/", n))
        common["time_step"] = _time_step(container, f"{numbered[0]}/grid/t")
        return Layout((make_field(container, array, f"NT{space}C"),), **common)
    if {"velocity", "particles"} <= names:
        space = SPACE[: len(container.info("velocity").shape) - 3]
        states = (make_field(container, n, f"NT{space}C") for n in ("velocity", "particles"))
        force = (make_field(container, n, f"N{space}C") for n in ("force",) if n in names)
        common["coordinates"] += tuple(n for n in ("t",) if n in names)
        return Layout(tuple(states), tuple(force), **common)
    fluid = [n for n in ("density", "pressure", "Vx", "Vy", "Vz") if n in names]
    fields = ["tensor"] if "tensor" in names else fluid
    if not {"tensor", "density"} & names:
        return None
    shape = container.info(fields[0]).shape
    if not 3 <= len(shape) <= 5:
        raise UserError(f"{container.path}: '{fields[0]}' {list(shape)} must be [N, t, x, ...]")
    space = SPACE[: len(shape) - 2]
    if "periodic" in container.path.name:
        common["boundaries"] = dict.fromkeys(space.lower(), "periodic (says the name)")
    return Layout(tuple(make_field(container, n, f"NT{space}") for n in fields), **common)


@READERS.register("cno")
def read_cno(container: Container, options: ReaderOptions) -> Layout | None:
    """HDF5 of CNO: the groups sample_0 or Sample_0, ..., each with 'input' and 'output'."""
    by_number: dict[tuple[int, ...], str] = {}
    for name in dict.fromkeys([*container.groups, *container.names]):
        match = re.fullmatch(r"[Ss]ample_(\d+(?:_(?:t_)?\d+)*)", name)
        if match:
            by_number[tuple(map(int, re.findall(r"\d+", match.group(1))))] = name
    if not by_number or container.kind != "hdf5":
        return None
    numbers = sorted(by_number)
    samples = [by_number[key] for key in numbers]
    of_first = sum(key[0] == numbers[0][0] for key in numbers)  # of a sample with several steps
    firsts = [key[0] for key in numbers[::of_first]]
    whole = [key[0] for key in numbers] == [n for n in firsts for _ in range(of_first)]
    if samples[0] in container:  # arrays, not groups: trajectories [t, c, x, y]
        shape = container.info(container.stack("u", samples)).shape
        axes = options.stated_axes("u", len(shape)) or guess_trajectory_axes(shape, options.ndim)
        if axes is None:
            raise UserError(f"{container.path}: say with problem.axes what {list(shape)} is")
        return Layout((make_field(container, "u", axes, why=GUESS),))
    for side in ("input", "output"):
        item = container.info(f"{samples[0]}/{side}").shape
        square = isqrt(prod(item))
        flat = (square, square) if len(item) == 1 and square**2 == prod(item) else None
        container.stack(side, [f"{sample}/{side}" for sample in samples], item=flat)
    size = of_first if whole else 1
    return pair_layout(container, options, ("input",), ("output",), pairs_in_trajectory=size)


@READERS.register("pdearena")
def read_pdearena(container: Container, options: ReaderOptions) -> list[Layout] | None:
    """HDF5 of PDEArena: the groups train, valid or test, each with 'u', 'vx', 'vy' [N,t,x,y]."""
    if container.kind != "hdf5" or not set(container.groups) <= set(SPLIT_NAMES):
        return None
    layouts = []
    for group, names in container.groups.items():
        shapes = {f"{group}/{name}": container.info(f"{group}/{name}").shape for name in names}
        states = [name for name, shape in shapes.items() if len(shape) >= 4]
        if not states or not {"u", "vx", "vy", "vor", "pres"} & set(names):
            return None
        axes = "NT" + SPACE[: len(shapes[states[0]]) - 2]
        layouts.append(
            Layout(
                tuple(make_field(container, name, axes) for name in states),
                split=SPLIT_NAMES[group],
                coordinates=tuple(f"{group}/{n}" for n in names if n in ("t", "x", "y", "dt")),
                time_step=_time_step(container, f"{group}/t"),
            )
        )
    return layouts or None


@READERS.register("poseidon")
def read_poseidon(container: Container, options: ReaderOptions) -> Layout | None:
    """NetCDF4 of Poseidon: 'velocity', 'solution' or 'data' [N,T,C,x,y] or [N,T,x,y]."""
    names = [n for n in ("velocity", "solution", "data") if n in container]
    others = set(container.numeric()) - set(names) - {"c"}
    if container.kind != "hdf5" or len(names) != 1 or others or options.axes:
        return None
    shape = container.info(names[0]).shape
    if len(shape) not in (4, 5) or (len(shape) == 5 and 2 * shape[2] > min(shape[3:])):
        return None
    axes = "NTCXY" if len(shape) == 5 else "NTXY"
    why = "a guess: Poseidon's layout" if names[0] == "data" or len(shape) == 4 else "the format"
    constants = tuple(make_field(container, n, "NXY") for n in ("c",) if n in container)
    return Layout((make_field(container, names[0], axes, why=why),), constants)


@READERS.register("fno")
def read_fno(container: Container, options: ReaderOptions) -> Layout | None:
    """FNO's Navier-Stokes files (.mat): trajectories 'u' [N,x,y,t] that start from 'a' [N,x,y]."""
    is_matlab = container.kind == "mat" or getattr(container, "is_matlab", False)
    if not is_matlab or not {"a", "u"} <= set(container.names) or options.axes:
        return None
    first, whole = container.info("a").shape, container.info("u").shape
    if whole[:-1] != first or len(first) not in (2, 3, 4):
        return None
    states = make_field(container, "u", "N" + SPACE[: len(first) - 1] + "T")
    note = "'a' is the state before the first one of 'u', which are not a time step apart"
    coordinates = tuple(n for n in ("t",) if n in container)
    return Layout((states,), coordinates=coordinates, notes=(note,))


@READERS.register("dimensions")
def read_dimensions(container: Container, options: ReaderOptions) -> Layout | None:
    """NetCDF or zarr whose variables name their axes: sample, time, channel, x, y, lat, lon."""
    axes = {name: _axes_by_dims(container, name) for name in container.numeric()}
    on_grid = {n: a for n, a in axes.items() if a and "X" in a}
    states = [n for n, a in on_grid.items() if "T" in a]
    if not states or _usual_pair(container):
        return None
    fields = {
        name: make_field(container, name, a, why="names of the axes") for name, a in on_grid.items()
    }
    dims = {dim.lower() for name in states for dim in container.info(name).dims}
    return Layout(
        tuple(fields[name] for name in states),
        tuple(fields[name] for name in fields if name not in states),
        coordinates=tuple(container.coordinates),
        grid_kind="latitude-longitude" if dims & {"lat", "latitude"} else None,
    )


def _axes_by_dims(container: Container, name: str) -> str | None:
    """Returns the axes of an array whose axes have names in the file, None if some have none."""
    letters, space = "", iter(SPACE)
    for dim in container.info(name).dims:
        letter = next((k for k, names in DIMENSIONS.items() if dim.lower() in names.split()), None)
        if letter is None:
            return None
        letters += next(space, "Z") if letter == "space" else letter
    return letters or None


# --- arrays of any names ---


def _reader_of(kind: str, summary: str) -> Reader:
    def read(container: Container, options: ReaderOptions) -> Layout | None:
        return read_named(container, options) if container.kind == kind else None

    read.__doc__ = summary
    return read


for _kind, _summary in TAKE_NAMES.items():
    READERS.register(_kind)(_reader_of(_kind, _summary))


def read_named(container: Container, options: ReaderOptions) -> Layout | None:
    """Reads arrays named by the user, of usual names, or the only one there is."""
    pair = _named_pair(container, options) if options.named or not options.fields else None
    if pair is not None:
        inputs, outputs = pair
        if set(outputs) <= set(inputs):
            return _trajectories(container, options, outputs, inputs)
        return pair_layout(container, options, inputs, outputs)
    if options.fields:
        return _trajectories(container, options, options.fields, options.fields)
    shapes = {name: info.shape for name, info in container.numeric().items()}
    large = [name for name, shape in shapes.items() if len(shape) >= 3]
    if len(large) == 1:
        shape = shapes[large[0]]
        stated = options.stated_axes(large[0], len(shape)) or _axes_by_dims(container, large[0])
        if stated or len(shape) > 3 or options.ndim == 1:
            return _trajectories(container, options, large, large)
    if container.kind == "hdf5":
        return None  # what no reader fits says more
    if container.kind == "npy":
        raise UserError(
            f"{container.path}: a .npy file holds one array; name the file of the outputs, "
            "'output', or say with problem.axes what the axes of a trajectory are"
        )
    raise UserError(
        f"{container.path}: name the arrays with 'input' and 'output' (the same array for "
        f"trajectories); the file holds {container.contents()}"
    )


def _usual_pair(container: Container) -> tuple[str, ...] | None:
    """Returns the first of the usual pairs of names that is there."""
    names = set(container.names) - container.coordinates
    return next((pair for pair in NAME_PAIRS if set(pair) <= names), None)


def _named_pair(
    container: Container, options: ReaderOptions
) -> tuple[Sequence[str], Sequence[str]] | None:
    """Returns the names of the inputs and of the outputs, if there are such."""
    names = container.names
    if container.kind == "npy":
        return (names[:1], names[1:]) if len(names) == 2 else None
    if not options.named:
        unnamed = container.kind == "neuraloperator" and names == ("0", "1")
        pair = names if unnamed else _usual_pair(container)
        return None if pair is None else (pair[:1], pair[1:])
    if not options.input or not options.output:
        raise UserError(
            f"{container.path}: name both arrays, 'input' and 'output'; the file holds "
            f"{container.contents()}"
        )
    return options.input, options.output


def pair_layout(
    container: Container,
    options: ReaderOptions,
    inputs: Sequence[str],
    outputs: Sequence[str],
    **more: Any,
) -> Layout:
    """Returns the layout of arrays of inputs and of outputs, ``[N, ...]`` each.

    Axes are those that the user or the file says, else what fits the shapes.
    """
    shapes = {name: container.info(name).shape for name in (*inputs, *outputs)}
    stated = {name: options.stated_axes(name, len(shape)) for name, shape in shapes.items()}
    clear = {name: stated[name] or _axes_by_dims(container, name) for name in shapes}
    first, second = inputs[0], outputs[0]
    if not (clear[first] or clear[second]):
        clear[first], clear[second] = choose_axes(
            container.path, shapes[first], shapes[second], options.ndim
        )
    certain = second if clear[second] else first
    grid = grid_of(clear[certain] or "", shapes[certain])
    fields = {}
    for name, shape in shapes.items():
        axes = clear[name] or axes_on_grid(shape, grid)
        if axes is None:
            raise UserError(
                f"{container.path}: '{name}' {list(shape)} has no axes of the grid "
                f"{list(grid)}; say with problem.axes what its axes are"
            )
        why = "as stated" if stated[name] else GUESS
        fields[name] = make_field(container, name, axes, name, why)
    return Layout(
        inputs=tuple(fields[name] for name in inputs),
        outputs=tuple(fields[name] for name in outputs),
        **more,
    )


def _trajectories(
    container: Container, options: ReaderOptions, states: Sequence[str], inputs: Sequence[str]
) -> Layout:
    """Returns the layout of trajectories; inputs that are not states do not change in time."""
    fields: dict[str, Field] = {}
    grid: tuple[int, ...] | None = None
    for name in dict.fromkeys((*states, *inputs)):
        shape = container.info(name).shape
        axes, why = options.stated_axes(name, len(shape)), "as stated"
        if axes is None:
            axes, why = _axes_by_dims(container, name), "names of the axes"
        if axes is None and grid is not None and name not in states:
            axes, why = axes_on_grid(shape, grid), GUESS
        elif axes is None:
            axes, why = guess_trajectory_axes(shape, options.ndim), GUESS
        if axes is None:
            raise UserError(
                f"{container.path}: what the axes of '{name}' {list(shape)} are cannot be "
                "guessed; say it with problem.axes, as in 'N T C X Y'"
            )
        if name in states and "T" not in axes:
            raise UserError(
                f"{container.path}: '{name}' is input and output, but has no time axis: a network "
                "would only learn to copy it"
            )
        grid = grid or grid_of(axes, shape)
        fields[name] = make_field(container, name, axes, name, why)
    return Layout(
        tuple(fields[name] for name in states),
        tuple(fields[name] for name in inputs if name not in states),
    )


# --- scalars ---


def available_parameters(container: Container, count: int) -> dict[str, Field]:
    """Returns the scalars that could become input channels, by name.

    These are arrays with one value for each of ``count`` trajectories, or one for the file, and
    numbers among the attributes of the file.
    """
    available: dict[str, Field] = {}
    for name, value in container.attributes.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            available[name] = Field(np.float64(value) * np.ones(()), "", (name,), "an attribute")
    for name, info in container.numeric().items():
        axes = _parameter_axes(info.shape, count)
        if axes is not None:
            available[name] = make_field(container, name, axes, why="one value a trajectory")
    return available


def _parameter_axes(shape: tuple[int, ...], count: int) -> str | None:
    if prod(shape) == 1:
        return "C" * len(shape)
    if shape == (count,):
        return "N"
    if shape == (count, 1):  # so has MATLAB its vectors
        return "NC"
    return "CN" if shape == (1, count) else None


def chosen_parameters(container: Container, wanted: Sequence[str], count: int) -> list[Field]:
    """Returns the parameters that the user names."""
    available = available_parameters(container, count) if wanted else {}
    chosen = []
    for name in wanted:
        matches = [n for n in available if name in (n, n.rpartition("/")[2])]
        if not matches:
            raise UserError(
                f"{container.path}: there is no parameter '{name}'; there are "
                f"{', '.join(available) or 'none'}{nearest(name, available)}"
            )
        chosen.append(available[matches[-1]])
    return chosen
