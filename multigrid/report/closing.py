"""The end of a run: result files for pictures, the pictures, the page and the summary table."""

import logging
from typing import Any

from multigrid.files import write_json
from multigrid.ladder.ladder import LadderRun
from multigrid.report.collect import collect
from multigrid.report.course import describe_course
from multigrid.report.figures import draw_run
from multigrid.report.page import write_page
from multigrid.report.record import RunRecord
from multigrid.tables import si, table

log = logging.getLogger(__name__)


def write_report(run: LadderRun) -> None:
    """Writes the summary of a finished run, draws it and logs its table."""
    summary = run.finish()
    write_json(run.folder.summary, summary)
    collect(run)
    draw(run)
    result = run.test_results
    log.info("\n%s\n", summary_table(summary["levels"]))
    errors = "  ".join(f"{key}={value:.4g}" for key, value in summary["test"].items())
    log.info("test on %s: %s", result.samples.grid, errors)
    for test, metrics in result.extra.items():
        errors = "  ".join(f"{key}={value:.4g}" for key, value in metrics.items())
        log.info("test '%s': %s", test, errors)
    if result.rollout:
        errors = "  ".join(f"{error:.4g}" for error in result.rollout)
        log.info("roll-out, relative L2 error after each step: %s", errors)
    for remark in describe_course(summary):
        log.info("note: %s", remark)
    log.info(
        "%.1f s of training, %.2f work units, %sFLOPs; %.2f %% of the time to "
        "save checkpoints; results in %s",
        summary["seconds"],
        summary["work_units"],
        si(summary["flops"]),
        100 * summary["saving_share"],
        run.folder.path,
    )


def draw(run: LadderRun) -> None:
    """Draws the pictures and the page of a run from its result files."""
    record = RunRecord(run.folder)
    draw_run(record)
    write_page(record)


def summary_table(levels: list[dict[str, Any]]) -> str:
    """Returns the finished stages as a table."""
    rows = [
        [
            str(level["level"]),
            "x".join(str(n) for n in level["grid"]),
            str(level["epochs"]),
            f"{level['seconds']:.1f}",
            f"{level['work_units']:.2f}",
            f"{level['transferred']:,}/{level['parameters']:,}",
            f"{level['frozen']:,}",
            f"{level['rel_l2_at_start']:.4g}",
            f"{level['rel_l2']:.4g}",
        ]
        for level in levels
    ]
    header = [
        "Level",
        "Grid",
        "Epochs",
        "Seconds",
        "Work units",
        "Transferred",
        "Frozen",
        "Start",
        "End",
    ]
    return table(header, rows)
