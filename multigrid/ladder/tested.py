"""What a finished surrogate gives on the samples that it has never seen."""

from dataclasses import dataclass

from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.data.statistics import output_range
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
        errors: Every metric.
        extra: Every metric on each further test set.
        rollout: Errors after 1, 2, ... steps of a roll-out, none if there was none.
        states: The true trajectories ``[N, num_steps + 1, C, *grid]`` it was compared with.
    """

    samples: Samples
    prediction: Tensor
    errors: dict[str, float]
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
        low, high = output_range(data.train[stage.level])
        extra = {}
        for name, others in data.extra_tests(grid).items():
            guess = predict(surrogate, others.inputs, batch_size)
            extra[name] = evaluate(guess, others, low, high)
        states = data.trajectories(grid)
        return cls(
            samples,
            prediction,
            evaluate(prediction, samples, low, high),
            extra,
            [] if states is None else rollout_errors(surrogate, states),
            states,
        )
