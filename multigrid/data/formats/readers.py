"""The built-in formats: each a short function from a container to its layout.

A reader gets a container and what the user says, and returns the layout, several (for the splits
of a file), or None if the file is not of its format. The first line of its docstring is shown
where no reader fits. Those of users are tried first, then these in the order of :data:`KNOWN`.
"""

import re
from collections.abc import Sequence
from math import isqrt, prod
from typing import Any

import numpy as np

from multigrid.data import SPLITS
from multigrid.data.formats.array_files import NAME_PAIRS
from multigrid.data.formats.container import Container
from multigrid.data.formats.layout import (
    SPACE,
    Field,
    Layout,
    ReaderOptions,
    channel_names,
    choose_axes,
    grid_of,
    guess_trajectory_axes,
    make_field,
)
from multigrid.errors import UserError, nearest
from multigrid.registry import READERS

FLUID_FIELDS = ("density", "pressure", "Vx", "Vy", "Vz")
LEADING_TEST = 0.1  # PDEBench tests on the first tenth, int(0.1 N)
WELL_GROUPS = ("t0_fields", "t1_fields", "t2_fields")
MAX_COMPONENTS = 9
ARENA_SPLITS = {"train": "train", "valid": "validation", "validation": "validation", "test": "test"}
ARENA_FIELDS = {"u", "vx", "vy", "vor", "pres"}
DIMENSIONS = {
    "N": {
        "n",
        "sample",
        "samples",
        "member",
        "batch",
        "b",
        "ensemble",
        "trajectory",
        "realization",
    },
    "T": {"t", "time", "step", "times", "steps"},
    "C": {"c", "channel", "channels", "component", "variable", "lev", "level"},
}
SPACE_NAMES = {"x", "y", "z", "lat", "latitude", "lon", "longitude", "rlat", "rlon", "height"}
GUESS = "a guess from the shapes"


def pair_layout(
    container: Container,
    options: ReaderOptions,
    inputs: Sequence[str],
    outputs: Sequence[str],
    why: str = GUESS,
    **more: Any,
) -> Layout:
    """Returns the layout of arrays of inputs and of outputs, ``[N, ...]`` each.

    Axes are those that the user or the file says, else what fits the shapes.
    """
    stated = {}
    for name in (*inputs, *outputs):
        stated[name] = options.stated_axes(name, len(container.info(name).shape)) or _axes_by_dims(
            container, name
        )
    first, second = inputs[0], outputs[0]
    shapes = {name: container.info(name).shape for name in (first, second)}
    if not (stated[first] or stated[second]):
        chosen = choose_axes(container.path, shapes[first], shapes[second], options.ndim)
        stated[first], stated[second] = chosen
    certain = second if stated[second] else first
    grid = grid_of(stated[certain] or "", shapes[certain])
    fields = {}
    for name, axes in stated.items():
        shape = container.info(name).shape
        fitting = axes or _axes_on_grid(shape, grid)
        if fitting is None:
            raise UserError(
                f"{container.path}: '{name}' {list(shape)} has no axes of the grid "
                f"{list(grid)}; say with problem.axes what its axes are"
            )
        stated_by_user = options.stated_axes(name, len(shape)) is not None
        reason = "as stated" if stated_by_user else why
        fields[name] = make_field(container, name, fitting, name, reason)
    return Layout(
        inputs=tuple(fields[name] for name in inputs),
        outputs=tuple(fields[name] for name in outputs),
        **more,
    )


def _axes_on_grid(shape: tuple[int, ...], grid: tuple[int, ...]) -> str | None:
    """Returns the axes of an array on a grid that is clear: ``[N?, T?, C?, *grid, C?]``."""
    space = SPACE[: len(grid)]
    for axes in (space, "N" + space, "NC" + space, "N" + space + "C", "NT" + space, "NTC" + space):
        if len(axes) == len(shape) and grid_of(axes, shape) == grid:
            return axes
    return None


