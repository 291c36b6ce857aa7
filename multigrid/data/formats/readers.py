"""The built-in formats: each a short function from a container to its layout.

A reader gets a container and what the user says, and returns the layout, several (for the splits
of a file), or None if the file is not of its format. The first line of its docstring is shown
where no reader fits. Those of users are tried first, then these in the order of :data:`KNOWN`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import isqrt, prod
from typing import Any, get_args

from multigrid.config.data import ReaderOptions
from multigrid.data import SPLIT_NAMES, SPLITS
from multigrid.data.formats.array_files import NAME_PAIRS
from multigrid.data.formats.container import Container
from multigrid.data.formats.layout import (
    SPACE,
    Field,
    Layout,
    axes_on_grid,
    grid_of,
    guess_axes,
    make_field,
    require_number,
    stated_axes,
)
from multigrid.errors import UserError
from multigrid.grid import Centering
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

    def side(name: str) -> tuple[Field]:
        item = make_field(container, name, "NC...")
        names = item.info.attributes.get("fields", [])
        same_number = isinstance(names, list) and len(names) == len(item.channels)
        return (replace(item, channels=tuple(names)) if same_number else item,)

    return [
        Layout(
            inputs=side(f"{split}/input"),
            outputs=side(f"{split}/output"),
            count=int(container.group_attributes[split].get("num_complete", 0)),
            split=split,
            centering=centering if centering in get_args(Centering) else None,
        )
        for split in SPLITS
    ]


@READERS.register("well")
def read_well(container: Container, options: ReaderOptions) -> Layout | None:
    """HDF5 of The Well: the groups t0_fields, t1_fields, ... and the attribute n_spatial_dims."""
    arrays = [name for name in container.names if re.match("t[012]_fields/", name)]
    ndim, count = map(container.attributes.get, ("n_spatial_dims", "n_trajectories"))
    if not arrays or ndim is None or count is None:
        return None
    if not isinstance(ndim, int) or not isinstance(count, int) or not 1 <= ndim <= 3:
        raise UserError(
            f"{container.path}: n_spatial_dims must be 1, 2 or 3, not {ndim}, and n_trajectories "
            f"a whole number, not {count}"
        )
    fields = [_well_field(container, name, ndim) for name in arrays]
    states = tuple(item for item in fields if "T" in item.axes)
    if not states:
        raise UserError(f"{container.path}: no field changes in time")
    boundaries: dict[str, str] = {}
    for group, attributes in container.group_attributes.items():
        axes = attributes.get("associated_dims", []) if group.startswith("boundary_") else []
        for axis in [axes] if isinstance(axes, str) else axes:
            boundaries[str(axis)] = str(attributes.get("bc_type", "unknown")).lower()
    kind = str(container.attributes.get("grid_type", "cartesian"))
    return Layout(
        states=states,
        inputs=tuple(item for item in fields if "T" not in item.axes),
        count=count,
        coordinates="(dimensions|boundary_conditions)/.*",
        boundaries=boundaries,
        time_step=_time_step(container, "dimensions/time"),
        grid_kind=None if kind in ("cartesian", "uniform") else kind,
    )


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
    if name not in container or len(container.shape(name)) != 1:
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
    times = f"{numbered[0]}/grid/t" if numbered else "t-coordinate"
    common: dict[str, Any] = {
        "leading_test": 0.1,  # PDEBench tests on the first int(0.1 N)
        "coordinates": r"t|.*-coordinate|\d{4,}/grid/.*",
        "time_step": _time_step(container, times),
    }
    if {"nu", "tensor"} <= names:
        return named_layout(container, options, ("nu",), ("tensor",), **common)
    if numbered and f"{numbered[0]}/data" in container:
        array = container.stack("data", [f"{group}/data" for group in numbered])
        return Layout((make_field(container, array, "NT...C"),), **common)
    if {"velocity", "particles"} <= names:
        states = _present(container, "NT...C", "velocity", "particles")
        return Layout(states, _present(container, "N...C", "force"), **common)
    if not {"tensor", "density"} & names:
        return None
    fluid = ("density", "pressure", "Vx", "Vy", "Vz")
    states = _present(container, "NT...", *(("tensor",) if "tensor" in names else fluid))
    if "periodic" in container.path.name:
        space = set(states[0].axes.lower()) & set("xyz")
        common["boundaries"] = dict.fromkeys(sorted(space), "periodic (says the name)")
    return Layout(states, **common)


def _present(container: Container, axes: str, *names: str) -> tuple[Field, ...]:
    """Returns as fields the arrays of these names that there are."""
    return tuple(make_field(container, name, axes) for name in names if name in container)


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
    samples = [by_number[key] for key in sorted(by_number)]
    sizes = set(Counter(sample for sample, *_ in by_number).values())
    if samples[0] in container:  # arrays, not groups: trajectories [t, c, x, y]
        states = (container.stack("u", samples),)
        return named_layout(container, options, states, states)
    for side in ("input", "output"):
        item = container.shape(f"{samples[0]}/{side}")
        square = isqrt(prod(item))
        flat = (square, square) if len(item) == 1 and square**2 == prod(item) else None
        container.stack(side, [f"{sample}/{side}" for sample in samples], item=flat)
    size = sizes.pop() if len(sizes) == 1 else 1  # several steps of each sample
    return named_layout(container, options, ("input",), ("output",), pairs_in_trajectory=size)


@READERS.register("pdearena")
def read_pdearena(container: Container, options: ReaderOptions) -> list[Layout] | None:
    """HDF5 of PDEArena: the groups train, valid or test, each with 'u', 'vx', 'vy' [N,t,x,y]."""
    if container.kind != "hdf5" or not set(container.groups) <= set(SPLIT_NAMES):
        return None
    layouts = []
    for group, names in container.groups.items():
        paths = (f"{group}/{name}" for name in names)
        states = [path for path in paths if len(container.shape(path)) >= 4]
        if not states or not {"u", "vx", "vy", "vor", "pres"} & set(names):
            return None
        layout = Layout(
            _present(container, "NT...", *states),
            split=SPLIT_NAMES[group],
            coordinates=r"\w+/(t|x|y|dt)",
            time_step=_time_step(container, f"{group}/t"),
        )
        layouts.append(layout)
    return layouts or None


@READERS.register("poseidon")
def read_poseidon(container: Container, options: ReaderOptions) -> Layout | None:
    """NetCDF4 of Poseidon: 'velocity', 'solution' or 'data' [N,T,C,x,y] or [N,T,x,y]."""
    names = [n for n in ("velocity", "solution", "data") if n in container]
    others = set(container.numeric()) - set(names) - {"c"}
    if container.kind != "hdf5" or len(names) != 1 or others or options.axes:
        return None
    shape = container.shape(names[0])
    if len(shape) not in (4, 5) or (len(shape) == 5 and 2 * shape[2] > min(shape[3:])):
        return None
    axes = "NTCXY" if len(shape) == 5 else "NTXY"
    why = "a guess: Poseidon's layout" if names[0] == "data" or len(shape) == 4 else "the format"
    states = (make_field(container, names[0], axes, why=why),)
    return Layout(states, _present(container, "NXY", "c"))


@READERS.register("fno")
def read_fno(container: Container, options: ReaderOptions) -> Layout | None:
    """FNO's Navier-Stokes files (.mat): trajectories 'u' [N,x,y,t] that start from 'a' [N,x,y]."""
    if not container.is_matlab or not {"a", "u"} <= set(container.names) or options.axes:
        return None
    first, whole = container.shape("a"), container.shape("u")
    if whole[:-1] != first or len(first) not in (2, 3, 4):
        return None
    note = "'a' is the state before the first one of 'u', which are not a time step apart"
    return Layout((make_field(container, "u", "N...T"),), coordinates="t", notes=(note,))


