"""What stands at the end of a run: the pictures and the summary table."""

import logging
from typing import Any

from multigrid.ladder import LadderRun
from multigrid.plots import plot_convergence, plot_predictions
from multigrid.tables import si, table

log = logging.getLogger(__name__)


def write_report(run: LadderRun, summary: dict[str, Any]) -> None:
    """Draws the pictures of a finished run and logs its summary table."""
    name = summary["name"]
    plot_convergence(run.ledger.rows, run.folder.convergence, name)
    result = run.tested
    count = run.experiment.config.output.num_predictions
    plot_predictions(
        result.samples.inputs[:count, 0].cpu().numpy(),
        result.samples.outputs[:count, 0].cpu().numpy(),
        result.prediction[:count, 0].cpu().numpy(),
        run.folder.predictions,
        f"{name}: test samples on the {result.samples.grid} grid",
    )
    log.info("\n%s\n", summary_table(summary["levels"]))
    errors = "  ".join(f"{key}={value:.4g}" for key, value in summary["test"].items())
    log.info("test on %s: %s", result.samples.grid, errors)
    for test, metrics in result.extra.items():
        errors = "  ".join(f"{key}={value:.4g}" for key, value in metrics.items())
        log.info("test '%s': %s", test, errors)
    if result.rollout:
        errors = "  ".join(f"{error:.4g}" for error in result.rollout)
        log.info("roll-out, relative L2 error after each step: %s", errors)
    log.info(
        "%.1f s of training, %.2f work units, %sFLOPs; results in %s",
        summary["seconds"],
        summary["work_units"],
        si(summary["flops"]),
        run.folder.path,
    )


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
