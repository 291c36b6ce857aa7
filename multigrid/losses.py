"""What is minimised: means of errors over a batch, or an energy that needs no labels."""

from collections.abc import Callable

from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.metrics import mse, rel_h1, rel_l1, rel_l2
from multigrid.problems import Diffusion, Problem

Loss = Callable[[Tensor, Samples], Tensor]


def build_loss(name: str, grid: Grid, problem: Problem) -> Loss:
    """Returns a loss: a prediction ``[N, out, *grid]`` and a batch to one number.

    Args:
        name: ``rel_l2``, ``rel_l1``, ``rel_h1``, ``mse`` or ``energy``.
        grid: Grid of the fields.
        problem: The PDE, which knows its energy.

    Raises:
        UserError: If the problem has no energy.
    """
    if name == "energy":
        return _energy(problem, grid)
    if name == "rel_h1":
        return lambda prediction, batch: rel_h1(prediction, batch.outputs, grid.spacing).mean()
    metric = {"rel_l2": rel_l2, "rel_l1": rel_l1, "mse": mse}[name]
    return lambda prediction, batch: metric(prediction, batch.outputs).mean()


def _energy(problem: Problem, grid: Grid) -> Loss:
    """Returns the mean energy, each over that of the linear profile between the plates."""
    if not isinstance(problem, Diffusion):
        raise UserError(f"loss.name: 'energy' is not known for the problem '{problem.kind}'")
    linear = problem.linear_profile(grid)

    def energy(prediction: Tensor, batch: Samples) -> Tensor:
        profile = prediction.new_tensor(linear).expand_as(prediction)
        scale = problem.energy(batch.inputs, profile, grid.spacing)
        return (problem.energy(batch.inputs, prediction, grid.spacing) / scale).mean()

    return energy
