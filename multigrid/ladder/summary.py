"""The result files of a finished run."""

from typing import Any

import torch

from multigrid import measurement
from multigrid.files import write_json
from multigrid.hardware import code_version, machine, peak_memory
from multigrid.ladder.ladder import LadderRun
from multigrid.rollout import RolloutErrors


def summarise(run: LadderRun) -> dict[str, Any]:
    """Returns the content of ``summary.json`` of a finished run, as plain containers."""
    experiment, recorder, last = run.experiment, run.recorder, run.rows[-1]
    with_saving = last.seconds + last.evaluation_seconds + recorder.saving_seconds
    return {
        "name": experiment.config.name,
        "network": experiment.family.kind,
        "levels": recorder.finished,
        "test": run.test_results.errors,
        "test_by_field": run.test_results.by_field,
        "negligible_fields": {split: rows for split, rows in run.data.negligible.items() if rows},
        "extra_tests": run.test_results.extra,
        **_rollout(run.test_results.rollout),
        "events": run.folder.journal.read(),
        "seconds": last.seconds,
        "saving_seconds": recorder.saving_seconds,
        "saving_share": recorder.saving_seconds / with_saving,
        "work_units": last.work_units,
        "flops": last.flops,
        "evaluation_seconds": last.evaluation_seconds,
        "data_preparation_seconds": run.data.seconds,
        "data_seconds": sum(stage["data_seconds"] for stage in recorder.finished),
        "data_fingerprint": experiment.source.fingerprint,
        "device": str(experiment.device),
        "precision": experiment.precision,
        "processes": run.processes.size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "code": code_version(),
        "machine": machine(experiment.device),
        "peak_memory_bytes": peak_memory(experiment.device),
    }


def _rollout(errors: tuple[RolloutErrors, RolloutErrors] | None) -> dict[str, Any]:
    if errors is None:
        return {"rollout": []}
    surrogate, persistence = errors
    return {
        "rollout": surrogate.mean("nrmse"),
        "rollout_persistence": persistence.mean("nrmse"),
        "rollout_metrics": surrogate.to_json(persistence),
    }


def write_results(run: LadderRun) -> dict[str, Any]:
    """Writes ``summary.json``, ``predictions.npz`` and ``spectra.json``; returns the summary."""
    summary = summarise(run)
    run.finish(summary)
    write_json(run.folder.summary, summary)
    experiment, results, rollout = run.experiment, run.test_results, None
    if (true := results.trajectories) is not None:
        surrogate = run.best_surrogate(experiment.stages[-1].level)
        rollout = measurement.first_rollout(surrogate, true.states, true.inputs, true.setup)
    measurement.write_predictions(
        run.folder.examples,
        (experiment.problem.input_names, experiment.problem.output_names),
        results.samples,
        results.prediction,
        run.data.scaling.fields,
        experiment.config.output.num_predictions,
        rollout,
        experiment.source.groups("test", results.samples.grid, len(results.samples)),
    )
    levels = {
        level: measurement.LevelNetwork(
            experiment.hierarchy.levels[level],
            experiment.sample_grid(level),
            run.best_surrogate(level),
        )
        for level in sorted({stage["level"] for stage in run.recorder.finished})
    }
    measurement.write_spectra(
        run.folder.spectra,
        levels,
        run.data.test,
        experiment.stages[-1].batch_size,
        experiment.config.model.prolongation,
        experiment.periodic,
    )
    return summary
