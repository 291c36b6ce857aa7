"""Preconditioned conjugate gradients for many systems at once."""

from collections.abc import Callable

import numpy as np

from multigrid.errors import UserError

Operator = Callable[[np.ndarray], np.ndarray]

MAX_ITERATIONS = 1000
# Error reduction, well above the rounding of float32, after which the residual is recomputed.
REPLACEMENT = 1e-3


def conjugate_gradients(
    operator: Operator,
    right_side: np.ndarray,
    preconditioner: Operator,
    tolerance: float,
    single: bool = False,
) -> np.ndarray:
    """Solves ``A_n x_n = b_n`` for symmetric positive definite ``A_n``, starting from zero.

    A system is finished when ``r . M^-1 r <= tolerance^2 * b . M^-1 b``, with the residual r and
    the preconditioner M. Where M resembles A this is the relative error in the energy norm.
    Finished systems stay as they are while others go on, so that no system depends on another.

    The operator maps ``[N, ...]`` to ``A_n x_n``, the preconditioner residuals to ``M_n^-1 r_n``,
    both in the precision of their arguments. With ``single`` the iteration is in float32, which is
    faster; the solution is still summed up, and the residual recomputed now and then, in float64
    like the right-hand sides ``b_n``, ``[N, ...]``, so that any tolerance is met.

    Raises:
        UserError: If a system has not converged after many iterations.
    """
    total = np.zeros_like(right_side)
    residual: np.ndarray = right_side.astype(np.float32 if single else np.float64)
    values, scratch = np.zeros_like(residual), np.empty_like(residual)
    step = np.array(preconditioner(residual))
    energy = _dot(residual, step)
    goal, reference = tolerance**2 * energy, energy
    active = energy > goal
    iterations = 0
    while active.any():
        if iterations == MAX_ITERATIONS:
            raise UserError(
                f"{active.sum()} of {len(active)} linear systems have not converged to "
                f"{tolerance:g} after {iterations} iterations of conjugate gradients; a lower "
                "contrast of the coefficients or a larger tolerance may help"
            )
        image = operator(step)
        length = _divide(energy, _dot(step, image), active)
        values += np.multiply(_wide(length, step), step, out=scratch)
        residual -= np.multiply(_wide(length, step), image, out=scratch)
        correction = preconditioner(residual)
        previous, energy = energy, np.where(active, _dot(residual, correction), energy)
        step *= _wide(_divide(energy, previous, active), step)
        step += correction
        iterations += 1
        active = energy > goal
        if single and active.any() and (energy < REPLACEMENT**2 * reference)[active].all():
            total += values
            values[...] = 0
            residual[...] = right_side - operator(total)
            reference = energy
    return total + values


def _dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    n = len(x)
    return np.einsum("ni,ni->n", x.reshape(n, -1), y.reshape(n, -1))


def _divide(x: np.ndarray, y: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.divide(x, y, out=np.zeros_like(x), where=where)


def _wide(factors: np.ndarray, like: np.ndarray) -> np.ndarray:
    return factors.reshape(-1, *(1,) * (like.ndim - 1))
