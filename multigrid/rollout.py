"""Roll-outs: a surrogate of one time step is applied to its outputs, again and again."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multigrid.data.time import TimeSetup, Trajectories

STEPS = (1, 10, 100)
CORRELATED = 0.8
BLOW_UP = 10.0

Step = Callable[[Tensor], Tensor]
"""Maps inputs ``[N, in, *grid]`` to predictions ``[N, C, *grid]``."""


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
    """Rolls out from the first states of true trajectories.

    Returns:
        The errors, and those of persistence: the first state as prediction of all that follow.
    """
    states, num_steps = true.states, true.states.shape[1] - 1
    predictions = roll_out(step, true.inputs, num_steps, true.setup)
    persistence = RolloutErrors.of([states[:, 0]] * num_steps, states)
    return RolloutErrors.of(predictions, states), persistence
