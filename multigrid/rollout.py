"""Roll-outs: a surrogate of one time step is applied to its outputs, again and again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

STEPS = (1, 10, 100)
CORRELATED = 0.8
BLOW_UP = 10.0


class StateRule(Protocol):
    """How predictions become states, and states the inputs of the next step."""

    def state(self, inputs: Tensor, prediction: Tensor) -> Tensor:
        """Returns the state ``[N, C, *grid]`` that a prediction stands for."""

    def next_input(self, inputs: Tensor, prediction: Tensor) -> Tensor:
        """Returns the input of the next step ``[N, in, *grid]``."""


@torch.no_grad()
def roll_out(
    step: Callable[[Tensor], Tensor],
    inputs: Tensor,
    num_steps: int,
    rule: StateRule | None = None,
) -> Iterator[Tensor]:
    """Yields the states ``[N, C, *grid]`` after 1, 2, ... steps.

    Args:
        step: Maps inputs ``[N, in, *grid]`` to predictions ``[N, C, *grid]``.
        inputs: The first input.
        num_steps: Number of steps.
        rule: How predictions become inputs; by default they are the inputs.
    """
    for _ in range(num_steps):
        prediction = step(inputs)
        if rule is None:
            state = inputs = prediction
        else:
            state = rule.state(inputs, prediction)
            inputs = rule.next_input(inputs, prediction)
        yield state


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
    def of(cls, predictions: Iterator[Tensor], states: Tensor) -> "RolloutErrors":
        """Compares predictions with true trajectories.

        Args:
            predictions: States ``[N, C, *grid]`` after 1, 2, ... steps.
            states: True states ``[N, T + 1, C, *grid]``, the given one first.
        """
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

    def mean(self, name: str) -> list[float]:
        """Returns the mean of a metric over stable trajectories after each step.

        NaN once there is none.
        """
        values, stable = getattr(self, name), self.stable
        return (values.where(stable, 0.0).sum(0) / stable.sum(0)).tolist()

    def to_json(self, persistence: "RolloutErrors | None" = None) -> dict[str, Any]:
        """Returns errors at 1, 10, 100 and all steps as plain containers.

        Args:
            persistence: Errors of the given state itself.
        """
        count = self.nrmse.shape[1]
        steps = [step for step in STEPS if step < count] + [count]
        named = {"nRMSE": (self, self.nrmse), "VRMSE": (self, self.vrmse)}
        if persistence is not None:
            named["nRMSE of persistence"] = (persistence, persistence.nrmse)
        return {
            "trajectories": len(self.nrmse),
            "steps": steps,
            "errors": {
                name: [_spread(values[errors.stable[:, s - 1], s - 1]) for s in steps]
                for name, (errors, values) in named.items()
            },
            "correlation_steps": _spread(self.correlation_steps),
            "blow_up": 1.0 - self.stable[:, -1].double().mean().item(),
        }


def _spread(values: Tensor) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(("mean", "low", "high"), float("nan"))
    return {
        "mean": values.mean().item(),
        "low": values.min().item(),
        "high": values.max().item(),
    }


def measure_rollout(
    step: Callable[[Tensor], Tensor],
    states: Tensor,
    inputs: Tensor | None = None,
    rule: StateRule | None = None,
) -> tuple[RolloutErrors, RolloutErrors]:
    """Rolls out from the first states of true trajectories.

    Args:
        step: Maps inputs ``[N, in, *grid]`` to predictions ``[N, C, *grid]``.
        states: True states ``[N, T + 1, C, *grid]``, the given one first.
        inputs: The first inputs ``[N, in, *grid]``; by default the first states.
        rule: How predictions become inputs; by default they are the inputs.

    Returns:
        The errors, and those of persistence: the first state as prediction of all that follow.
    """
    first, num_steps = states[:, 0], states.shape[1] - 1
    predictions = roll_out(step, first if inputs is None else inputs, num_steps, rule)
    persistence = RolloutErrors.of(iter([first] * num_steps), states)
    return RolloutErrors.of(predictions, states), persistence
