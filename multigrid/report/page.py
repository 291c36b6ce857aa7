"""``report.html``: a run on one self-contained page. Imports neither torch nor matplotlib."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from multigrid.config import dump_config
from multigrid.files import to_json, write_text
from multigrid.records.examples import COLOURS, Examples, colour_range
from multigrid.records.history import LevelParts, Row, epochs_so_far
from multigrid.report.record import RunRecord
from multigrid.tables import si

# The quantities on the chart's horizontal axis.
QUANTITIES = {
    "epochs": "epochs",
    "seconds": "training time [s]",
    "work_units": "work units (1 = an epoch on the finest grid)",
}
# Keys of the summary on where a run took place, with their labels.
ENVIRONMENT = {
    "network": "network",
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
MAX_POINTS = 192
STEPS = 65535


def write_page(record: RunRecord, folder: Path | None = None) -> Path:
    """Writes the report of a run, finished or not.

    It includes the pictures of the ladder and of the spectra if they have been drawn.

    Args:
        record: The run.
        folder: Where to write it, by default the folder of the run.

    Returns:
        The file.

    Raises:
        UserError: If a result file is damaged, or the page cannot be written.
    """
    folder = folder or record.folder.path
    path = folder / record.folder.report.name
    loader = jinja2.PackageLoader("multigrid.report", "")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    environment.filters["kind"] = _kind
    template = environment.get_template("page.html")
    config, data = record.config, _data(record)
    page = template.render(
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


def _kind(cell: Any) -> str:
    """Returns the class of a table's cell: a number, or a status."""
    text = str(cell)
    number = text[:1] in set("-0123456789") and "x" not in text
    name = "number" if number else text if text in STATUSES else ""
    return Markup(' class="{}"').format(name) if name else ""


def _figures(record: RunRecord, folder: Path) -> dict[str, str]:
    """Returns the drawn figures as ``data:`` addresses."""
    uris = {}
    for name in ("ladder", "spectra"):
        for path in (folder / f"{name}.png", record.folder.path / f"{name}.png"):
            if name not in uris and path.is_file():
                content = b64encode(path.read_bytes()).decode("ascii")
                uris[name] = f"data:image/png;base64,{content}"
    return uris


def _results(record: RunRecord) -> dict[str, Any]:
    """Returns what is shown of a finished run."""
    summary = record.summary
    seconds, flops = summary["seconds"], summary["flops"]
    shown = dict(summary)
    if summary.get("peak_memory_bytes") is not None:
        shown["peak_memory_bytes"] = f"{si(summary['peak_memory_bytes'])}B"
    return {
        "cards": [
            (f"{summary['test']['rel_l2'] or np.nan:.3%}", "test error (mean relative L2)"),
            (f"{seconds:.1f} s", "training time"),
            (f"{summary['work_units']:.2f}", "work units"),
            (f"{si(flops)}FLOPs", "floating-point operations"),
            (f"{summary['levels'][-1]['parameters']:,}", "parameters"),
        ],
        "remarks": record.remarks,
        "stages": _stages(summary["levels"]),
        "tests": _tests(summary),
        "rollout": _rollout(summary.get("rollout_metrics")),
        "environment": [
            [ENVIRONMENT[key], _text(shown[key])] for key in ENVIRONMENT if key in shown
        ],
    }


