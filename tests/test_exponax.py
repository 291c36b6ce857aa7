"""Our spectral equations agree with those of exponax, where it is installed."""

import numpy as np
import pytest

from multigrid.grid import Grid
from multigrid.problems import build_problem

exponax = pytest.importorskip("exponax")
GRID, STEPS = Grid((64, 64), "node"), 40


def compare(problem, stepper, state, tolerance, sign=1):
    """Advances a state ``[C, *grid]`` by both, theirs with another sign where that is usual."""
    jax = pytest.importorskip("jax")
    ours = problem._integrator(GRID).advance(state[None], problem.substeps)[0]
    center = problem.kind == "kuramoto_sivashinsky"  # we leave out the mean, which drifts
    theirs = jax.numpy.asarray(sign * state)
    for _ in range(problem.substeps):
        theirs = stepper(theirs)
    theirs = sign * np.asarray(theirs)
    theirs -= center * theirs.mean()
    assert np.linalg.norm(ours - state) > 0.01 * np.linalg.norm(state)
    assert np.linalg.norm(ours - theirs) < tolerance * np.linalg.norm(ours)


@pytest.fixture(autouse=True)
def double_precision():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def first(problem):
    return problem.first_states(GRID, [np.random.default_rng(0)])[0]


def test_decaying_flow():
    problem = build_problem(
        "navier_stokes", forcing="none", viscosity=5e-3, drag=0.1, std=5.0, num_modes=3,
        time_step=0.5, substeps=STEPS,
    )  # fmt: skip
    stepper = exponax.stepper.NavierStokesVorticity(
        2, 1.0, 64, 0.5 / STEPS, diffusivity=5e-3, drag=-0.1, order=4
    )
    compare(problem, stepper, first(problem), 1e-3, sign=-1)  # their vorticity is u_y - v_x


def test_advection_diffusion():
    problem = build_problem("advection_diffusion", speed=0.5, num_modes=4)
    stepper = exponax.stepper.AdvectionDiffusion(2, 1.0, 64, 0.1, velocity=0.5, diffusivity=1e-3)
    compare(problem, stepper, first(problem), 1e-9)


def test_burgers():
    problem = build_problem("burgers", viscosity=0.02, num_modes=2, substeps=STEPS)
    stepper = exponax.stepper.Burgers(2, 1.0, 64, 0.1 / STEPS, diffusivity=0.02, order=4)
    compare(problem, stepper, first(problem), 5e-3)  # products alias in different ways


def test_kuramoto_sivashinsky():
    problem = build_problem("kuramoto_sivashinsky", extent=20.0, substeps=STEPS)
    stepper = exponax.stepper.KuramotoSivashinsky(2, 20.0, 64, 1.0 / STEPS, order=4)
    # Their fourth derivatives are not mixed: the same for waves along one axis.
    state = np.repeat(first(problem)[:, :, :1], 64, axis=2)
    compare(problem, stepper, state - state.mean(), 1e-3)


def test_gray_scott():
    problem = build_problem("gray_scott", num_spots=3, substeps=STEPS, extent=1.0)
    stepper = exponax.stepper.reaction.GrayScott(2, 1.0, 64, 20.0 / STEPS, order=4)
    compare(problem, stepper, first(problem), 3e-2)  # they cut half of the waves
