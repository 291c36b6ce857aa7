"""What is minimised: errors or an energy, and the residual of the PDE, as means over a batch."""

from collections.abc import Callable

from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.metrics import mse, rel_h1, rel_l1, rel_l2
from multigrid.problems import Diffusion, EllipticPDE, Problem
from multigrid.solvers.energy_descent import EnergyDescent

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
            samples, that is added. See ``EllipticPDE.equation`` for what it is of the labels, on
            coarse levels above all.
        finer: Grid whose energy is to be least; by default the fields' own.
        prolongation: Polynomial degree of the prolongation to it.

    Raises:
        UserError: If the problem has no energy, or no equation to take the residual of.
    """
    if name == "energy":
        error = _energy(problem, grid, finer or grid, prolongation)
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
    if not isinstance(problem, EllipticPDE):
        raise UserError(
            f"loss.residual: the discrete equation of the problem '{problem.kind}' is not known"
        )

    def residual(prediction: Tensor, batch: Samples) -> Tensor:
        return rel_l2(*problem.equation(batch.inputs, prediction, grid)).mean()

    return residual


def _energy(problem: Problem, grid: Grid, finer: Grid, degree: int) -> Loss:
    """Returns the mean relative L2 norm of what a few solver steps change to lower the energy.

    It is zero for the solution alone, which is not known, and outputs are pulled along the steps.
    The energy itself would do, having the same minimiser. But it is quadratic in the error and
    its gradient sees short waves above all, so that the last digits are learnt slowly.

    The energy is that of the next finer level's grid, to which coefficients and outputs are
    prolonged: coarse levels then approximate its solution and not that of their own grid, which
    differ by far more than prolongation costs (0.6 % against 0.014 % on 33x33 nodes below 65x65).
    """
    if not isinstance(problem, Diffusion):
        raise UserError(f"loss.name: 'energy' is not known for the problem '{problem.kind}'")
    descend = EnergyDescent(grid, finer, degree)

    def energy(prediction: Tensor, batch: Samples) -> Tensor:
        change = descend(batch.inputs[:, 0], prediction[:, 0])
        return rel_l2(prediction, prediction.detach() + change[:, None]).mean()

    return energy
