"""Reports what is in a data file and how to train from it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from multigrid.data.formats import FieldFile, ReaderOptions, open_fields, split_folders
from multigrid.data.formats.values import FieldValues, ValueCheck, name_samples
from multigrid.data.splits import split_groups, split_pools
from multigrid.errors import UserError
from multigrid.files import to_json
from multigrid.grid import Centering, Grid, guess_centering

COARSEST = 16
MAX_LEVELS = 4
BATCH_SIZE = 32


@dataclass(frozen=True)
class ChannelReport:
    """Range of one channel; None where it has no finite value."""

    name: str
    low: float | None
    high: float | None
    constant: bool


@dataclass(frozen=True)
class SideReport:
    """What the inputs or the outputs are like.

    Attributes:
        dtype: Stored number type.
        channels: Their ranges.
        num_nonfinite: How many values are NaN or infinite as float32.
        nonfinite_samples: The samples that have such values.
    """

    dtype: str
    channels: list[ChannelReport]
    num_nonfinite: int
    nonfinite_samples: list[int]


@dataclass(frozen=True)
class FileReport:
    """What is in a file.

    Attributes:
        path: The file.
        reader: Name of the reader that fits.
        num_samples: Number of samples.
        num_trajectories: Number of trajectories, None where the samples are independent.
        grid: Number of points along each axis.
        centering: Where the points lie.
        centering_is_guess: Whether that is only concluded from odd or even sizes.
        arrays: Name, axes and their source of each array that is read.
        ignored: Names of the arrays that are not read.
        parameters: Names of scalars that could become input channels.
        boundaries: What holds on the boundary across each axis, if the file says so.
        time_step: Time between two states, if the file says so.
        notes: Further remarks.
        inputs: What the inputs are like.
        outputs: What the outputs are like.
        suggestion: Sections of an experiment file; empty if there are too few samples.
    """

    path: str
    reader: str
    num_samples: int
    num_trajectories: int | None
    grid: list[int]
    centering: Centering
    centering_is_guess: bool
    arrays: list[dict[str, str]]
    ignored: list[str]
    parameters: list[str]
    boundaries: dict[str, str]
    time_step: float | None
    notes: list[str]
    inputs: SideReport
    outputs: SideReport
    suggestion: dict[str, Any]

    def to_json(self) -> str:
        """Returns the report as JSON."""
        return to_json(asdict(self), indent=2)

    def to_text(self) -> str:
        """Returns the report for the screen."""
        grid = "x".join(map(str, self.grid))
        where = f"{self.centering}-centred"
        if self.centering_is_guess:
            where += " (a guess from the sizes: odd - node, even - cell)"
        samples = f"{self.num_samples:,}"
        if self.num_trajectories is not None:
            samples += f" one-step pairs of {self.num_trajectories:,} trajectories"
        lines = [
            f"{self.path}",
            f"  reader    {self.reader}",
            f"  samples   {samples}",
            f"  grid      {grid}, {where}",
            *self._axes_lines(),
            *_side_lines("inputs", self.inputs),
            *_side_lines("outputs", self.outputs),
        ]
        if self.suggestion:
            lines += ["", "# for the experiment file:", yaml_sections(self.suggestion)]
        else:
            lines += ["", "too few samples for training, validation and test"]
        return "\n".join(lines)

    def _axes_lines(self) -> list[str]:
        """Returns the axes and their source, what is ignored, and what else the file says."""
        lines = [
            f"  {'axes' if number == 0 else '':<9} {item['name']} [{item['axes']}]: {item['why']}"
            for number, item in enumerate(self.arrays)
        ]
        if self.boundaries:
            walls = ", ".join(f"{axis}: {kind}" for axis, kind in self.boundaries.items())
            lines.append(f"  boundary  {walls}")
        if self.time_step is not None:
            lines.append(f"  time step {self.time_step:.6g}")
        if self.ignored:
            lines.append(f"  ignored   {', '.join(self.ignored)}")
        if self.parameters:
            lines.append(
                f"            {', '.join(self.parameters)} can be input channels "
                "(problem.parameters, --parameters)"
            )
        return lines + [f"  note      {note}" for note in self.notes]


def inspect_path(
    path: Path, reader: str = "auto", options: ReaderOptions | None = None, progress: bool = False
) -> FileReport:
    """Opens a file, a folder or a pattern of names, reads all of it and reports on it.

    Of a data set in folders ``train``, ``valid`` and ``test`` the training files are read.

    Args:
        path: The file, folder or pattern.
        reader: Name of a reader, or ``auto``.
        options: What the user says about the file.
        progress: Whether to show a progress bar.

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
) -> FileReport:
    """Reads a whole file, block by block, and reports on it.

    Args:
        file: The file.
        progress: Whether to show a progress bar.
        place: What the user calls the file, or the files.
        others: The files for validation and test, if these are others.

    Raises:
        UserError: If the file is damaged.
    """
    described = file.describe()
    check = ValueCheck(file.path, described.input_names, described.output_names)
    indices = np.arange(described.num_samples)
    with tqdm(total=len(indices), unit="sample", disable=not progress) as bar:
        for part in file.blocks(indices):
            check.add(indices[part], *file.fetch(indices[part]))
            bar.update(part.stop - part.start)
    centering = described.centering or guess_centering(described.shape)
    return FileReport(
        place or str(file.path),
        file.reader,
        described.num_samples,
        described.num_groups if described.group_size > 1 else None,
        list(described.shape),
        centering,
        described.centering is None,
        [
            {"name": name, "axes": " ".join(axes), "why": why}
            for name, axes, why in described.arrays
        ],
        list(described.ignored),
        list(described.parameters),
        dict(described.boundaries),
        described.time_step,
        list(described.notes),
        _side(described.input_dtype, check.inputs),
        _side(described.output_dtype, check.outputs),
        suggest(file, centering, place, others),
    )