def _axes_by_dims(container: Container, name: str) -> str | None:
    """Returns the axes of an array whose axes have names in the file, None if some have none."""
    letters, space = "", iter(SPACE)
    for dim in container.info(name).dims:
        letter = next((k for k, names in DIMENSIONS.items() if dim.lower() in names), None)
        if letter is None and dim.lower() not in SPACE_NAMES:
            return None
        letters += letter or next(space, "Z")
    return letters or None


# --- the formats ---


@READERS.register("store")
def read_store(container: Container, options: ReaderOptions) -> list[Layout] | None:
    """HDF5 written by multigrid, with the groups train, validation and test."""
    if "fingerprint" not in container.attributes or not set(SPLITS) <= set(container.groups):
        return None
    layouts = []
    shapes = [container.info(f"train/{side}").shape for side in ("input", "output")]
    if min(map(len, shapes)) < 3 or shapes[0][2:] != shapes[1][2:]:
        raise UserError(
            f"{container.path}: the shapes of input {list(shapes[0])} and output "
            f"{list(shapes[1])} disagree"
        )
    centering = container.attributes.get("centering")
    for split in SPLITS:
        count = int(container.group_attributes(split).get("num_complete", 0))
        fields = []
        for side, expected in zip(("input", "output"), shapes, strict=True):
            info = container.info(f"{split}/{side}")
            if (
                len(info.shape) != len(expected)
                or info.shape[1:] != expected[1:]
                or (info.shape[0] < count)
            ):
                raise UserError(
                    f"{container.path}: '{split}/{side}' {list(info.shape)} must have {count} "
                    f"samples {list(expected[1:])}"
                )
            named = info.attributes.get("fields", [])
            names = tuple(named) if isinstance(named, list) else (named,)
            if len(names) != expected[1]:
                names = channel_names(side, expected[1])
            fields.append(Field(f"{split}/{side}", "NC" + SPACE[: len(expected) - 2], names))
        layouts.append(
            Layout(
                inputs=(fields[0],),
                outputs=(fields[1],),
                count=count,
                split=split,
                centering=centering if centering in ("cell", "node") else None,
                coordinates=(f"{split}/sha256",),
            )
        )
    return layouts


@READERS.register("well")
def read_well(container: Container, options: ReaderOptions) -> Layout | None:
    """HDF5 of The Well: the groups t0_fields, t1_fields, ... and the attribute n_spatial_dims."""
    attributes, groups = container.attributes, container.groups
    if not set(WELL_GROUPS) & set(groups) or not {"n_spatial_dims", "n_trajectories"} <= set(
        attributes
    ):
        return None
    ndim, count = (_whole(container, name) for name in ("n_spatial_dims", "n_trajectories"))
    if ndim not in (1, 2, 3):
        raise UserError(f"{container.path}: has {ndim} space dimensions, not 1, 2 or 3")
    fields = [
        _well_field(container, f"{group}/{name}", ndim)
        for group in WELL_GROUPS
        for name in groups.get(group, ())
    ]
    states = tuple(item for item in fields if item.by_step)
    whole = [f for f in states if set("N" + SPACE[:ndim]) <= set(f.axes)]
    if not whole:
        raise UserError(f"{container.path}: no field changes in time and along all axes")
    sizes = {letter: whole[0].size(container, letter) for letter in "T" + SPACE[:ndim]}
    sizes["N"] = count
    for item in fields:
        shape = container.info(str(item.array)).shape
        wrong = [x for x in item.axes if x != "C" and item.size(container, x) != sizes[x]]
        if wrong:
            raise UserError(
                f"{container.path}: the shape of '{item.array}', {list(shape)}, disagrees with "
                f"{count} trajectories, {sizes['T']} steps and the grid"
            )
    kind = attributes.get("grid_type", "cartesian")
    return Layout(
        states=states,
        inputs=tuple(item for item in fields if not item.by_step),
        coordinates=tuple(n for n in container.names if n.startswith(("dimensions/", "boundary_"))),
        boundaries=_well_boundaries(container),
        time_step=_time_step(container, "dimensions/time"),
        grid_kind=None if kind in ("cartesian", "uniform") else str(kind),
    )


