"""``report.html``: a run on one self-contained page. Imports neither torch nor matplotlib."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from multigrid.config import dump_config
from multigrid.errors import printable
from multigrid.files import to_json, write_text
from multigrid.records.examples import COLOURS, Examples, Panel, colour_range, compared
from multigrid.records.history import COSTS, LevelParts, epochs_so_far
from multigrid.report.record import RunRecord, errors_by_test, number, rollout_table, stage_table
from multigrid.tables import si

QUANTITIES = ("epochs", "seconds", "work_units")  # on the chart's horizontal axis
# Keys of the summary on where a run took place, with their labels.
ENVIRONMENT = {
    "network": "network",
    "cycle": "cycle",
    "fields": "fields of the levels",
    "machine": "machine",
    "device": "device",
    "precision": "precision",
    "threads": "threads",
    "torch": "torch",
    "peak_memory_bytes": "memory at most",
    "data_fingerprint": "fingerprint of the samples",
    "data_preparation_seconds": "preparing the samples [s]",
    "evaluation_seconds": "validation [s]",
}
STATUSES = ("TRANSFERRED", "NEW", "MISMATCHED", "UNUSED", "FROZEN")
MAX_POINTS = 192  # of a field along an axis
STEPS = 65535  # of its values, in 16 bits


def write_page(record: RunRecord, folder: Path) -> Path:
    """Writes the report of a run, with the pictures that have been drawn, and returns its path."""
    path = folder / record.folder.report.name
    loader = jinja2.PackageLoader("multigrid.report", "")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, finalize=_printable
    )
    environment.filters["kind"] = _kind
    config, data = record.config, _data(record)
    page = environment.get_template("page.html").render(
        name=config.name,
        problem=config.kind,
        levels=", ".join(str(grid) for grid in config.hierarchy().levels),
        finished=record.is_finished,
        data=data,
        json=Markup(to_json(data).replace("<", "\\u003c")),  # noqa: S704 (no tag can end it)
        grids=sorted({row.level: row.grid for row in record.rows}.items()),
        figures=_figures(record, folder),
        transfers=[_transfer(level) for level in record.levels],
        configuration=dump_config(config),
        **(_results(record) if record.is_finished else {}),
    )
    write_text(path, page)
    return path


def _printable(value: Any) -> Any:
    """Escapes control characters of text, which names of fields may have; markup has been."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value, keep="\n\t") if is_text else value


def _kind(cell: Any) -> str:
    """Returns the class of a table's cell: a number, or a status."""
    text = str(cell)
    is_number = text[:1] in set("-0123456789") and "x" not in text
    return "number" if is_number else text if text in STATUSES else ""


def _figures(record: RunRecord, folder: Path) -> dict[str, str]:
    """Returns the drawn figures as ``data:`` addresses."""
    uris = {}
    for name in ("ladder", "spectra"):
        for path in (record.folder.path / f"{name}.png", folder / f"{name}.png"):
            if path.is_file():  # the one in the report's folder counts
                uris[name] = f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"
    return uris


def _results(record: RunRecord) -> dict[str, Any]:
    """Returns what is shown of a finished run."""
    summary, rollout = record.summary, record.summary.get("rollout_metrics")
    tests = errors_by_test(summary)
    columns = [
        {**errors, **{f"rel_l2, {name}": error for name, error in guesses.items()}}
        for errors, guesses in tests.values()
    ]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(number(column.get(name, "")) for column in columns)] for name in names]
    direct = None
    if record.direct is not None:
        from multigrid.report.comparison import compare

        direct = compare([record.folder.direct, record.folder.path])
    if (memory := summary.get("peak_memory_bytes")) is not None:
        summary = summary | {"peak_memory_bytes": f"{si(memory)}B"}
    return {
        "cards": [
            (f"{summary['test']['rel_l2'] or np.nan:.3%}", "test error (mean relative L2)"),
            (f"{summary['seconds']:.1f} s", "training time"),
            (f"{summary['work_units']:.2f}", "work units"),
            (f"{si(summary['flops'])}FLOPs", "floating-point operations"),
            (f"{summary['levels'][-1]['parameters']:,}", "parameters"),
        ],
        "remarks": record.remarks,
        "stages": stage_table(summary),
        "tests": (["Metric", *tests], rows),
        "direct": direct,
        "rollout": rollout and (rollout["trajectories"], rollout_table(rollout)),
        "environment": [
            [label, number(summary[key])] for key, label in ENVIRONMENT.items() if key in summary
        ],
    }


def _transfer(level: LevelParts) -> tuple[str, list[list[str]]]:
    statuses = sorted({t["status"] for t in level.tensors}, reverse=True)
    counts = ", ".join(f"{level.count(s):,} parameters {s.lower()}" for s in statuses)
    rows = []
    for t in level.tensors:
        shapes = ("x".join(map(str, t[key] or ())) for key in ("shape", "source_shape"))
        rows.append([t["key"], t["status"], *shapes])
    return f"level {level.level}, {level.grid}: {counts}", rows


def _data(record: RunRecord) -> dict[str, Any]:
    """Returns what the page's script draws."""
    counts = epochs_so_far(record.rows)
    rows = [asdict(row) | {"epochs": n} for row, n in zip(record.rows, counts, strict=True)]
    return {
        "rows": rows,
        "quantities": {name: COSTS[name] for name in QUANTITIES},
        "colours": COLOURS,
        "frames": [] if record.examples is None else frames(record.examples),
    }


def frames(examples: Examples) -> list[dict[str, Any]]:
    """Returns what can be flipped through: samples, fields and slices, then roll-outs."""
    shown = []
    for sample, channel, cut in examples.rows():
        title = f"{examples.title(sample, cut)}, {examples.output_names[channel]}"
        shown.append(_frame(title, examples.panels(sample, channel, cut)))
    if (rollout := examples.rollout) is not None:
        for channel, name in enumerate(examples.output_names):
            states = rollout.truth[:, channel], rollout.prediction[:, channel]
            for step, truth, prediction in zip(rollout.steps, *states, strict=True):
                panels = compared(name, truth, prediction, colour_range(truth))
                shown.append(_frame(f"roll-out, {name}, step {step}", panels))
    return shown


def _frame(title: str, panels: Sequence[Panel]) -> dict[str, Any]:
    return {"title": printable(title), "panels": [_panel(*panel) for panel in panels]}


def _panel(name: str, field: np.ndarray, scale: tuple[str, float, float]) -> dict[str, Any]:
    """Returns a field in 16 bits a value; every n-th point only where there are very many."""
    kind, *limits = scale
    if field.ndim == 1:  # a strip
        field = np.repeat(field[:, None], max(1, len(field) // 8), axis=1)
    step = -(-max(field.shape) // MAX_POINTS)
    values = field[::step, ::step].astype(np.float64)
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low or 1.0) * STEPS
    return {
        "name": printable(name),
        "map": kind,
        "width": values.shape[0],
        "height": values.shape[1],
        "step": step,
        "low": low,
        "high": high,
        "limits": limits,
        "data": b64encode(np.nan_to_num(scaled).round().astype("<u2").tobytes()).decode(),
    }
