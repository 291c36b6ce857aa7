"""Reports what is in a data file and how to train from it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from multigrid.data.formats import Description, FieldFile, ReaderOptions, open_fields, split_folders
from multigrid.data.formats.values import FieldValues, ValueCheck, name_samples
from multigrid.data.splits import split_groups, split_pools
from multigrid.errors import UserError, printable
from multigrid.grid import Centering, Grid, guess_centering

COARSEST = 16
MAX_LEVELS = 4
BATCH_SIZE = 32
NUM_LOOKED_AT = 32
FIRST_RUN = 1.5e6
"""Samples times points of an epoch on the finest grid beyond which a first run has fewer epochs."""

Report = dict[str, Any]


def inspect_path(
    path: Path, reader: str = "auto", options: ReaderOptions | None = None, progress: bool = False
) -> Report:
    """Opens a file, a folder or a pattern of names, reads all of it and reports on it.

    Of a data set in folders ``train``, ``valid`` and ``test`` the training files are read.

    Args:
        path: The file, folder or pattern.
        reader: Name of a reader, or ``auto``.
        options: What the user says about the file.
        progress: Whether to show a progress bar.

    Returns:
        What ``multigrid inspect --json`` writes. The ``suggestion`` has sections of an experiment
        file, none if there are too few samples.

    Raises:
        UserError: If the file cannot be read.
    """
    folders = split_folders(path)
    others = {
        s: open_fields(paths, reader, options) for s, paths in folders.items() if s != "train"
    }
    file = open_fields(folders.get("train", path), reader, options)
    return inspect_file(file, progress, str(path), others)


def inspect_file(
    file: FieldFile,
    progress: bool = False,
    place: str | None = None,
    others: Mapping[str, FieldFile] | None = None,
) -> Report:
    """Reports on an open file, called ``place``; ``others`` are for validation and test."""
    described = file.describe()
    values = ValueCheck(file.path, described.input_names, described.output_names)
    indices = np.arange(described.num_samples)
    with tqdm(total=len(indices), unit="sample", disable=not progress) as bar:
        for block in file.blocks(indices):
            values.add(indices[block], *file.fetch(indices[block]))
            bar.update(block.stop - block.start)
    place, centering = place or str(file.path), described.centering
    guess = guess_centering(described.shape)
    some = np.linspace(0, len(indices) - 1, min(NUM_LOOKED_AT, len(indices))).astype(int)
    periodic = not described.boundaries and looks_periodic(file.fetch(some)[1])
    return {
        "path": place,
        "reader": file.reader,
        "num_samples": described.num_samples,
        "num_trajectories": described.num_groups if described.group_size > 1 else None,
        "grid": list(described.shape),
        "centering": centering or guess,
        "centering_is_guess": centering is None,
        "arrays": [
            {"name": name, "axes": " ".join(axes), "why": why}
            for name, axes, why in described.arrays
        ],
        "ignored": list(described.ignored),
        "parameters": list(described.parameters),
        "boundaries": dict(described.boundaries),
        "looks_periodic": periodic,
        "time_step": described.time_step,
        "notes": list(described.notes),
        "inputs": _side(described.input_dtype, values.inputs),
        "outputs": _side(described.output_dtype, values.outputs),
        "suggestion": _suggestion(file, place, centering or guess, others or {}, periodic),
    }


def looks_periodic(fields: np.ndarray) -> bool:
    """Whether fields ``[N, C, *grid]`` are smooth, large at the ends of axes, and go on there."""
    fields = np.moveaxis(fields, 1, -1).astype(float)
    spread = fields.std(axis=tuple(range(fields.ndim - 1)))
    for axis in range(1, fields.ndim - 1):
        ends = np.take(fields, [-1, 0], axis)
        inside, across = (np.sqrt((np.diff(x, axis=axis) ** 2).mean()) for x in (fields, ends))
        size = np.sqrt(((ends - ends.mean()) ** 2).mean())
        scale = np.sqrt((spread**2).mean())
        if not (across < 1.5 * inside < 0.75 * scale and size > 0.5 * scale):
            return False
    return True


def _side(dtype: str, values: FieldValues) -> Report:
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
    where = f"{report['centering']}-centred"
    if report["centering_is_guess"]:
        where += " (a guess from the sizes: odd - node, even - cell)"
    samples = f"{report['num_samples']:,}"
    if report["num_trajectories"] is not None:
        samples += f" one-step pairs of {report['num_trajectories']:,} trajectories"
    lines = [
        report["path"],
        f"  reader    {report['reader']}",
        f"  samples   {samples}",
        f"  grid      {'x'.join(map(str, report['grid']))}, {where}",
    ]
    for number, item in enumerate(report["arrays"]):
        title = "" if number else "axes"
        lines.append(f"  {title:<9} {item['name']} [{item['axes']}]: {item['why']}")
    if report["boundaries"]:
        walls = ", ".join(f"{axis}: {kind}" for axis, kind in report["boundaries"].items())
        lines.append(f"  boundary  {walls}")
    if report["looks_periodic"]:
        lines.append("  boundary  periodic (a guess: fields go on from one end to the other)")
    if report["time_step"] is not None:
        lines.append(f"  time step {report['time_step']:.6g}")
    if report["ignored"]:
        lines.append(f"  ignored   {', '.join(report['ignored'])}")
    if report["parameters"]:
        lines.append(
            f"            {', '.join(report['parameters'])} can be input channels "
            "(problem.parameters, --parameters); below are those that vary"
        )
    lines += [f"  note      {note}" for note in report["notes"]]
    lines += _side_lines("inputs", report["inputs"]) + _side_lines("outputs", report["outputs"])
    lines = [printable(line) for line in lines]
    if report["suggestion"]:
        lines += ["", "# for the experiment file:", yaml_sections(report["suggestion"])]
    else:
        lines += ["", "too few samples for training, validation and test"]
    return "\n".join(lines)


def _side_lines(title: str, side: Report) -> list[str]:
    channels = side["channels"]
    count = f"{len(channels)} channel{'s' if len(channels) > 1 else ''}"
    lines = [f"  {title:<9} {count}, stored as {side['dtype']}"]
    width = max(len(channel["name"]) for channel in channels)
    for channel in channels:
        span = "no finite value"
        if channel["low"] is not None:
            span = f"{channel['low']:.6g} to {channel['high']:.6g}"
        note = "  CONSTANT" if channel["constant"] else ""
        lines.append(f"    {channel['name']:<{width}}  {span}{note}")
    if side["num_nonfinite"]:
        where = name_samples(side["nonfinite_samples"])
        lines.append(f"    {side['num_nonfinite']} NaN or infinite values, in {where}")
    return lines


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
    described = file.describe()
    counts = _suggested_counts(file, others)
    if counts is None:
        return {}
    grid = Grid(described.shape, centering)
    sections: Report = {
        "problem": {"kind": "file", "file": place, **_reader_settings(file, described)},
        "data": {"centering": centering, **counts},
        "levels": suggest_levels(grid),
    }
    walls = {kind.partition(" ")[0] for kind in described.boundaries.values()}
    if len(sections["levels"]) > 1:
        sections["model"] = {"fields": "auto"}
    if (periodic or walls == {"periodic"}) and grid.is_open:
        sections["model"] = {**sections.get("model", {}), "padding": "periodic"}
    sections["schedule"] = _first_schedule(len(sections["levels"]), counts["train"] * grid.size)
    if counts["train"] < BATCH_SIZE:
        sections["schedule"]["batch_size"] = counts["train"]
    if counts["test"] < 3:
        sections["output"] = {"num_predictions": counts["test"]}
    if described.time is not None and described.group_size >= 2:
        sections["data"]["rollout_steps"] = min(10, described.group_size)
    return sections


def _first_schedule(num_levels: int, size: int) -> dict[str, Any]:
    """Returns a schedule of a few minutes, most epochs on coarse grids.

    Args:
        num_levels: Number of levels.
        size: Samples times points of an epoch on the finest.
    """
    below, share = range(num_levels - 1, -1, -1), min(1.0, FIRST_RUN / size)
    epochs = [max(1, round(min(40, 4 * 3**k) * share)) for k in below]
    return {"epochs": epochs, "learning_rate": [1e-3 * 2**k for k in below]}


def _suggested_counts(file: FieldFile, others: Mapping[str, FieldFile]) -> dict[str, int] | None:
    """Returns the number of samples of each split, None if one would have none."""
    described = file.describe()
    held_out = max(1, min(128, described.num_samples // 10))
    if others:
        sizes = {split: other.describe().num_samples for split, other in others.items()}
        counts = {split: min(held_out, sizes.get(split, 0)) for split in ("validation", "test")}
        return {"train": described.num_samples, **counts} if all(counts.values()) else None
    groups = split_groups(described, {"train": 1, "validation": held_out, "test": held_out})
    size = described.group_size
    counts = {split: min(held_out, len(groups[split]) * size) for split in ("validation", "test")}
    counts |= {split: len(groups[split]) * size for split in described.named_splits}
    try:
        pools = split_pools(file, {"train": 1, **counts})
    except UserError:
        return None
    return {"train": len(pools["train"]), **{s: counts[s] for s in ("validation", "test")}}


def _reader_settings(file: FieldFile, described: Description) -> Report:
    """Returns the section ``problem`` with which the file is read as it was."""
    options = file.options
    settings: Report = {"reader": file.reader, "ndim": len(described.shape)}
    for key in ("input", "output"):
        names = list(getattr(options, key))
        settings[key] = names[0] if len(names) == 1 else names
    for key in ("fields", "input_channels", "output_channels"):
        settings[key] = list(getattr(options, key) or ())
    axes = {name: " ".join(letters) for name, letters in options.axes.items()}
    settings["axes"] = axes[""] if list(axes) == [""] else axes
    settings["parameters"] = list(options.parameters) or file.varying_parameters()
    settings["noncartesian"] = options.noncartesian
    if options.reduced_resolution > 1:
        settings["reduced_resolution"] = options.reduced_resolution
    return {key: value for key, value in settings.items() if value}


def suggest_levels(finest: Grid) -> list[int | list[int]]:
    """Returns the grids of a ladder up to ``finest``, coarsest first."""
    grids = [finest]
    while len(grids) < MAX_LEVELS and grids[0].can_coarsen:
        coarser = grids[0].coarsen()
        if min(coarser.shape) < COARSEST:
            break
        grids.insert(0, coarser)
    return [g.shape[0] if len(set(g.shape)) == 1 else list(g.shape) for g in grids]