@READERS.register("dimensions")
def read_dimensions(container: Container, options: ReaderOptions) -> Layout | None:
    """NetCDF or zarr whose variables name their axes: sample, time, channel, x, y, lat, lon."""
    axes = {name: _axes_by_dims(container, name) for name in container.numeric()}
    fields = [
        make_field(container, name, text, why="names of the axes")
        for name, text in axes.items()
        if text and "X" in text
    ]
    states = tuple(item for item in fields if "T" in item.axes)
    if not states or _usual_pair(container):
        return None
    dims = {dim.lower() for item in states for dim in item.info.dims}
    return Layout(
        states,
        tuple(item for item in fields if "T" not in item.axes),
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


def read_named(container: Container, options: ReaderOptions) -> Layout | None:
    """Reads arrays named by the user, of usual names, or the only one there is."""
    path, kind = container.path, container.kind
    pair = _named_pair(container, options) or _alone(container, options)
    if pair is not None:
        return named_layout(container, options, *pair)
    if kind == "hdf5":
        return None  # what no reader fits says more
    if kind == "npy":
        raise UserError(
            f"{path}: a .npy file holds one array; name the file of the outputs, 'output', or say "
            "with problem.axes what the axes of a trajectory are"
        )
    raise UserError(
        f"{path}: name the arrays with 'input' and 'output' (the same array for trajectories); "
        f"the file holds {container.contents()}"
    )


for _kind in TAKE_NAMES:
    READERS.register(_kind)(read_named)


def _usual_pair(container: Container) -> tuple[str, ...] | None:
    """Returns the first of the usual pairs of names that is there."""
    names = set(container.names) - container.coordinates
    return next((pair for pair in NAME_PAIRS if set(pair) <= names), None)


def _named_pair(
    container: Container, options: ReaderOptions
) -> tuple[Sequence[str], Sequence[str]] | None:
    """Returns the names of the inputs and of the outputs, if there are such."""
    names = container.names
    if container.kind == "npy" and (options.named or not options.fields):
        return (names[:1], names[1:]) if len(names) == 2 else None
    if options.input and options.output:
        return options.input, options.output
    if options.named:
        raise UserError(
            f"{container.path}: name both arrays, 'input' and 'output'; the file holds "
            f"{container.contents()}"
        )
    if options.fields:
        return options.fields, options.fields
    unnamed = container.kind == "neuraloperator" and names == ("0", "1")
    pair = names if unnamed else _usual_pair(container)
    return None if pair is None else (pair[:1], pair[1:])


def _alone(
    container: Container, options: ReaderOptions
) -> tuple[Sequence[str], Sequence[str]] | None:
    """Returns the name of the only array that may hold trajectories, as input and output."""
    names = [name for name, info in container.numeric().items() if len(info.shape) >= 3]
    if len(names) != 1:
        return None
    clear = options.axes or options.ndim == 1 or _axes_by_dims(container, names[0])
    return (names, names) if clear or len(container.shape(names[0])) > 3 else None


def named_layout(
    container: Container,
    options: ReaderOptions,
    inputs: Sequence[str],
    outputs: Sequence[str],
    **more: Any,
) -> Layout:
    """Returns the layout of pairs of arrays, or of trajectories if all outputs are inputs as well.

    What the axes are is stated, named in the file, or a guess from the shapes of the first arrays,
    which give the grid of the others.
    """
    shapes = {name: container.shape(name) for name in (*inputs, *outputs)}
    require_number(options.axes, shapes)
    axes = {name: pair for name in shapes if (pair := _clear_axes(container, options, name))}
    evolves = set(outputs) <= set(inputs)
    leading = outputs[:1] if evolves else (inputs[0], outputs[0])
    if not axes.keys() & set(leading):
        first, second = shapes[leading[0]], shapes[leading[-1]]
        if not evolves and (not first or first[:1] != second[:1]):
            raise UserError(
                f"{container.path}: input {list(first)} and output {list(second)} must have the "
                "same number of samples along their first axis"
            )
        lead = "NT" if evolves else "N"
        guessed = guess_axes([shapes[name] for name in leading], lead, options.ndim)
        if guessed is None:
            listed = " and ".join(f"'{name}' {list(shapes[name])}" for name in leading)
            wanted = "2-D or 3-D" if options.ndim is None else f"{options.ndim}-D"
            raise UserError(
                f"{container.path}: what the axes of {listed} are cannot be guessed, or they "
                f"disagree on the {wanted} grid; say it with problem.axes, as in 'N T C X Y'"
            )
        axes |= {name: (text, GUESS) for name, text in zip(leading, guessed, strict=True)}
    first_clear = next(name for name in leading if name in axes)
    grid, fields = grid_of(axes[first_clear][0], shapes[first_clear]), {}
    for name, shape in shapes.items():
        text, why = axes.get(name) or (axes_on_grid(shape, grid), GUESS)
        if text is None:
            raise UserError(
                f"{container.path}: '{name}' {list(shape)} has no axes of the grid {list(grid)}; "
                "say with problem.axes what its axes are"
            )
        if evolves and name in outputs and "T" not in text:
            raise UserError(
                f"{container.path}: '{name}' is input and output, but has no time axis: a network "
                "would only learn to copy it"
            )
        fields[name] = make_field(container, name, text, name, why)
    constants = tuple(fields[name] for name in inputs if not (evolves and name in outputs))
    results = tuple(fields[name] for name in outputs)
    return Layout(results, constants, **more) if evolves else Layout((), constants, results, **more)


def _clear_axes(container: Container, options: ReaderOptions, name: str) -> tuple[str, str] | None:
    """Returns the axes that the user or the file names, and which of them; None if neither."""
    if stated := stated_axes(options, container, name):
        return stated, "as stated"
    named = _axes_by_dims(container, name)
    return (named, "names of the axes") if named else None
