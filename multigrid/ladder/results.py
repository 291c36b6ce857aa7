"""The test results of a finished run."""

from dataclasses import dataclass

from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.data.time import Trajectories
from multigrid.ladder.data import RunData
from multigrid.models.scaling import Surrogate
from multigrid.rollout import RolloutErrors, measure_rollout
from multigrid.schedule import Stage
from multigrid.training.evaluation import evaluate, predict


@dataclass(frozen=True)
class TestResults:
    """What the finished surrogate gives on the test samples.

    Attributes:
        samples: Test samples on its grid.
        prediction: Predicted outputs ``[N, out, *grid]``.
        errors: Every metric, the mean over output fields.
        by_field: Every metric of each output field, ``{metric: {field: value}}``.
        extra: Every metric on each further test set, the mean over output fields.
        rollout: Errors of a roll-out, and those of persistence; None if there was none.
        trajectories: The true trajectories that it was compared with.
    """

    samples: Samples
    prediction: Tensor
    errors: dict[str, float]
    by_field: dict[str, dict[str, float]]
    extra: dict[str, dict[str, float]]
    rollout: tuple[RolloutErrors, RolloutErrors] | None
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
        trajectories, rollout = data.trajectories(grid), None
        if (true := trajectories) is not None:
            rollout = measure_rollout(surrogate.eval(), true.states, true.inputs, true.setup)
        return cls(
            samples,
            prediction,
            errors.mean,
            errors.by_field,
            extra,
            rollout,
            trajectories,
        )
