"""Reports what is in a data file and how to train from it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from multigrid.config.data import ReaderOptions
from multigrid.data.formats import FieldFile, open_fields, split_folders
from multigrid.data.formats.field_file import ValueCheck, name_samples
from multigrid.data.formats.layout import available_parameters
from multigrid.data.remote import local
from multigrid.data.splits import split_groups, split_pools
from multigrid.errors import UserError, printable
from multigrid.grid import Centering, Grid, guess_centering
from multigrid.tables import counted

COARSEST = 16
MAX_LEVELS = 4
BATCH_SIZE = 32
NUM_LOOKED_AT = 32
FIRST_RUN = 1.5e6
"""Samples times points of an epoch on the finest grid beyond which a first run has fewer epochs."""

GUESSED_WALLS = "periodic (a guess: fields go on from one end to the other)"
PARAMETERS = "can be input channels (problem.parameters, --parameters); below are those that vary"

Report = dict[str, Any]


def inspect_path(place: str | Path, options: ReaderOptions | None = None) -> Report:
    """Opens a file, a folder, a pattern of names or a URL, reads all of it and reports on it.

    Of a data set in folders ``train``, ``valid`` and ``test`` the training files are read.

    Returns:
        What ``multigrid inspect --json`` writes. The ``suggestion`` has sections of an experiment
        file, none if there are too few samples.

    Raises:
        UserError: If the file cannot be read.
    """
    path = local(place)
    folders = split_folders(path)
    others = {s: open_fields(paths, options) for s, paths in folders.items() if s != "train"}
    file = open_fields(folders.get("train", path), options)
    checks, indices, layout = file.value_checks(), np.arange(file.num_samples), file.layout
    with tqdm(total=len(indices), unit="sample", disable=None) as bar:
        for block in file.blocks(indices):
            for check, values in zip(checks, file.fetch(indices[block]), strict=True):
                check.add(indices[block], values)
            bar.update(block.stop - block.start)
    centering = layout.centering or guess_centering(file.shape)
    some = np.linspace(0, len(indices) - 1, min(NUM_LOOKED_AT, len(indices))).astype(int)
    periodic = not layout.boundaries and looks_periodic(file.fetch(some)[1])
    return {
        "path": str(place),
        "reader": file.reader,
        "num_samples": file.num_samples,
        "num_trajectories": file.num_groups if file.group_size > 1 else None,
        "grid": list(file.shape),
        "centering": centering,
        "centering_is_guess": layout.centering is None,
        "arrays": [
            {"name": item.label, "axes": " ".join(item.axes), "why": item.why}
            for item in layout.fields
        ],
        "ignored": [name for name in file.ignored if name not in file.parameters],
        "parameters": list(file.parameters),
        "boundaries": dict(layout.boundaries),
        "looks_periodic": periodic,
        "time_step": layout.time_step,
        "notes": list(layout.notes),
        "inputs": _side(file.dtypes[0], checks[0]),
        "outputs": _side(file.dtypes[1], checks[1]),
        "suggestion": _suggestion(file, str(place), centering, others, periodic),
    }


@np.errstate(all="ignore")  # values that are not finite are told elsewhere
def looks_periodic(fields: np.ndarray) -> bool:
    """Whether fields ``[N, C, *grid]`` are smooth, large at the ends of axes, and go on there."""
    fields = fields.astype(float)
    scale = np.sqrt(fields.var(axis=(0, *range(2, fields.ndim))).mean())
    for axis in range(2, fields.ndim):
        ends = np.take(fields, [-1, 0], axis)
        inside, across = (np.sqrt((np.diff(x, axis=axis) ** 2).mean()) for x in (fields, ends))
        if not (across < 1.5 * inside < 0.75 * scale and ends.std() > 0.5 * scale):
            return False
    return True


def _side(dtype: str, values: ValueCheck) -> Report:
    def finite(value: np.floating) -> float | None:
        return float(value) if np.isfinite(value) else None

    channels = [
        {"name": name, "low": finite(low), "high": finite(high), "constant": bool(low == high)}
        for name, low, high in zip(values.names, values.low, values.high, strict=True)
    ]
    return {
        "dtype": dtype,
        "channels": channels,
        "num_nonfinite": sum(values.bad.values()),
        "nonfinite_samples": sorted(values.bad),
    }


# --- for the screen ---


def to_text(report: Report) -> str:
    """Returns a report for the screen."""
    guess = " (a guess from the sizes: odd - node, even - cell)" * report["centering_is_guess"]
    samples = f"{report['num_samples']:,}"
    if report["num_trajectories"] is not None:
        samples += f" one-step pairs of {report['num_trajectories']:,} trajectories"
    axes = [f"{item['name']} [{item['axes']}]: {item['why']}" for item in report["arrays"]]
    walls = (f"{axis}: {kind}" for axis, kind in report["boundaries"].items())
    step, scalars = report["time_step"], ", ".join(report["parameters"])
    rows = [
        ("reader", report["reader"]),
        ("samples", samples),
        ("grid", f"{'x'.join(map(str, report['grid']))}, {report['centering']}-centred{guess}"),
        *zip(["axes", *[""] * (len(axes) - 1)], axes, strict=True),
        ("boundary", ", ".join(walls)),
        ("boundary", GUESSED_WALLS * report["looks_periodic"]),
        ("time step", "" if step is None else f"{step:.6g}"),
        ("ignored", ", ".join(report["ignored"])),
        ("scalars", scalars and f"{scalars} {PARAMETERS}"),
        *(("note", note) for note in report["notes"]),
        *_side_rows("inputs", report["inputs"]),
        *_side_rows("outputs", report["outputs"]),
    ]
    lines = [report["path"], *(f"  {title:<9} {text}" for title, text in rows if text)]
    advice = "too few samples for training, validation and test"
    if report["suggestion"]:
        advice = f"# for the experiment file:\n{yaml_sections(report['suggestion'])}"
    return "\n".join([*map(printable, lines), "", advice])


def _side_rows(title: str, side: Report) -> Iterator[tuple[str, str]]:
    channels = side["channels"]
    yield title, f"{counted(len(channels), 'channel')}, stored as {side['dtype']}"
    for item in channels:
        some = item["low"] is not None
        span = f"{item['low']:.6g} to {item['high']:.6g}" if some else "no finite value"
        yield "", f"{item['name']}  {span}{'  CONSTANT' * item['constant']}"
    if side["num_nonfinite"]:
        where = name_samples(side["nonfinite_samples"])
        yield "", f"{side['num_nonfinite']} NaN or infinite values, in {where}"


def yaml_sections(sections: Mapping[str, Any]) -> str:
    """Returns sections as YAML, one flow mapping or list a line."""
    return "\n".join(f"{name}: {_flow(value)}" for name, value in sections.items())


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        keys = {key: key if key.isidentifier() else json.dumps(key) for key in value}
        return "{" + ", ".join(f"{keys[key]}: {_flow(value[key])}" for key in value) + "}"
    return json.dumps(value)


# --- the suggestion ---


def _suggestion(
    file: FieldFile,
    place: str,
    centering: Centering,
    others: Mapping[str, FieldFile],
    periodic: bool,
) -> Report:
    """Returns sections of an experiment file that runs; nothing if there are too few samples."""
    counts = _suggested_counts(file, others)
    if counts is None:
        return {}
    grid = Grid(file.shape, centering)
    levels = suggest_levels(grid)
    sections: Report = {
        "problem": {"kind": "file", "file": place, **_reader_settings(file)},
        "data": {"centering": centering, **counts},
        "levels": levels,
    }
    walls = {
        axis: "periodic" if kind.startswith("periodic") else "zeros"
        for axis, kind in file.layout.boundaries.items()
    }
    model: Report = {"fields": "auto"} if len(levels) > 1 else {}
    if grid.is_open and periodic:
        model["padding"] = "periodic"
    elif grid.is_open and set(walls) == set("xyz"[: grid.ndim]) and "periodic" in walls.values():
        model["padding"] = walls if "zeros" in walls.values() else "periodic"
    if model:
        sections["model"] = model
    # a few minutes, most epochs on coarse grids
    below, share = range(len(levels))[::-1], min(1.0, FIRST_RUN / (counts["train"] * grid.size))
    sections["schedule"] = {
        "epochs": [max(1, round(min(40, 4 * 3**k) * share)) for k in below],
        "learning_rate": [1e-3 * 2**k for k in below],
    }
    if counts["train"] < BATCH_SIZE:
        sections["schedule"]["batch_size"] = counts["train"]
    if counts["test"] < 3:
        sections["output"] = {"num_predictions": counts["test"]}
    if file.time is not None and file.group_size >= 2:
        sections["data"]["rollout_steps"] = min(10, file.group_size)
    return sections


def _suggested_counts(file: FieldFile, others: Mapping[str, FieldFile]) -> dict[str, int] | None:
    """Returns the number of samples of each split, None if one would have none."""
    held_out = max(1, min(128, file.num_samples // 10))
    if others:
        sizes = {split: other.num_samples for split, other in others.items()}
        counts = {split: min(held_out, sizes.get(split, 0)) for split in ("validation", "test")}
        return {"train": file.num_samples, **counts} if all(counts.values()) else None
    groups = split_groups(file, {"train": 1, "validation": held_out, "test": held_out})
    sizes = {split: len(groups[split]) * file.group_size for split in groups}
    counts = {split: min(held_out, sizes[split]) for split in ("validation", "test")}
    counts |= {split: sizes[split] for split in file.named_splits}
    try:
        pools = split_pools(file, {"train": 1, **counts})
    except UserError:
        return None
    return {**counts, "train": len(pools["train"])}


def _reader_settings(file: FieldFile) -> Report:
    """Returns the section ``problem`` with which the file is read as it was."""
    settings: Report = file.options.model_dump(exclude_defaults=True)
    settings |= {"reader": file.reader, "ndim": len(file.shape)}
    for key in ("input", "output"):
        if len(settings.get(key, ())) == 1:
            settings[key] = settings[key][0]
    parameters = settings.get("parameters") or _varying_parameters(file)
    return {**settings, "parameters": parameters} if parameters else settings


def _varying_parameters(file: FieldFile) -> list[str]:
    """Returns the names of the scalars that differ between trajectories or files."""
    values: dict[str, list[np.ndarray]] = {name: [] for name in file.parameters}
    for part in file.parts:
        for name in values.keys() & available_parameters(part.container, part.count).keys():
            values[name].append(part.container.read(name).ravel())
    return [
        name
        for name, arrays in values.items()
        if len(arrays) == len(file.parts) and np.ptp(np.concatenate(arrays).astype(float)) > 0
    ]


def suggest_levels(finest: Grid) -> list[int | list[int]]:
    """Returns the grids of a ladder up to ``finest``, coarsest first."""
    grids = [finest, *finest.halvings(smallest=COARSEST)][:MAX_LEVELS]
    return [g.shape[0] if len(set(g.shape)) == 1 else list(g.shape) for g in reversed(grids)]
