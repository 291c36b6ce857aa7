"""Errors of a surrogate on samples, on the grid of its level and on finer ones."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from multigrid import metrics, signals
from multigrid.data.samples import Samples
from multigrid.distributed import ALONE, Processes
from multigrid.fields import Periodic, prolong_to, restrict_to
from multigrid.grid import Grid
from multigrid.models.scaling import Surrogate


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
