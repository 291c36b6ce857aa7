"""What is minimised: errors or an energy, and the residual of the PDE, as means over a batch."""

from collections.abc import Callable

from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.energy_gap import EnergyGap
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.metrics import mse, rel_h1, rel_l1, rel_l2
from multigrid.problems import Diffusion, EllipticPDE, Problem

Loss = Callable[[Tensor, Samples], Tensor]

# Of the energy; errors below a thousandth of a per cent count as none.
SMALLEST_GAP = 1e-10


def build_loss(name: str, grid: Grid, problem: Problem, residual: float = 0.0) -> Loss:
    """Returns a loss: a prediction ``[N, out, *grid]`` and a batch to one number.

    Args:
        name: ``rel_l2``, ``rel_l1``, ``rel_h1``, ``mse`` or ``energy``.
        grid: Grid of the fields.
        problem: The PDE, which knows its energy or its discrete equation.
        residual: Weight of the relative L2 norm of the discrete equation's residual, mean over
            samples, that is added. See ``EllipticPDE.equation`` for what it is of the labels, on
            coarse levels above all.

    Raises:
        UserError: If the problem has no energy, or no equation to take the residual of.
    """
    error = _build_error(name, grid, problem)
    if residual == 0:
        return error
    equation = _residual(problem, grid)
    return lambda prediction, batch: (
        error(prediction, batch) + residual * equation(prediction, batch)
    )


def _build_error(name: str, grid: Grid, problem: Problem) -> Loss:
    """Returns the loss without the residual."""
    if name == "energy":
        return _energy(problem, grid)
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


def _energy(problem: Problem, grid: Grid) -> Loss:
    """Returns the mean relative error in the energy norm, without knowing the solution.

    For the solution u* between the plates, ``|u - u*|^2 / |u|^2 = (E(u) - E(u*)) / E(u)``. The
    energy itself would do, having the same minimiser; but it is quadratic in the error, so that
    the worst samples alone have a say, and hardly any once the error is small. The estimated gap
    makes it a norm: it is taken for a constant, and the gradient is that of ``E(u)``, weighted.
    """
    if not isinstance(problem, Diffusion):
        raise UserError(f"loss.name: 'energy' is not known for the problem '{problem.kind}'")
    estimate = EnergyGap(problem, grid)

    def energy(prediction: Tensor, batch: Samples) -> Tensor:
        energies = problem.energy(batch.inputs, prediction, grid.spacing)
        gap = estimate(batch.inputs, prediction).clamp_min(SMALLEST_GAP * energies.detach())
        error = (gap / energies.detach()).sqrt()
        descent = (energies - energies.detach()) / gap
        return (error * (1 + 0.5 * descent)).mean()

    return energy
