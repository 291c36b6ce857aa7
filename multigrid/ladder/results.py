"""The test results of a finished run, and its summary."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.data.time import Trajectories
from multigrid.hardware import machine, peak_memory
from multigrid.ladder.data import RunData
from multigrid.models.scaling import Surrogate
from multigrid.records.environment import code_version
from multigrid.schedule import Stage
from multigrid.training.evaluation import evaluate, predict, rollout_errors

if TYPE_CHECKING:
    from multigrid.ladder.ladder import LadderRun


@dataclass(frozen=True)
class TestResults:
    """What the finished surrogate gives on the test samples.

    Attributes:
        samples: Test samples on its grid.
        prediction: Predicted outputs ``[N, out, *grid]``.
        errors: Every metric, the mean over output fields.
        by_field: Every metric of each output field, ``{metric: {field: value}}``.
        extra: Every metric on each further test set, the mean over output fields.
        rollout: Errors after 1, 2, ... steps of a roll-out, none if there was none.
        trajectories: The true trajectories that it was compared with.
    """

    samples: Samples
    prediction: Tensor
    errors: dict[str, float]
    by_field: dict[str, dict[str, float]]
    extra: dict[str, dict[str, float]]
    rollout: list[float]
    trajectories: Trajectories | None

    @classmethod
    def of(cls, surrogate: Surrogate, data: RunData, stage: Stage) -> "TestResults":
        """Evaluates the best surrogate of the last stage."""
        batch_size = stage.batch_size
        samples = data.test.restrict_to(data.experiment.sample_grid(stage.level))
        grid = samples.grid
        prediction = predict(surrogate, samples.inputs, batch_size)
        fields, names = data.scaling.fields, data.experiment.problem.output_names
        more = data.experiment.extensions.metrics
        errors = evaluate(prediction, samples, fields, names, more)
        extra = {}
        for name, others in data.extra_tests(grid).items():
            other_prediction = predict(surrogate, others.inputs, batch_size)
            extra[name] = evaluate(other_prediction, others, fields, names, more).mean
        trajectories = data.trajectories(grid)
        return cls(
            samples,
            prediction,
            errors.mean,
            errors.by_field,
            extra,
            [] if trajectories is None else rollout_errors(surrogate, trajectories),
            trajectories,
        )


def summarise(run: "LadderRun") -> dict[str, Any]:
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
        "rollout": run.test_results.rollout,
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