def _stages(stages: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    header = ["Level", "Grid", "Epochs", "Seconds", "Work units", "Transferred", "Frozen", "New",
              "Error on entering", "Best error"]  # fmt: skip
    rows = [
        [
            str(stage["level"]),
            "x".join(map(str, stage["grid"])),
            str(stage["epochs"]),
            f"{stage['seconds']:.1f}",
            f"{stage['work_units']:.2f}",
            *(f"{stage.get(key, 0):,}" for key in ("transferred", "frozen", "new")),
            *(_text(stage[key]) for key in ("rel_l2_at_start", "rel_l2")),
        ]
        for stage in stages
    ]
    return header, rows


def _tests(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns a row for each metric and a column for each field and each further test set."""
    tests = {"test": summary["test"]}
    by_field = summary.get("test_by_field", {})
    fields = list(by_field.get("rel_l2", ()))
    for field in fields if len(fields) > 1 else ():
        tests[f"test: {field}"] = {metric: row[field] for metric, row in by_field.items()}
    tests |= summary["extra_tests"]
    names = dict.fromkeys(name for errors in tests.values() for name in errors)
    rows = [[name, *(_text(errors.get(name)) for errors in tests.values())] for name in names]
    return ["Metric", *tests], rows


def _rollout(metrics: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns the table of a roll-out: a row for each metric, a column for each number of steps."""
    if not metrics:
        return None
    header = ["Metric", *(f"{step} step{'s' * (step > 1)}" for step in metrics["steps"])]
    rows = []
    for name, spreads in metrics["errors"].items():
        rows.append([name, *(_spread(spread) for spread in spreads)])
    for label, key in (
        ("steps to correlation 0.8", "correlation_steps"),
        ("part of the trajectories that blow up", "blow_up"),
    ):
        value = metrics[key]
        text = _spread(value) if isinstance(value, Mapping) else _text(value)
        rows.append([label, text, *[""] * (len(header) - 2)])
    return {"trajectories": metrics["trajectories"], "table": (header, rows)}


def _spread(value: Mapping[str, Any]) -> str:
    return f"{_text(value['mean'])} ({_text(value['low'])} to {_text(value['high'])})"


def _transfer(level: LevelParts) -> tuple[str, list[list[str]]]:
    statuses = sorted({t["status"] for t in level.tensors}, reverse=True)
    counts = ", ".join(f"{level.count(s):,} parameters {s.lower()}" for s in statuses)
    rows = [
        [
            t["key"],
            t["status"],
            *("x".join(map(str, t[key] or ())) for key in ("shape", "source_shape")),
        ]
        for t in level.tensors
    ]
    return f"level {level.level}, {level.grid}: {counts}", rows


def _text(value: Any) -> str:
    if value is None:
        return "not finite"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _data(record: RunRecord) -> dict[str, Any]:
    """Returns what the page's script draws."""

    def entry(row: Row, epochs: int) -> dict[str, Any]:
        names = ("stage", "level", "grid", "epoch", "seconds", "work_units")
        values = {name: getattr(row, name) for name in names}
        errors = {"own": row.val_rel_l2, "finest": row.val_finest_rel_l2}
        return {**values, **errors, "epochs": epochs, "rate": row.learning_rate}

    return {
        "rows": [
            entry(*pair) for pair in zip(record.rows, epochs_so_far(record.rows), strict=True)
        ],
        "quantities": QUANTITIES,
        "colours": COLOURS,
        "frames": [] if record.examples is None else frames(record.examples),
    }


def frames(examples: Examples) -> list[dict[str, Any]]:
    """Returns what can be flipped through: samples, fields and slices, then roll-outs."""
    shown = []
    for sample, relative in enumerate(examples.rel_l2):
        for channel, name in enumerate(examples.output_names):
            field = min(channel, len(examples.input_names) - 1)
            for cut in examples.cuts:
                where = f", {cut.label}" if cut.label else ""
                fields = cut.truth[sample, channel], cut.prediction[sample, channel]
                error = f"error (relative L2 {relative[channel]:.2%})"
                kind, given_kind = (
                    colour_range(a)[0] for a in (cut.truth[:, channel], cut.inputs[:, field])
                )
                given = cut.inputs[sample, field]
                scale = colour_range(given, given_kind)
                first = _panel(f"input {examples.input_names[field]}", given, scale)
                panels = [first, *_compared(*fields, name, error, kind)]
                title = f"{examples.label(sample)}, {name}{where}"
                shown.append({"title": title, "panels": panels})
    if (rollout := examples.rollout) is not None:
        for channel, name in enumerate(examples.output_names):
            for index, step in enumerate(rollout.steps):
                fields = rollout.truth[index, channel], rollout.prediction[index, channel]
                title = f"roll-out, {name}, step {step}"
                shown.append({"title": title, "panels": _compared(*fields, name, "error")})
    return shown


def _compared(
    truth: np.ndarray, prediction: np.ndarray, name: str, error_name: str, kind: str = ""
) -> list[dict[str, Any]]:
    scale, error = colour_range(truth, kind), prediction - truth
    return [
        _panel(f"truth {name}", truth, scale),
        _panel(f"prediction {name}", prediction, scale),
        _panel(error_name, error, colour_range(error, "error")),
    ]


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
        "name": name,
        "map": kind,
        "width": values.shape[0],
        "height": values.shape[1],
        "step": step,
        "low": low,
        "high": high,
        "limits": limits,
        "data": b64encode(np.nan_to_num(scaled).round().astype("<u2").tobytes()).decode("ascii"),
    }
