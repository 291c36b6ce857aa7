"""``report.html``: a run on one page that needs nothing else. Knows no torch."""

from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from multigrid.files import to_json, write_text
from multigrid.plots.convergence import epochs_so_far
from multigrid.plots.style import COLOURS
from multigrid.report.fields import colour_maps, frames
from multigrid.report.record import RunRecord
from multigrid.report.sections import QUANTITIES, body


def write_page(record: RunRecord, folder: Path | None = None) -> Path:
    """Writes the report of a run, or of what there is of an unfinished one.

    Args:
        record: The run.
        folder: Where to write it, by default the folder of the run.

    Returns:
        The file.

    Raises:
        UserError: If a result file is damaged, or the page cannot be written.
    """
    path = (folder or record.folder.path) / record.folder.report.name
    here = files("multigrid.report")
    parts = {
        "title": escape(record.config.name),
        "style": here.joinpath("page.css").read_text(encoding="utf-8"),
        "script": here.joinpath("page.js").read_text(encoding="utf-8"),
        "data": to_json(_data(record)).replace("<", "\\u003c"),
        "body": body(record),
    }
    page = here.joinpath("page.html").read_text(encoding="utf-8")
    for name, text in parts.items():
        page = page.replace(f"{{{{{name}}}}}", text, 1)
    write_text(path, page)
    return path


def _data(record: RunRecord) -> dict[str, Any]:
    """Returns what the script draws."""
    rows = [
        {
            "stage": row.stage,
            "level": row.level,
            "grid": row.grid,
            "epoch": row.epoch,
            "epochs": so_far,
            "seconds": row.seconds,
            "work_units": row.work_units,
            "own": row.val_rel_l2,
            "finest": row.val_finest_rel_l2,
            "rate": row.learning_rate,
        }
        for row, so_far in zip(record.rows, epochs_so_far(record.rows), strict=True)
    ]
    shown = frames(record.examples) if record.folder.examples.is_file() else []
    return {
        "rows": rows,
        "quantities": QUANTITIES,
        "colours": COLOURS,
        "frames": shown,
        "maps": colour_maps() if shown else {},
    }
