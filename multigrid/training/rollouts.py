"""Roll-outs: a surrogate of one time step is applied to its outputs, again and again.

Their errors, and training for them. A batch holds the targets of k steps one after the other,
``outputs [N, k C, *grid]``. *Unrolled*: the gradient goes back through all k steps, and the loss is
the mean over them. *Pushforward* (Brandstetter et al., arXiv:2202.03376): the loss is that of one
step, from a state that the network has reached in 0 to k - 1 steps, drawn for each batch, which no
gradient goes through. *Noise* (Sanchez-Gonzalez et al., arXiv:2002.09405) is added to the states of
the input.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.data.time import TimeSetup, Trajectories
from multigrid.models.cost import Flops
from multigrid.training.batches import add_noise
from multigrid.training.losses import Loss

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
    """Returns the errors of roll-outs from the first states of true trajectories.

    And those of persistence: the first state as prediction of all that follow.
    """
    states, num_steps = true.states, true.states.shape[1] - 1
    predictions = roll_out(step, true.inputs, num_steps, true.setup)
    persistence = RolloutErrors.of([states[:, 0]] * num_steps, states)
    return RolloutErrors.of(predictions, states), persistence


@dataclass(frozen=True)
class Unrolling:
    """How many steps are trained at once, each number for an equal part of a stage's epochs.

    ``setup`` says how states become inputs, ``method`` whether gradients go through all steps or
    the last one alone, ``noise`` the standard deviation of that on the states in an input over that
    of each field of each sample.
    """

    setup: TimeSetup
    steps: Sequence[int] = (1,)
    method: Literal["unrolled", "pushforward"] = "unrolled"
    noise: float = 0.0

    def num_steps(self, epoch: int, epochs: int) -> int:
        """Returns how many steps are trained at once in an epoch of a stage."""
        return self.steps[min(epoch * len(self.steps) // max(epochs, 1), len(self.steps) - 1)]

    def begins(self, epoch: int, epochs: int) -> bool:
        """Whether more steps than before are trained at once from an epoch on."""
        return epoch > 0 and self.num_steps(epoch, epochs) > self.num_steps(epoch - 1, epochs)

    def cost(self, num_steps: int, one: Flops) -> float:
        """Returns the mean operations to train a sample on so many steps, from those of one."""
        if self.method == "unrolled":
            return num_steps * one.training
        return one.training + (num_steps - 1) / 2 * one.forward

    def mean_cost(self, one: Flops) -> float:
        """Returns the mean of :meth:`cost` over the epochs of a stage."""
        return sum(self.cost(count, one) for count in self.steps) / len(self.steps)

    def loss(
        self,
        predict: Callable[[Tensor], Tensor],
        batch: Samples,
        loss: Loss,
        num_steps: int,
        rng: np.random.Generator,
    ) -> Tensor:
        """Returns the loss of a batch over so many steps; ``predict`` gives outputs of inputs.

        All processes and microbatches must draw the same from ``rng``, as they take equally many
        steps; the noise comes from torch's random numbers.
        """
        setup, size = self.setup, self.setup.num_channels
        inputs, true = self._noisy(batch.inputs), setup.last_state(batch.inputs)
        unrolled = self.method == "unrolled"
        last = num_steps if unrolled else 1 + int(rng.integers(num_steps))
        losses = []
        for step in range(last):
            target = batch.outputs[:, step * size : (step + 1) * size]
            scored = unrolled or step == last - 1
            with torch.set_grad_enabled(scored):
                prediction = predict(inputs)
            if scored:
                reached = prediction
                if setup.target == "delta":  # what leads from the true state to the one reached
                    reached = prediction + (setup.last_state(inputs) - true)
                losses.append(loss(reached, Samples(inputs, target, batch.grid)))
            true = target if setup.target == "state" else true + target
            inputs = setup.next_input(inputs, prediction)
        return torch.stack(losses).mean()

    def _noisy(self, inputs: Tensor) -> Tensor:
        """Adds noise to the states of inputs ``[N, in, *grid]``, not to what follows them."""
        if not self.noise:
            return inputs
        count = self.setup.history * self.setup.num_channels
        return torch.cat([add_noise(inputs[:, :count], self.noise), inputs[:, count:]], dim=1)