def suggest(
    file: FieldFile,
    centering: Centering,
    place: str | None = None,
    others: Mapping[str, FieldFile] | None = None,
) -> dict[str, Any]:
    """Returns sections of an experiment file, or nothing if there are too few samples.

    What it suggests runs: each split gets at most what the file has for it.
    """
    described = file.describe()
    counts = _suggested_counts(file, others or {})
    if counts is None:
        return {}
    grid = Grid(described.shape, centering)
    sections: dict[str, Any] = {
        "problem": {"kind": "file", "file": place or str(file.path), **_reader_settings(file)},
        "data": {"centering": centering, **counts},
        "levels": suggest_levels(grid),
    }
    walls = {kind.partition(" ")[0] for kind in described.boundaries.values()}
    if walls == {"periodic"} and grid.is_open:
        sections["model"] = {"padding": "periodic"}
    if counts["train"] < BATCH_SIZE:
        sections["schedule"] = {"batch_size": counts["train"]}
    if counts["test"] < 3:
        sections["output"] = {"num_predictions": counts["test"]}
    if described.time is not None and described.group_size >= 2:
        sections["data"]["rollout_steps"] = min(10, described.group_size)
    return sections


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
    for split in described.named_splits:
        counts[split] = len(groups[split]) * size
    try:
        pools = split_pools(file, {"train": 1, **counts})
    except UserError:
        return None
    return {"train": len(pools["train"]), **{s: counts[s] for s in ("validation", "test")}}


def _reader_settings(file: FieldFile) -> dict[str, Any]:
    """Returns the section ``problem`` with which the file is read as it was."""
    options, described = file.options, file.describe()
    settings: dict[str, Any] = {"reader": file.reader, "ndim": len(described.shape)}
    for key in ("input", "output", "fields", "input_channels", "output_channels"):
        value = getattr(options, key)
        if value:
            listed = key not in ("input", "output") or len(value) > 1
            settings[key] = list(value) if listed else value[0]
    if options.axes:
        settings["axes"] = {k: " ".join(v) for k, v in options.axes.items()}
        if list(options.axes) == [""]:
            settings["axes"] = settings["axes"][""]
    parameters = options.parameters or file.varying_parameters()
    if parameters:
        settings["parameters"] = list(parameters)
    if options.noncartesian:
        settings["noncartesian"] = True
    if options.reduced_resolution > 1:
        settings["reduced_resolution"] = options.reduced_resolution
    return settings


def suggest_levels(finest: Grid) -> list[int | list[int]]:
    """Returns the grids of a ladder up to ``finest``, coarsest first."""
    grids = [finest]
    while len(grids) < MAX_LEVELS and grids[0].can_coarsen:
        coarser = grids[0].coarsen()
        if min(coarser.shape) < COARSEST:
            break
        grids.insert(0, coarser)
    return [g.shape[0] if len(set(g.shape)) == 1 else list(g.shape) for g in grids]


def yaml_sections(sections: dict[str, Any]) -> str:
    """Returns sections as YAML, one flow mapping or list a line."""
    return "\n".join(f"{name}: {_flow(value)}" for name, value in sections.items())


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def _side(dtype: str, values: FieldValues) -> SideReport:
    channels = [
        ChannelReport(name, _finite(low), _finite(high), name in values.constant)
        for name, low, high in zip(values.names, values.low, values.high, strict=True)
    ]
    return SideReport(dtype, channels, sum(values.bad.values()), sorted(values.bad))


def _finite(value: np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None


def _side_lines(title: str, side: SideReport) -> Sequence[str]:
    count = len(side.channels)
    lines = [f"  {title:<9} {count} channel{'s' if count > 1 else ''}, stored as {side.dtype}"]
    width = max(len(channel.name) for channel in side.channels)
    for channel in side.channels:
        span = "no finite value"
        if channel.low is not None:
            span = f"{channel.low:.6g} to {channel.high:.6g}"
        note = "  CONSTANT" if channel.constant else ""
        lines.append(f"    {channel.name:<{width}}  {span}{note}")
    if side.num_nonfinite:
        where = name_samples(side.nonfinite_samples)
        lines.append(f"    {side.num_nonfinite} NaN or infinite values, in {where}")
    return lines
