"""The sections of the page of a run, as HTML. Knows no torch."""

from collections.abc import Sequence
from html import escape
from typing import Any

from multigrid.config import dump_config
from multigrid.plots.ladder import LevelParts
from multigrid.plots.style import COLOURS, figure_uri
from multigrid.report.figures import draw_ladder, draw_spectra
from multigrid.report.record import RunRecord
from multigrid.tables import si

# What the chart can be drawn against.
QUANTITIES = {
    "epochs": "epochs",
    "seconds": "training time [s]",
    "work_units": "work units (1 = an epoch on the finest grid)",
}
# Keys of the summary that say where a run took place, and what to call them.
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


def body(record: RunRecord) -> str:
    """Returns what the page shows, without the script's drawings."""
    sections = [
        _head(record),
        _convergence(record),
        _predictions(record),
        _figure("Ladder", "ladder", record),
        _figure("Spectrum of the error", "spectra", record),
        _transfer(record.levels),
        f"<h2>Configuration</h2><pre>{escape(dump_config(record.config))}</pre>",
        _environment(record),
    ]
    return "\n".join(sections)


def _head(record: RunRecord) -> str:
    config = record.config
    levels = ", ".join(str(grid) for grid in config.hierarchy().levels)
    title = f"<h1>{escape(config.name)}</h1>"
    lead = f'<p class="lead">{escape(config.kind)} on {levels}</p>'
    if not record.is_finished:
        return f"{title}{lead}<p>This run is unfinished; here is what there is so far.</p>"
    summary = record.summary
    cards = [
        (f"{summary['test']['rel_l2']:.3%}", "test error (mean relative L2)"),
        (f"{summary['seconds']:.1f} s", "training time"),
        (f"{summary['work_units']:.2f}", "work units"),
        (f"{si(summary['flops'])}FLOPs", "floating-point operations"),
        (f"{summary['levels'][-1]['parameters']:,}", "parameters"),
    ]
    boxes = "".join(
        f'<div class="card"><b>{value}</b><span>{label}</span></div>' for value, label in cards
    )
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in record.remarks)
    course = f'<ul id="remarks">{remarks}</ul>' if remarks else ""
    tables = f"{_levels(summary)}{_tests(summary)}"
    return f'{title}{lead}<div class="cards">{boxes}</div>{course}{tables}'


def _levels(summary: dict[str, Any]) -> str:
    rows = [
        [
            stage["level"],
            "x".join(map(str, stage["grid"])),
            stage["epochs"],
            f"{stage['seconds']:.1f}",
            f"{stage['work_units']:.2f}",
            f"{stage['transferred']:,}",
            f"{stage.get('frozen', 0):,}",
            f"{stage['new']:,}",
            f"{stage['rel_l2_at_start']:.4g}",
            f"{stage['rel_l2']:.4g}",
        ]
        for stage in summary["levels"]
    ]
    header = ["Level", "Grid", "Epochs", "Seconds", "Work units", "Transferred", "Frozen", "New"]
    return _table([*header, "Error on entering", "Best error"], rows)


def _tests(summary: dict[str, Any]) -> str:
    tests = {"test": summary["test"], **summary["extra_tests"]}
    names = list(summary["test"])
    rows = [[name, *(f"{errors[key]:.4g}" for key in names)] for name, errors in tests.items()]
    return _table(["Samples", *names], rows)


def _convergence(record: RunRecord) -> str:
    grids = {row.level: row.grid for row in record.rows}
    quantities = "".join(
        f'<label><input type="radio" name="quantity" value="{key}"'
        f"{' checked' if key == 'epochs' else ''}>{label.split(' (')[0]}</label>"
        for key, label in QUANTITIES.items()
    )
    levels = "".join(
        f'<label><input type="checkbox" name="level" value="{level}" checked>'
        f'<span class="swatch" style="background:{COLOURS[level % len(COLOURS)]}"></span>'
        f"level {level}: {escape(grid)}</label>"
        for level, grid in sorted(grids.items())
    )
    finest = (
        '<label><input type="checkbox" id="finest" checked>'
        "prolonged to the finest grid (dotted)</label>"
    )
    return (
        f'<h2>Convergence</h2><div class="controls"><fieldset>{quantities}</fieldset></div>'
        f'<div class="controls">{levels}{finest}</div>'
        '<div id="chart"><div id="tip" hidden></div></div>'
    )


def _predictions(record: RunRecord) -> str:
    if not record.folder.examples.is_file():
        return ""
    return (
        '<h2>Predictions</h2><div class="controls"><button id="previous">previous</button>'
        '<select id="chooser" aria-label="sample"></select><button id="next">next</button></div>'
        '<div class="panels" id="panels"></div><div id="reading"></div>'
    )


def _figure(title: str, name: str, record: RunRecord) -> str:
    figure = {"ladder": draw_ladder, "spectra": draw_spectra}[name](record)
    if figure is None:
        return ""
    uri = figure_uri(figure)
    return f'<h2>{title}</h2><img class="figure" id="{name}" alt="{title}" src="{uri}">'


def _transfer(levels: Sequence[LevelParts]) -> str:
    parts = ["<h2>Transfer</h2>"]
    for level in levels:
        rows = [
            [
                t["key"],
                t["status"],
                "x".join(map(str, t["shape"])),
                "" if t["source_shape"] is None else "x".join(map(str, t["source_shape"])),
            ]
            for t in level.tensors
        ]
        statuses = sorted({t["status"] for t in level.tensors}, reverse=True)
        counts = ", ".join(f"{level.count(s):,} parameters {s.lower()}" for s in statuses)
        parts.append(
            f"<details><summary>level {level.level}, {escape(level.grid)}: {counts}</summary>"
            f"{_table(['Tensor', 'Status', 'Shape', 'In the checkpoint'], rows)}</details>"
        )
    return "".join(parts)


def _environment(record: RunRecord) -> str:
    if not record.is_finished:
        return ""
    summary = dict(record.summary)
    if summary.get("peak_memory_bytes") is not None:
        summary["peak_memory_bytes"] = f"{si(summary['peak_memory_bytes'])}B"
    rows = [[label, _plain(summary[key])] for key, label in ENVIRONMENT.items() if key in summary]
    return f"<h2>Environment</h2>{_table(['', ''], rows)}"


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    columns = range(len(header))
    flush = [bool(rows) and all(_is_number(str(row[i])) for row in rows) for i in columns]

    def line(tag: str, cells: Sequence[Any]) -> str:
        row = []
        for cell, right in zip(cells, flush, strict=True):
            text = str(cell)
            name = "number" if right else text if text in STATUSES else ""
            kind = f' class="{name}"' if name else ""
            row.append(f"<{tag}{kind}>{escape(text)}</{tag}>")
        return f"<tr>{''.join(row)}</tr>"

    body = "".join(line("td", row) for row in rows)
    head = line("th", header) if any(header) else ""
    return f'<div class="scroll"><table>{head}{body}</table></div>'


def _is_number(cell: str) -> bool:
    return bool(cell) and cell[0] in "-0123456789" and "x" not in cell
