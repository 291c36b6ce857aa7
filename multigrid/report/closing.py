"""The end of a run: result files for pictures, the pictures, the page and the summary table."""

import logging
from typing import Any

from multigrid import measurement
from multigrid.files import write_json
from multigrid.ladder.ladder import LadderRun
from multigrid.report import write_report as draw_report
from multigrid.report.record import remarks
from multigrid.rollout import measure_rollout
from multigrid.tables import si, table

log = logging.getLogger(__name__)


def write_report(run: LadderRun) -> None:
    """Writes the summary of a finished run, draws it and logs its table."""
    summary = run.finish()
    experiment, result = run.experiment, run.test_results
    if result.trajectories is not None:
        surrogate, true = run.best_surrogate(experiment.stages[-1].level), result.trajectories
        rolled, persistence = measure_rollout(surrogate, true.states, true.inputs, true.setup)
        summary["rollout_metrics"] = rolled.to_json(persistence)
        summary["rollout_persistence"] = persistence.mean("nrmse")
    write_json(run.folder.summary, summary)
    collect(run)
    draw(run)
    log.info("\n%s\n", summary_table(summary["levels"]))
    errors = "  ".join(f"{key}={value:.4g}" for key, value in summary["test"].items())
    log.info("test on %s: %s", result.samples.grid, errors)
    for name in experiment.problem.output_names if len(experiment.problem.output_names) > 1 else ():
        errors = "  ".join(f"{key}={row[name]:.4g}" for key, row in result.by_field.items())
        log.info("of which the field %s: %s", name, errors)
    for test, metrics in result.extra.items():
        errors = "  ".join(f"{key}={value:.4g}" for key, value in metrics.items())
        log.info("test '%s': %s", test, errors)
    if result.rollout:
        errors = "  ".join(f"{error:.4g}" for error in result.rollout)
        log.info("roll-out, relative L2 error after each step: %s", errors)
    for remark in remarks(summary):
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


def collect(run: LadderRun) -> None:
    """Writes ``predictions.npz`` and ``spectra.json`` of a run that has been tested."""
    experiment, result = run.experiment, run.test_results
    batch_size = experiment.stages[-1].batch_size
    rollout = None
    if result.trajectories is not None:
        surrogate, true = run.best_surrogate(experiment.stages[-1].level), result.trajectories
        rollout = measurement.first_rollout(surrogate, true.states, true.inputs, true.setup)
    measurement.write_predictions(
        run.folder.examples,
        (experiment.problem.input_names, experiment.problem.output_names),
        result.samples,
        result.prediction,
        run.data.scaling.fields,
        experiment.config.output.num_predictions,
        rollout,
    )
    levels = sorted({stage["level"] for stage in run.recorder.finished})
    measurement.write_spectra(
        run.folder.spectra,
        {
            level: measurement.LevelNetwork(
                experiment.hierarchy.levels[level],
                experiment.sample_grid(level),
                run.best_surrogate(level),
            )
            for level in levels
        },
        run.data.test,
        batch_size,
        experiment.config.model.prolongation,
        experiment.periodic,
    )


def draw(run: LadderRun) -> None:
    """Draws the pictures and the page of a run from its result files."""
    draw_report(run.folder.path, run.experiment.config.output.figures)


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
    header = ["Level", "Grid", "Epochs", "Seconds", "Work units", "Transferred", "Frozen", "Start"]
    return table([*header, "End"], rows)