def _whole(container: Container, name: str) -> int:
    try:
        return int(container.attributes[name])
    except (TypeError, ValueError):
        raise UserError(
            f"{container.path}: the attribute '{name}' must be a whole number"
        ) from None


def _well_field(container: Container, array: str, ndim: int) -> Field:
    info = container.info(array)
    varying = info.attributes.get("dim_varying", [True] * ndim)
    if not isinstance(varying, list) or len(varying) != ndim:
        raise UserError(f"{container.path}: dim_varying of '{array}' must have {ndim} entries")
    axes = "N" if info.attributes.get("sample_varying", True) else ""
    axes += "T" if info.attributes.get("time_varying", True) else ""
    axes += "".join(letter for letter, varies in zip(SPACE, varying, strict=False) if varies)
    components = info.shape[len(axes) :]
    if len(info.shape) < len(axes) or prod(components) > MAX_COMPONENTS:
        raise UserError(
            f"{container.path}: '{array}' {list(info.shape)} has other axes than its attributes say"
        )
    return make_field(container, array, axes + "C" * len(components))


def _well_boundaries(container: Container) -> dict[str, str]:
    """Returns the condition on the boundary across each axis."""
    conditions: dict[str, str] = {}
    for name in container.groups.get("boundary_conditions", ()):
        group = f"boundary_conditions/{name.partition('/')[0]}"
        attributes = container.group_attributes(group)
        axes = attributes.get("associated_dims", [])
        for axis in [axes] if isinstance(axes, str) else axes:
            conditions[str(axis)] = str(attributes.get("bc_type", "unknown")).lower()
    return conditions


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
    names, groups = set(container.names), container.groups
    coordinates = tuple(sorted(n for n in names if n.endswith("-coordinate")))
    numbered = sorted(group for group in groups if re.fullmatch(r"\d{4,}", group))
    common: dict[str, Any] = {
        "leading_test": LEADING_TEST,
        "coordinates": coordinates,
        "time_step": _time_step(container, "t-coordinate"),
    }
    if {"nu", "tensor"} <= names:
        return pair_layout(container, options, ("nu",), ("tensor",), **common)
    if numbered and f"{numbered[0]}/data" in container:
        array = container.stack("data", [f"{group}/data" for group in numbered])
        ndim = len(container.info(array).shape) - 3
        common["coordinates"] = tuple(n for n in names if re.match(r"\d{4,}/grid/", n))
        common["time_step"] = _time_step(container, f"{numbered[0]}/grid/t")
        states = [make_field(container, array, "NT" + SPACE[:ndim] + "C")]
        return Layout(tuple(states), **common)
    if {"velocity", "particles"} <= names:
        ndim = len(container.info("velocity").shape) - 3
        axes = "NT" + SPACE[:ndim] + "C"
        states = [make_field(container, name, axes) for name in ("velocity", "particles")]
        force = [n for n in ("force",) if n in names]
        inputs = tuple(make_field(container, n, "N" + SPACE[:ndim] + "C") for n in force)
        common["coordinates"] += tuple(n for n in ("t",) if n in names)
        return Layout(tuple(states), inputs, **common)
    fields = ["tensor"] if "tensor" in names else [n for n in FLUID_FIELDS if n in names]
    if not {"tensor", "density"} & names:
        return None
    shape = container.info(fields[0]).shape
    if len(shape) < 3:
        raise UserError(f"{container.path}: '{fields[0]}' {list(shape)} must be [N, t, x, ...]")
    for name in fields:
        if container.info(name).shape != shape:
            raise UserError(
                f"{container.path}: '{name}' {list(container.info(name).shape)} and "
                f"'{fields[0]}' {list(shape)} disagree"
            )
    axes = "NT" + SPACE[: len(shape) - 2]
    if len(axes) != len(shape):
        raise UserError(f"{container.path}: '{fields[0]}' {list(shape)} has too many axes")
    if "periodic" in container.path.name:
        common["boundaries"] = dict.fromkeys("xyz"[: len(shape) - 2], "periodic (says the name)")
    return Layout(tuple(make_field(container, name, axes) for name in fields), **common)


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
    of_first = sum(key[0] == numbers[0][0] for key in numbers)
    firsts = [key[0] for key in numbers[::of_first]]
    whole = [key[0] for key in numbers] == [n for n in firsts for _ in range(of_first)]
    if samples[0] in container:  # arrays, not groups: trajectories [t, c, x, y], or their states
        item = container.info(samples[0]).shape
        lead = (len(samples) // of_first, of_first) if whole and of_first > 1 else None
        array = container.stack("u", samples, lead, item)
        shape = container.info(array).shape
        axes = options.stated_axes("u", len(shape)) or guess_trajectory_axes(shape, options.ndim)
        if axes is None:
            raise UserError(f"{container.path}: say with problem.axes what {list(shape)} is")
        return Layout((make_field(container, array, axes, why=GUESS),))
    names = []
    for side in ("input", "output"):
        item = container.info(f"{samples[0]}/{side}").shape
        square = isqrt(prod(item))
        flat = (square, square) if len(item) == 1 and square**2 == prod(item) else None
        names.append(container.stack(side, [f"{sample}/{side}" for sample in samples], item=flat))
    size = of_first if whole else 1
    return pair_layout(container, options, names[:1], names[1:], pairs_in_trajectory=size)


@READERS.register("pdearena")
def read_pdearena(container: Container, options: ReaderOptions) -> list[Layout] | None:
    """HDF5 of PDEArena: the groups train, valid or test, each with 'u', 'vx', 'vy' [N,t,x,y]."""
    if container.kind != "hdf5" or not set(container.groups) <= set(ARENA_SPLITS):
        return None
    layouts = []
    for group, names in container.groups.items():
        arrays = [f"{group}/{name}" for name in names]
        shapes = {name: container.info(name).shape for name in arrays}
        states = [name for name, shape in shapes.items() if len(shape) >= 4]
        if not states or not ARENA_FIELDS & set(names):
            return None
        ndim = len(shapes[states[0]]) - 2
        layouts.append(
            Layout(
                tuple(make_field(container, name, "NT" + SPACE[:ndim]) for name in states),
                split=ARENA_SPLITS[group],
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
    static = ("c",) if "c" in container else ()
    axes = "NTCXY" if len(shape) == 5 else "NTXY"
    why = "a guess: Poseidon's layout" if names[0] == "data" or len(shape) == 4 else "the format"
    return Layout(
        (make_field(container, names[0], axes, why=why),),
        tuple(make_field(container, name, "NXY") for name in static),
    )


@READERS.register("fno")
def read_fno(container: Container, options: ReaderOptions) -> Layout | None:
    """FNO's Navier-Stokes files (.mat): trajectories 'u' [N,x,y,t] that start from 'a' [N,x,y]."""
    is_matlab = container.kind == "mat" or getattr(container, "is_matlab", False)
    if not is_matlab or not {"a", "u"} <= set(container.names) or options.axes:
        return None
    first, whole = container.info("a").shape, container.info("u").shape
    if whole[:-1] != first or len(first) not in (2, 3, 4):
        return None
    axes = "N" + SPACE[: len(first) - 1] + "T"
    note = "'a' is the state before the first one of 'u', which are not a time step apart"
    return Layout(
        (make_field(container, "u", axes),), coordinates=("t",) if "t" in container else (),
        notes=(note,),
    )  # fmt: skip


@READERS.register("dimensions")
def read_dimensions(container: Container, options: ReaderOptions) -> Layout | None:
    """NetCDF or zarr whose variables name their axes: sample, time, channel, x, y, lat, lon."""
    axes = {name: _axes_by_dims(container, name) for name in container.numeric()}
    states = {n: a for n, a in axes.items() if a and "T" in a and "X" in a}
    if not states or known_pair(container):
        return None
    spherical = {d.lower() for n in states for d in container.info(n).dims} & {"lat", "latitude"}
    static = {n: a for n, a in axes.items() if a and "T" not in a and "X" in a}
    fields = [
        tuple(make_field(container, name, a, why="names of the axes") for name, a in group.items())
        for group in (states, static)
    ]
    coordinates = tuple(n for n in container.names if container.info(n).is_coordinate)
    kind = "latitude-longitude" if spherical else None
    return Layout(fields[0], fields[1], coordinates=coordinates, grid_kind=kind)


# --- arrays of any names ---


def known_pair(container: Container) -> tuple[str, str] | None:
    """Returns the first of the usual pairs of names that is there."""
    names = {name for pair in NAME_PAIRS for name in pair if name in container}
    names = {name for name in names if not container.is_coordinate(name)}
    return next((pair for pair in NAME_PAIRS if set(pair) <= names), None)


def _read_arrays(container: Container, options: ReaderOptions) -> Layout | None:
    """Reads arrays named by the user, of usual names, or the only one there is."""
    if options.named or not options.fields:
        names = _chosen_pair(container, options)
        if names is not None:
            inputs, outputs = names
            if set(outputs) <= set(inputs):
                return _trajectories(container, options, outputs, inputs)
            return pair_layout(container, options, inputs, outputs)
    numeric = container.numeric()
    large = [name for name, info in numeric.items() if len(info.shape) >= 3]
    if options.fields:
        return _trajectories(container, options, options.fields, options.fields)
    if len(large) == 1:
        shape = numeric[large[0]].shape
        stated = options.stated_axes(large[0], len(shape)) or _axes_by_dims(container, large[0])
        if stated or len(shape) > 3 or options.ndim == 1:
            return _trajectories(container, options, large, large)
    if container.kind == "npy":
        raise UserError(
            f"{container.path}: a .npy file holds one array; name the file of the outputs, "
            "'output', or say with problem.axes what the axes of a trajectory are"
        )
    return None


def _chosen_pair(
    container: Container, options: ReaderOptions
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    if container.kind == "npy":
        first, *second = container.names
        return ((first,), (second[0],)) if second else None
    if not options.named:
        pair = known_pair(container)
        if pair is None and container.kind == "neuraloperator":
            pair = ("0", "1") if set(container.names) == {"0", "1"} else None
        return None if pair is None else ((pair[0],), (pair[1],))
    if not options.input or not options.output:
        raise UserError(
            f"{container.path}: name both arrays, 'input' and 'output'; the file holds "
            f"{container.contents()}"
        )
    return options.input, options.output


def _trajectories(
    container: Container, options: ReaderOptions, states: Sequence[str], inputs: Sequence[str]
) -> Layout:
    """Returns the layout of trajectories; inputs that are not states do not change in time."""
    fields: dict[str, Field] = {}
    for name in (*states, *(n for n in inputs if n not in states)):
        shape = container.info(name).shape
        stated = options.stated_axes(name, len(shape))
        axes, why = stated, "as stated"
        if axes is None:
            axes, why = _axes_by_dims(container, name), "names of the axes"
        if axes is None and fields and name not in states:
            first = next(iter(fields.values()))
            grid = grid_of(first.axes, container.info(str(first.array)).shape)
            axes, why = _axes_on_grid(shape, grid), GUESS
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
        fields[name] = make_field(container, name, axes, name, why)
    return Layout(
        tuple(fields[name] for name in states),
        tuple(fields[name] for name in inputs if name not in states),
    )


@READERS.register("hdf5")
def read_hdf5(container: Container, options: ReaderOptions) -> Layout | None:
    """HDF5, also of MATLAB or netCDF, with arrays named by 'input' and 'output', or 'fields'."""
    return _read_arrays(container, options) if container.kind == "hdf5" else None


@READERS.register("npz")
def read_npz(container: Container, options: ReaderOptions) -> Layout | None:
    """.npz with two arrays (x/y, input/output, a/u, or named), or one of trajectories."""
    return _named(container, options, "npz")


@READERS.register("npy")
def read_npy(container: Container, options: ReaderOptions) -> Layout | None:
    """.npy with the outputs in a second one (x.npy/y.npy or named by 'output'), or trajectories."""
    return _named(container, options, "npy")


@READERS.register("neuraloperator")
def read_torch(container: Container, options: ReaderOptions) -> Layout | None:
    """.pt with tensors {'x': ..., 'y': ...}, a pair of tensors, or one of trajectories."""
    return _named(container, options, "neuraloperator")


@READERS.register("mat")
def read_mat(container: Container, options: ReaderOptions) -> Layout | None:
    """.mat of MATLAB with two arrays (coeff/sol, a/u, or named), or one of trajectories."""
    return _named(container, options, "mat")


@READERS.register("xarray")
def read_xarray(container: Container, options: ReaderOptions) -> Layout | None:
    """Zarr or netCDF 3 with arrays named by 'input' and 'output', or 'fields'."""
    return _named(container, options, "xarray")


KNOWN = ("store", "well", "pdebench", "cno", "pdearena", "poseidon", "fno", "dimensions")
"""The readers that know their arrays by name, in the order in which they are tried."""

TAKE_NAMES = ("hdf5", "npz", "npy", "neuraloperator", "mat", "xarray")
"""The readers of arrays that the user may name, tried last."""


def _named(container: Container, options: ReaderOptions, kind: str) -> Layout | None:
    if container.kind != kind:
        return None
    layout = _read_arrays(container, options)
    if layout is None:
        raise UserError(
            f"{container.path}: name the arrays with 'input' and 'output' (the same array for "
            f"trajectories); the file holds {container.contents()}"
        )
    return layout


def parameter_fields(
    container: Container, options: ReaderOptions, count: int
) -> tuple[tuple[Field, ...], dict[str, Field]]:
    """Returns the parameters that the user names as fields, and all there are by name.

    A parameter is an array with one value a trajectory, or one value for the file, or a number
    among the attributes of the file.

    Raises:
        UserError: If one that is named is not there.
    """
    available: dict[str, Field] = {}
    for name, value in container.attributes.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            available[name] = Field(np.float64(value) * np.ones(()), "", (name,), "an attribute")
    for name, info in container.numeric().items():
        axes = _parameter_axes(info.shape, count)
        if axes is not None:
            available[name] = make_field(container, name, axes, why="one value a trajectory")
    chosen = []
    for wanted in options.parameters:
        matches = [n for n in available if wanted in (n, n.rpartition("/")[2])]
        if not matches:
            held = ", ".join(available) or "none"
            raise UserError(
                f"{container.path}: there is no parameter '{wanted}'; there are {held}"
                f"{nearest(wanted, available)}"
            )
        chosen.append(available[matches[-1]])
    return tuple(chosen), available


def _parameter_axes(shape: tuple[int, ...], count: int) -> str | None:
    """Returns the axes of one value for the file or for each trajectory, None if it is neither."""
    if prod(shape) == 1:
        return "C" * len(shape)
    if len(shape) == 1 and shape[0] == count:
        return "N"
    if len(shape) == 2 and sorted(shape) == sorted((1, count)):
        return "NC" if shape[0] == count else "CN"
    return None
