"""Errors of a surrogate: on samples, on the grid of its level and finer ones; and of roll-outs.

In a roll-out, a surrogate of one time step is applied to its outputs, again and again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multigrid import metrics, signals
from multigrid.data.samples import Samples
from multigrid.data.time import TimeSetup, Trajectories
from multigrid.distributed import ALONE, Processes
from multigrid.errors import UserError, brief
from multigrid.fields import Periodic, prolong_to, restrict_to
from multigrid.grid import Grid
from multigrid.models.scaling import Surrogate

STEPS = (1, 10, 100)
CORRELATED = 0.8
BLOW_UP = 10.0

Step = Callable[[Tensor], Tensor]
"""Maps inputs ``[N, in, *grid]`` to predictions ``[N, C, *grid]``."""


@torch.no_grad()
def predict(surrogate: Surrogate, inputs: Tensor, batch_size: int) -> Tensor:
    """Returns outputs ``[N, out, *grid]`` for inputs ``[N, in, *grid]`` in batches, in float32."""
    surrogate.eval()
    outputs = []
    for part in inputs.split(batch_size):
        signals.check()
        outputs.append(surrogate(part))
    return torch.cat(outputs)


class LevelValidator:
    """Measures surrogates of one level on validation samples."""

    def __init__(
        self,
        finest: Samples,
        grid: Grid,
        prolongation: tuple[int, Periodic],
        batch_size: int,
        processes: Processes = ALONE,
    ) -> None:
        self.finest = finest
        self.samples = finest.restrict_to(grid)
        self.prolongation = prolongation
        self.batch_size = processes.largest_share(batch_size)
        self.processes = processes

    def __call__(self, surrogate: Surrogate) -> tuple[float, ...]:
        """Returns the mean relative L2 error on the grid of the level and on the finest grid.

        The mean is over samples and output fields; those of each field on the level's grid follow.
        """
        errors = self.processes.each(lambda part: self._errors(surrogate, part), len(self.finest))
        return tuple(column.contiguous().mean().item() for column in errors.unbind(1))

    def _errors(self, surrogate: Surrogate, part: slice) -> Tensor:
        """Returns the errors ``[N, 2 + C]`` of some samples, in the order of :meth:`__call__`."""
        samples, finest = self.samples[part], self.finest[part]
        fields = surrogate.scaling.fields
        prediction = predict(surrogate, samples.inputs, self.batch_size)
        by_field = metrics.rel_l2_by_field(prediction, samples.outputs, fields)
        errors = on_finest = by_field.mean(1)
        if samples.grid != finest.grid:
            prolonged = prolong_to(prediction, samples.grid, finest.grid, *self.prolongation)
            on_finest = metrics.mean_rel_l2(prolonged, finest.outputs, fields)
        return torch.cat([torch.stack([errors, on_finest], dim=1), by_field], dim=1)


def evaluate(
    prediction: Tensor,
    samples: Samples,
    fields: Sequence[metrics.FieldScale],
    names: Sequence[str],
    more: Mapping[str, metrics.Metric] | None = None,
) -> dict[str, dict[str, float]]:
    """Returns every metric of a prediction, ``{metric: {field: value}}``."""
    functions = {**metrics.registered_metrics(), **(more or {})}
    values = metrics.field_errors(prediction, samples.outputs, samples.grid, fields, functions)
    return metrics.per_field(values, names)


def try_metrics(
    samples: Samples,
    fields: Sequence[metrics.FieldScale],
    names: Sequence[str],
    more: Mapping[str, metrics.Metric],
) -> None:
    """Checks that all metrics work, on a few samples as predictions of one another.

    Raises:
        UserError: If one of them fails, or does not give a number for each sample.
    """
    for name, metric in {**metrics.registered_metrics(), **more}.items():
        prediction, only = samples.outputs.flip(0), {name: metric}
        try:
            values = metrics.field_errors(prediction, samples.outputs, samples.grid, fields, only)
            metrics.per_field(values, names)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"metrics: '{name}' fails on a try with {len(samples)} validation samples: "
                f"{type(error).__name__}: {brief(error)}"
            ) from error


def interpolation_error(
    truth: Tensor,
    fine: Grid,
    coarse: Grid,
    degree: int,
    periodic: Periodic,
    fields: Sequence[metrics.FieldScale] = (),
) -> float:
    """Returns what prolongation costs: the mean relative L2 error of the prolonged restriction."""
    restricted = restrict_to(truth, fine, coarse)
    prolonged = prolong_to(restricted, coarse, fine, degree, periodic)
    return metrics.mean_rel_l2(prolonged, truth, fields).mean().item()


@torch.no_grad()
def roll_out(step: Step, inputs: Tensor, num_steps: int, setup: TimeSetup) -> Iterator[Tensor]:
    """Yields the states ``[N, C, *grid]`` after 1, 2, ... steps from inputs ``[N, in, *grid]``."""
    for _ in range(num_steps):
        prediction = step(inputs)
        yield setup.state(inputs, prediction)
        inputs = setup.next_input(inputs, prediction)


@dataclass(frozen=True)
class RolloutErrors:
    """Errors of N trajectories after 1, 2, ... T steps, ``[N, T]`` each in float64.

    Norms run over grid points; values are means over fields.

    Attributes:
        nrmse: ``|p - u| / |u|`` (the nRMSE of APEBench, arXiv:2411.00180). Where a field is below
            1e-6 of its largest norm along the trajectory, it is relative to that.
        vrmse: ``|p - u| / |u - mean(u)|`` (the VRMSE of The Well, arXiv:2412.00568), likewise.
        correlation: Pearson's correlation over grid points.
    """

    nrmse: Tensor
    vrmse: Tensor
    correlation: Tensor

    @classmethod
    def of(cls, predictions: Iterable[Tensor], states: Tensor) -> "RolloutErrors":
        """Compares states ``[N, C, *grid]`` after 1, 2, ... steps with ``[N, T + 1, C, *grid]``."""
        truth = states.flatten(3).double()
        size, spread = truth.norm(dim=3), (truth - truth.mean(3, keepdim=True)).norm(dim=3)
        sizes = [part.maximum(1e-6 * part.amax(1, keepdim=True)) for part in (size, spread)]
        rows = []
        for number, prediction in enumerate(predictions, start=1):
            p, u = prediction.flatten(2).double(), truth[:, number]
            error = (p - u).norm(dim=2)
            p, u = (x - x.mean(2, keepdim=True) for x in (p, u))
            # a tiny number, so that constant fields correlate with nothing
            correlation = (p * u).sum(2) / (p.norm(dim=2) * u.norm(dim=2) + 1e-300)
            values = (error / sizes[0][:, number], error / sizes[1][:, number], correlation)
            rows.append(torch.stack([value.mean(1) for value in values]))
        return cls(*torch.stack(rows, dim=2))

    @property
    def stable(self) -> Tensor:
        """Where a trajectory is finite and its nRMSE has stayed below 10, boolean ``[N, T]``."""
        return (self.nrmse < BLOW_UP).long().cumprod(1).bool()

    @property
    def correlation_steps(self) -> Tensor:
        """Number of steps for which the correlation stays at 0.8 or above, ``[N]``."""
        return (self.correlation >= CORRELATED).long().cumprod(1).sum(1).double()

    def mean_nrmse(self) -> list[float]:
        """Returns the mean over stable trajectories after each step; NaN once there is none."""
        return (self.nrmse.where(self.stable, 0.0).sum(0) / self.stable.sum(0)).tolist()

    def to_json(self, persistence: "RolloutErrors") -> dict[str, Any]:
        """Returns errors at 1, 10, 100 and all steps as plain containers."""
        count = self.nrmse.shape[1]
        steps = [step for step in STEPS if step < count] + [count]
        errors = {
            name: [_spread(values[stable[:, step - 1], step - 1]) for step in steps]
            for name, values, stable in (
                ("nRMSE", self.nrmse, self.stable),
                ("VRMSE", self.vrmse, self.stable),
                ("nRMSE of persistence", persistence.nrmse, persistence.stable),
            )
        }
        return {
            "trajectories": len(self.nrmse),
            "steps": steps,
            "errors": errors,
            "correlation_steps": _spread(self.correlation_steps),
            "blow_up": 1.0 - self.stable[:, -1].double().mean().item(),
        }


def _spread(values: Tensor) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(("mean", "low", "high"), float("nan"))
    low, high = values.aminmax()
    return {"mean": values.mean().item(), "low": low.item(), "high": high.item()}


def measure_rollout(step: Step, true: Trajectories) -> tuple[RolloutErrors, RolloutErrors]:
    """Returns the errors of roll-outs from the first states of true trajectories.

    And those of persistence: the first state as prediction of all that follow.
    """
    states, num_steps = true.states, true.states.shape[1] - 1
    predictions = roll_out(step, true.inputs, num_steps, true.setup)
    persistence = RolloutErrors.of([states[:, 0]] * num_steps, states)
    return RolloutErrors.of(predictions, states), persistence
