"""Training for roll-outs: several steps at once, or noisy inputs.

A batch holds the targets of k steps one after the other, ``outputs [N, k C, *grid]``. *Unrolled*:
the gradient goes back through all k steps, and the loss is the mean over them. *Pushforward*
(Brandstetter et al., arXiv:2202.03376): the loss is that of one step, from a state that the network
has reached in 0 to k - 1 steps, drawn for each batch, which no gradient goes through. *Noise*
(Sanchez-Gonzalez et al., arXiv:2002.09405) is added to the states of the input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.data.time import TimeSetup
from multigrid.models.cost import Flops
from multigrid.training.losses import Loss

Method = Literal["unrolled", "pushforward"]


@dataclass(frozen=True)
class Unrolling:
    """How many steps are trained at once, and how.

    Attributes:
        setup: How states become inputs.
        steps: Numbers of steps, each for an equal part of a stage's epochs.
        method: Whether gradients go through all steps or the last one alone.
        noise: Standard deviation of the noise on the states in an input, over that of each field of
            each sample.
    """

    setup: TimeSetup
    steps: Sequence[int] = (1,)
    method: Method = "unrolled"
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
        states = inputs[:, :count]
        spread = states.std(list(range(2, inputs.ndim)), correction=0, keepdim=True)
        noisy = states + self.noise * spread * torch.randn_like(states)
        return torch.cat([noisy, inputs[:, count:]], dim=1)
