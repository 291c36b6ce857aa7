"""What is minimised: errors or an energy, and the residual of the PDE, as means over a batch."""

from collections.abc import Callable

from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.metrics import mse, rel_h1, rel_l1, rel_l2
from multigrid.problems import Problem

Loss = Callable[[Tensor, Samples], Tensor]


def build_loss(
    name: str,
    grid: Grid,
    problem: Problem,
    residual: float = 0.0,
    finer: Grid | None = None,
    prolongation: int = 4,
) -> Loss:
    """Returns a loss: a prediction ``[N, out, *grid]`` and a batch to one number.

    Args:
        name: ``rel_l2``, ``rel_l1``, ``rel_h1``, ``mse`` or ``energy``.
        grid: Grid of the fields.
        problem: The PDE, which knows its energy or its discrete equation.
        residual: Weight of the relative L2 norm of the discrete equation's residual, mean over
            samples, that is added. See ``EllipticPDE.discrete_equation`` for what it is of the
            labels, on coarse levels above all.
        finer: Grid whose energy is to be least; by default the fields' own.
        prolongation: Polynomial degree of the prolongation to it.

    Raises:
        UserError: If the problem has no energy, or no equation to take the residual of.
    """
    if name == "energy":
        energy = problem.energy_loss(grid, finer or grid, prolongation)
        if energy is None:
            raise UserError(
                f"loss.name: 'energy' is not available for the problem '{problem.kind}'"
            )
        error: Loss = energy
    else:
        error = _build_error(name, grid)
    if residual == 0:
        return error
    equation = _residual(problem, grid)
    return lambda prediction, batch: (
        error(prediction, batch) + residual * equation(prediction, batch)
    )


def _build_error(name: str, grid: Grid) -> Loss:
    """Returns an error against the labels."""
    if name == "rel_h1":
        return lambda prediction, batch: rel_h1(prediction, batch.outputs, grid.spacing).mean()
    metric = {"rel_l2": rel_l2, "rel_l1": rel_l1, "mse": mse}[name]
    return lambda prediction, batch: metric(prediction, batch.outputs).mean()


def _residual(problem: Problem, grid: Grid) -> Loss:
    """Returns the mean of ``||A u - f|| / ||f||`` for the discrete equation ``A u = f``."""
    if not problem.has("discrete_equation"):
        raise UserError(
            f"loss.residual: the discrete equation of the problem '{problem.kind}' is not available"
        )

    def residual(prediction: Tensor, batch: Samples) -> Tensor:
        sides = problem.discrete_equation(batch.inputs, prediction, grid)
        assert sides is not None
        return rel_l2(*sides).mean()

    return residual
