"""What a finished surrogate gives on the samples that it has never seen."""

from dataclasses import dataclass

from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.ladder.run_data import RunData
from multigrid.models.scaling import Surrogate
from multigrid.schedule import Stage
from multigrid.training.evaluation import evaluate, predict, rollout_errors


@dataclass(frozen=True)
class TestResult:
    """What the finished surrogate gives on the test samples.

    Attributes:
        samples: Test samples on its grid.
        prediction: Predicted outputs ``[N, out, *grid]``.
        errors: Every metric, the mean over output fields.
        by_field: Every metric of each output field, ``{metric: {field: value}}``.
        negligible: By field, the samples whose field counts as zero in relative errors.
        extra: Every metric on each further test set, the mean over output fields.
        rollout: Errors after 1, 2, ... steps of a roll-out, none if there was none.
        states: The true trajectories ``[N, num_steps + 1, C, *grid]`` it was compared with.
    """

    samples: Samples
    prediction: Tensor
    errors: dict[str, float]
    by_field: dict[str, dict[str, float]]
    negligible: dict[str, list[int]]
    extra: dict[str, dict[str, float]]
    rollout: list[float]
    states: Tensor | None

    @classmethod
    def of(cls, surrogate: Surrogate, data: RunData, stage: Stage) -> "TestResult":
        """Evaluates the best surrogate of the last stage."""
        batch_size = stage.batch_size
        samples = data.test.restrict_to(data.experiment.hierarchy.levels[stage.level])
        grid = samples.grid
        prediction = predict(surrogate, samples.inputs, batch_size)
        fields, names = data.scaling.fields, data.experiment.problem.output_names
        errors = evaluate(prediction, samples, fields, names)
        extra = {}
        for name, others in data.extra_tests(grid).items():
            guess = predict(surrogate, others.inputs, batch_size)
            extra[name] = evaluate(guess, others, fields, names).mean
        states = data.trajectories(grid)
        return cls(
            samples,
            prediction,
            errors.mean,
            errors.by_field,
            errors.negligible,
            extra,
            [] if states is None else rollout_errors(surrogate, states),
            states,
        )
