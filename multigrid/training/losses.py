"""What is minimised: errors or an energy, and the residual of the PDE, as means over a batch.

Of one step in time, or of several (:class:`Unrolling`).

Users add losses with ``multigrid.register_loss(name)``, for ``loss.name``, or hand one in as
``loss=function``: of a prediction ``[N, out, *grid]`` and the batch, in physical units, to a scalar
tensor. A function that takes a parameter ``scale`` as well is given the :class:`LossScale`, by
which it can bring fields to a common size; ``loss.weights`` reach it that way alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from multigrid import metrics
from multigrid.data.samples import Samples
from multigrid.data.time import TimeSetup
from multigrid.errors import UserError, nearest
from multigrid.grid import Grid
from multigrid.metrics import FieldScale, bind, takes
from multigrid.models.cost import Flops
from multigrid.models.scaling import binary_unit
from multigrid.problems import Problem
from multigrid.registry import LOSSES, place_of
from multigrid.training.batches import add_noise

Loss = Callable[[Tensor, Samples], Tensor]


class LossScale:
    """Brings output fields to a common size, in which their errors count alike.

    Each field is divided by its standard deviation over the training samples and multiplied by its
    weight, all of them then by a power of two, so that a single field keeps its digits. Fields of
    which nothing is given stay as they are.
    """

    def __init__(self, fields: Sequence[FieldScale] = (), weights: Sequence[float] = ()) -> None:
        fields = fields or [FieldScale(size=1.0, spread=1.0)]
        weights = weights or [1.0] * len(fields)
        spread = fields[0].spread
        unit = binary_unit(spread)
        self.square = (unit / spread) ** 2
        pairs = list(zip(weights, fields, strict=True))
        self.factors = [weight * (spread / field.spread) / unit for weight, field in pairs]
        sizes = [f * field.size for f, field in zip(self.factors, fields, strict=True)]
        self.field = FieldScale(size=(sum(s**2 for s in sizes) / len(sizes)) ** 0.5)

    def __call__(self, fields: Tensor) -> Tensor:
        """Returns fields ``[N, C, *grid]`` in the common size."""
        if len(self.factors) > 1:
            shape = (1, -1, *(1,) * (fields.ndim - 2))
            return fields * fields.new_tensor(self.factors).reshape(shape)
        return fields * self.factors[0]


@LOSSES.register("rel_l2")
def rel_l2(prediction: Tensor, batch: Samples, scale: LossScale) -> Tensor:
    """Relative L2 error of all fields together."""
    return metrics.rel_l2(scale(prediction), scale(batch.outputs), scale.field).mean()


@LOSSES.register("rel_l1")
def rel_l1(prediction: Tensor, batch: Samples, scale: LossScale) -> Tensor:
    """Relative L1 error of all fields together."""
    return metrics.rel_l1(scale(prediction), scale(batch.outputs), scale.field).mean()


@LOSSES.register("rel_h1")
def rel_h1(prediction: Tensor, batch: Samples, scale: LossScale) -> Tensor:
    """Relative H1 error of all fields together."""
    return metrics.rel_h1(scale(prediction), scale(batch.outputs), batch.grid, scale.field).mean()


@LOSSES.register("mse")
def mse(prediction: Tensor, batch: Samples, scale: LossScale) -> Tensor:
    """Mean squared error of fields of spread 1."""
    return scale.square * metrics.mse(scale(prediction), scale(batch.outputs)).mean()


def build_loss(
    loss: str | Loss,
    grid: Grid,
    problem: Problem,
    residual: float = 0.0,
    finer: Grid | None = None,
    prolongation: int = 4,
    fields: Sequence[FieldScale] = (),
    weights: Mapping[str, float] | None = None,
) -> Loss:
    """Returns a loss: a prediction ``[N, out, *grid]`` and a batch to one number.

    ``residual`` is the weight of the discrete equation's residual, which is added; see
    ``EllipticPDE.discrete_equation``. The energy is the least on the ``finer`` grid, if given.
    """
    scale = LossScale(fields, field_weights(weights or {}, problem, loss))
    if loss == "energy":
        error = problem.energy_loss(grid, finer or grid, prolongation)
        if error is None:
            raise UserError(
                f"loss.name: 'energy' is not available for the problem '{problem.kind}'"
            )
    else:
        error = bind(_function(loss), scale=scale)
    error = _checked(error, loss)
    if residual == 0:
        return error
    equation = _residual(problem, grid)
    return lambda prediction, batch: (
        error(prediction, batch) + residual * equation(prediction, batch)
    )


def field_weights(weights: Mapping[str, float], problem: Problem, loss: str | Loss) -> list[float]:
    """Returns the weight of each output field, or nothing; raises UserError if it has no effect."""
    names = problem.output_names
    for name in weights:
        if name not in names:
            raise UserError(
                f"loss.weights: there is no output field '{name}'; there are {', '.join(names)}"
                f"{nearest(name, names)}"
            )
    if weights and (loss == "energy" or not takes(_function(loss), "scale")):
        raise UserError(
            f"loss.weights: have no effect on the loss {_name(loss)}, which has no parameter "
            "'scale' that brings them in; leave them out"
        )
    return [weights.get(name, 1.0) for name in names] if weights else []


def _function(loss: str | Loss) -> Callable[..., Tensor]:
    function: Callable[..., Tensor] = LOSSES.get(loss) if isinstance(loss, str) else loss
    return function


def _name(loss: str | Loss) -> str:
    return f"'{loss}'" if isinstance(loss, str) else place_of(loss)


def _checked(error: Loss, loss: str | Loss) -> Loss:
    """Returns the same loss, which tells of values that cannot be minimised."""

    def checked(prediction: Tensor, batch: Samples) -> Tensor:
        value: Any = error(prediction, batch)
        if not isinstance(value, Tensor):
            given = f"a {type(value).__name__}"
        elif value.ndim:
            given = f"a tensor of shape {list(value.shape)}"
        elif prediction.requires_grad and not value.requires_grad:
            given = "a tensor that does not depend on the prediction"
        else:
            return value
        raise UserError(
            f"the loss {_name(loss)} returned {given}; it must return one number as a tensor, the "
            "mean over the batch, computed by torch from the prediction"
        )

    return checked


def _residual(problem: Problem, grid: Grid) -> Loss:
    """Returns the mean of ``||A u - f|| / ||f||`` for the discrete equation ``A u = f``.

    Where f is zero, or nearly, the residual is relative to the size of f in the batch.
    """
    if not problem.has("discrete_equation"):
        raise UserError(
            f"loss.residual: the discrete equation of the problem '{problem.kind}' is not available"
        )

    def residual(prediction: Tensor, batch: Samples) -> Tensor:
        sides = problem.discrete_equation(batch.inputs, prediction, grid)
        assert sides is not None
        image, source = sides
        unit = binary_unit(source.abs().max().item())
        source = source / unit
        size = source.square().mean().sqrt().item() or 1.0
        return metrics.rel_l2(image / unit, source, FieldScale(size=size)).mean()

    return residual


@dataclass(frozen=True)
class Unrolling:
    """Training for roll-outs: several steps at once, on batches with their targets in a row.

    A batch has ``outputs [N, k C, *grid]`` for k steps. *Unrolled*: the gradient goes back through
    all of them, and the loss is the mean over them. *Pushforward* (Brandstetter et al.,
    arXiv:2202.03376): the loss is that of one step, from a state that the network has reached in 0
    to k - 1 steps, drawn for each batch, which no gradient goes through.

    Attributes:
        setup: How states become inputs.
        steps: How many steps at once, each number for an equal part of a stage's epochs.
        method: Unrolled or pushforward.
        noise: The standard deviation of noise on the states of the input over that of each field of
            each sample (Sanchez-Gonzalez et al., arXiv:2002.09405).
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
