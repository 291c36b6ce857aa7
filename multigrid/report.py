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
    remarks = describe_course(summary)
    plot_convergence(run.ledger.rows, run.folder.convergence, name, "; ".join(remarks))
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
    for remark in remarks:
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


def describe_course(summary: dict[str, Any]) -> list[str]:
    """Returns what a reader of the results must know of how a run went; nothing if all is well."""
    remarks = []
    for event, phrase in (
        ("resumed", "resumed"),
        ("interrupted", "interrupted by a signal"),
        ("damaged checkpoint", "went back to an older checkpoint, as one was damaged,"),
    ):
        count = sum(record["event"] == event for record in summary["events"])
        if count:
            remarks.append(f"{phrase} {count} time{'s' * (count > 1)}")
    changed = {key for record in summary["events"] for key in record.get("changed", ())}
    if changed:
        remarks.append(f"resumed with a different {', '.join(sorted(changed))}")
    for number, stage in enumerate(summary["levels"]):
        where = f"stage {number} on level {stage['level']}"
        count = len(stage["went_back"])
        if count:
            remarks.append(f"{where} rolled back {count} time{'s' * (count > 1)}")
        if stage["outcome"] == "never improved":
            remarks.append(f"{where}: the validation error never improved")
    if summary["levels"][-1]["outcome"] == "still improving":
        remarks.append("unconverged: the validation error was still falling at the end")
    return remarks


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
            f"{level['rel_l2_at_start']:.4g}",
            f"{level['rel_l2']:.4g}",
        ]
        for level in levels
    ]
    header = ["Level", "Grid", "Epochs", "Seconds", "Work units", "Transferred", "Start", "End"]
    return table(header, rows)
