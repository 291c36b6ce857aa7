from dataclasses import replace
from inspect import signature
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from dirichlet import dirichlet_energy
from scipy.fft import dstn, idstn

from multigrid.config import load_config, parse_config
from multigrid.data.samples import Samples
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.ladder.experiment import Experiment
from multigrid.problems import build_problem
from multigrid.problems.cno import VELOCITY
from multigrid.problems.navier_stokes import velocity, vorticity_advection
from multigrid.problems.series import gaussian_fields, sine_series
from multigrid.registry import PROBLEMS
from multigrid.solvers.exponential_runge_kutta import FourierModes
from multigrid.solvers.finite_elements import solve_between_plates
from multigrid.solvers.finite_volumes import solve_diffusion
from multigrid.training.batches import Orientation, draw, shift_solutions

CELLS, NODES = Grid((16, 16)), Grid((17, 17), "node")
GRIDS = {kind: NODES if kind == "diffusion" else CELLS for kind in PROBLEMS.names()}
TIMES = {"num_starts": 2, "first_start": 0, "resolution": 1, "num_modes": 4}
SMALL = {
    "poisson": {"num_modes": 8},
    "cno_poisson": {"num_modes": 8},
    "wave": {"num_modes": 8},
    "allen_cahn": {"num_modes": 8, "resolution": 16, "rate": 50.0, "time": 1e-3},
    "shear_layer": {"resolution": 16, "thickness": 0.5, "num_modes": 2, "substeps": 50},
    "navier_stokes": {**TIMES, "forcing": "none", "substeps": 8},
    "kuramoto_sivashinsky": {**TIMES, "extent": 20.0},
    "advection_diffusion": {"num_modes": 4},
    "burgers": {"num_starts": 2, "resolution": 1, "num_modes": 2, "viscosity": 0.05},
    "gray_scott": {"num_starts": 2, "first_start": 0, "resolution": 1, "num_spots": 4},
}
FOLDER = Path(__file__).parents[1] / "experiments"
EXPERIMENTS = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("cno/*.yaml")])


def build(kind, **parameters):
    return build_problem(kind, **{**SMALL.get(kind, {}), **parameters})


def rngs(count, first=0):
    return [np.random.default_rng(first + i) for i in range(count)]


every_kind = pytest.mark.parametrize("kind", PROBLEMS.names())


@every_kind
def test_samples_have_the_declared_shape(kind):
    problem, grid = build(kind), GRIDS[kind]
    inputs, outputs = problem.sample(grid, rngs(3))
    assert inputs.shape == (3, len(problem.input_names), *grid.shape)
    assert outputs.shape == (3, len(problem.output_names), *grid.shape)
    assert inputs.dtype == outputs.dtype == np.float64
    assert np.isfinite(inputs).all()
    assert np.isfinite(outputs).all()
    assert inputs.std(axis=0).max() > 0


@every_kind
def test_a_sample_depends_on_its_own_random_numbers_alone(kind):
    problem, grid = build(kind), GRIDS[kind]
    together = problem.sample(grid, rngs(5))
    alone = problem.sample(grid, rngs(1, first=3))
    for many, one in zip(together, alone, strict=True):
        np.testing.assert_allclose(many[3:4], one, rtol=1e-6, atol=1e-6)


@every_kind
def test_parameters_rebuild_the_problem(kind):
    problem, grid = build(kind), GRIDS[kind]
    again = build_problem(kind, **problem.parameters)
    np.testing.assert_array_equal(problem.sample(grid, rngs(1))[1], again.sample(grid, rngs(1))[1])


@every_kind
@pytest.mark.parametrize("factor", [2, 4])
def test_inputs_are_those_of_any_grid(kind, factor):
    nodes = Grid((32, 32), "node") if kind != "diffusion" else Grid((33, 33), "node")
    shape = tuple((n - n % 2) * factor + n % 2 for n in nodes.shape)
    problem = PROBLEMS.get(kind)
    problem = build(kind, **{"num_starts": 1} if problem.time_dependent else {})
    if kind == "shear_layer":  # truncated to the waves of a grid
        return
    coarse = problem.sample(nodes, rngs(1))[0]
    fine = problem.sample(Grid(shape, "node"), rngs(1))[0]
    np.testing.assert_allclose(fine[:, :, ::factor, ::factor], coarse, atol=1e-9)


ANY_DIMENSION = [
    kind for kind in PROBLEMS.names() if "ndim" in signature(PROBLEMS.get(kind)).parameters
]


@pytest.mark.parametrize("kind", ANY_DIMENSION)
@pytest.mark.parametrize("ndim", [1, 3])
def test_samples_on_a_line_and_in_a_cube(kind, ndim):
    grid = Grid((9,) * ndim, "node") if kind == "diffusion" else Grid((8,) * ndim)
    options = {"num_modes": 4} if "num_modes" in signature(PROBLEMS.get(kind)).parameters else {}
    inputs, outputs = build(kind, ndim=ndim, **options).sample(grid, rngs(2))
    assert inputs.shape[2:] == outputs.shape[2:] == grid.shape
    assert np.isfinite(outputs).all()


# Each declared symmetry, by solving anew for the changed input


def solve(problem, inputs, grid):
    """Solves for given inputs, by ways of its own where the problem has none."""
    if problem.kind in ("darcy", "darcy_lognormal"):
        return solve_diffusion(inputs[:, 0], np.ones_like(inputs[:, 0]), grid, 1e-10)[:, None]
    if problem.kind == "poisson_two_phase":
        return solve_diffusion(np.ones_like(inputs[:, 0]), 1 / inputs[:, 0], grid, 1e-10)[:, None]
    if problem.kind == "diffusion":
        return solve_between_plates(np.exp(inputs[:, 0]), grid, 1e-10)[:, None]
    if problem.time_dependent:
        return problem._integrator(grid).advance(inputs, problem.substeps)
    if problem.kind == "allen_cahn":
        n = grid.shape[0]
        last = problem.advance(dstn(inputs[:, 0], 2, axes=(1, 2))[:, :8, :8] / n**2)
        return sine_series(last, grid)
    if problem.kind == "wave":
        return sine_modes(inputs, grid, lambda squares: np.cos(0.5 * np.pi * np.sqrt(squares)))
    return sine_modes(inputs, grid, lambda squares: 1 / (np.pi**2 * squares))


def sine_modes(fields, grid, factor):
    """Multiplies the sines of fields by a function of their squared wavenumbers."""
    k = np.arange(1.0, grid.shape[0] + 1)
    spectrum = dstn(fields, 2, axes=(2, 3)) * factor(np.add.outer(k**2, k**2))
    return idstn(spectrum, 2, axes=(2, 3))


def transformations(symmetries):
    free = [axis for axis in (0, 1) if axis not in symmetries.fixed_axes]
    if symmetries.reflections:
        for axis in free:
            yield lambda x, axis=axis: symmetries.mirror_signs[axis] * np.flip(x, axis + 2)
    if symmetries.rotations and len(free) == 2:
        yield lambda x: min(symmetries.mirror_signs) * x.swapaxes(2, 3)
    if symmetries.shifts:
        yield lambda x: np.roll(x, (3, 5), axis=(2, 3))
    if symmetries.homogeneous:
        yield lambda x: 3.7 * x
    if symmetries.odd:
        yield lambda x: -x
    if symmetries.linear:
        yield lambda x: 2 * x - x[::-1]


@pytest.mark.parametrize("forcing", ["kolmogorov", "diagonal", "none"])
def test_a_flow_is_moved_and_mirrored_as_its_force_allows(forcing):
    problem = build("navier_stokes", forcing=forcing, amplitude=4.0, wavenumber=4, std=3.0)
    inputs, outputs = problem.sample(CELLS, rngs(2))
    samples = Samples(torch.from_numpy(inputs), torch.from_numpy(outputs), CELLS)
    places, drawn = np.arange(2), np.random.default_rng(0)
    orientations = set()
    for _ in range(60):
        change = draw(2, CELLS, problem.symmetries, drawn)
        orientations.add(change.orientation)
        moved = change.apply(samples, places)
        found = solve(problem, moved.inputs.numpy(), CELLS)
        np.testing.assert_allclose(found, moved.outputs, atol=1e-8 * np.abs(outputs).max())
    flips, axes = {o.flips for o in orientations}, {o.axes for o in orientations}
    assert {o.sign for o in orientations} == {1, -1}
    assert flips == ({(), (2, 3)} if forcing == "diagonal" else {(), (2,), (3,), (2, 3)})
    assert axes == ({(2, 3)} if forcing == "kolmogorov" else {(2, 3), (3, 2)})
    assert any(o.distances[0] % 4 for o in orientations)
    if forcing == "kolmogorov":  # by half a wave, two points, with the sign
        assert all(o.distances[1] % 4 == (0 if o.sign > 0 else 2) for o in orientations)
    if forcing == "diagonal":  # by half a wave with the sign, by a quarter the other way
        halves = {(o.flips != (), o.sign, sum(o.distances) % 16) for o in orientations}
        assert halves == {(False, 1, 0), (False, -1, 8), (True, 1, 4), (True, -1, 12)}


def test_a_grid_without_half_a_wave_of_the_force_is_not_mirrored_with_a_sign():
    problem = build("navier_stokes", forcing="kolmogorov", wavenumber=4)
    rng = np.random.default_rng(0)
    drawn = [draw(2, Grid((20, 20)), problem.symmetries, rng).orientation for _ in range(20)]
    assert {(o.flips, o.sign) for o in drawn} == {((), 1), ((2, 3), 1)}


@pytest.mark.parametrize("kind", ["smooth_transport", "discontinuous_transport"])
def test_one_mirror_leaves_the_velocity_of_a_transport_as_it_is(kind):
    problem, places = build(kind), np.arange(3)
    centres = np.random.default_rng(0).uniform(0.2, 0.4, (3, 2))

    def states(centres: np.ndarray) -> Samples:
        moved = (problem.bumps(CELLS, c, np.full(3, 0.1)) for c in (centres, centres + VELOCITY))
        return Samples(*(torch.from_numpy(x) for x in moved), CELLS)

    expected = {
        Orientation((), (2, 3), ()): states(centres),
        Orientation((2, 3), (3, 2), ()): states(1 - centres[:, ::-1]),
    }
    exact = replace(problem.symmetries, linear=False, translations=False)
    rng, orientations = np.random.default_rng(0), set()
    for _ in range(20):
        change = draw(3, CELLS, exact, rng)
        orientations.add(change.orientation)
        found = change.apply(states(centres), places)
        torch.testing.assert_close(found.inputs, expected[change.orientation].inputs)
        torch.testing.assert_close(found.outputs, expected[change.orientation].outputs)
    assert orientations == expected.keys()


@every_kind
def test_declared_symmetries_are_exact(kind):
    if kind in ("shear_layer", "smooth_transport", "discontinuous_transport"):
        return  # their inputs do not determine outputs on a grid; see below
    solved = kind.startswith(("darcy", "diffusion", "poisson_two_phase"))
    problem = build(kind, tolerance=1e-10) if solved else build(kind)
    grid = GRIDS[kind]
    inputs, outputs = problem.sample(grid, rngs(2))
    for change in transformations(problem.symmetries):
        expected, found = change(outputs), solve(problem, change(inputs), grid)
        np.testing.assert_allclose(found, expected, atol=1e-8 * np.abs(outputs).max())
    if problem.symmetries.mode_shifts:
        fields = [torch.from_numpy(x) for x in (inputs, outputs)]
        f, u = shift_solutions(*fields, grid, (3, 1)).numpy().swapaxes(0, 1)[:, :, None]
        np.testing.assert_allclose(solve(problem, f, grid), u, atol=1e-8 * np.abs(outputs).max())


# Gaussian fields


@pytest.mark.parametrize("basis", ["cosine", "periodic"])
def test_gaussian_fields_have_zero_mean_and_unit_variance(basis):
    values = gaussian_fields(Grid((48, 48)).axes(), rngs(400), basis, 2.0, 3.0, 12)
    np.testing.assert_allclose(values.mean(axis=(1, 2)), 0, atol=1e-12)
    assert np.mean(values**2) == pytest.approx(1, abs=0.15)


def test_gaussian_fields_have_the_spectrum_they_claim():
    x = Grid((32, 32)).axes()
    values = gaussian_fields(x, rngs(3000), "cosine", 2.0, 3.0, 6)

    def power(i, j):
        mode = np.multiply.outer(np.cos(i * np.pi * x[0]), np.cos(j * np.pi * x[1]))
        return np.mean((values * mode).mean(axis=(1, 2)) ** 2) / np.mean(mode**2)

    ratio = power(1, 0) / power(2, 1)
    assert ratio == pytest.approx(((5 * np.pi**2 + 9) / (np.pi**2 + 9)) ** 2, rel=0.1)


def test_periodic_fields_have_no_seam():
    values = gaussian_fields(Grid((64, 64)).axes(), rngs(50), "periodic", 2.0, 10.0, 4)
    jumps = np.diff(np.concatenate([values, values[:, :1]], axis=1), axis=1)
    rms = np.sqrt(np.mean(jumps**2, axis=(0, 2)))
    assert rms[-1] < 1.3 * rms.mean()


# Each problem


def test_cno_poisson_is_its_formula():
    problem, grid = build_problem("cno_poisson", num_modes=3), Grid((8, 8))
    f, u = problem.sample(grid, rngs(1))
    a = np.random.default_rng(0).uniform(-1, 1, (3, 3))
    x, y = (t.ravel()[2 * 8 + 5] for t in np.meshgrid(*grid.axes(), indexing="ij"))
    terms = [
        (a[i - 1, j - 1] * np.sin(np.pi * i * x) * np.sin(np.pi * j * y), i**2 + j**2)
        for i in (1, 2, 3)
        for j in (1, 2, 3)
    ]
    assert f[0, 0, 2, 5] == pytest.approx(np.pi / 9 * sum(t * k**0.5 for t, k in terms))
    assert u[0, 0, 2, 5] == pytest.approx(sum(t / k**0.5 for t, k in terms) / (9 * np.pi))


@pytest.mark.parametrize("grid", [CELLS, NODES, Grid((16, 16), "node")], ids=str)
def test_two_phases_and_their_balance(grid):
    a, u = build_problem("darcy").sample(grid, rngs(100))
    assert set(np.unique(a)) == {3.0, 12.0}
    assert np.mean(a == 12) == pytest.approx(0.5, abs=0.05)
    assert u.min() >= 0
    # Between the solutions for the smaller and the larger permeability everywhere.
    assert 0.0737 / 12 < u.max() < 0.0737 / 3


def test_darcy_converges_with_the_grid():
    problem = build_problem("darcy_lognormal")
    means = [problem.sample(Grid((n, n)), rngs(4))[1].mean(axis=(1, 2, 3)) for n in (16, 32, 64)]
    first, second = (np.abs(a - b).max() for a, b in pairwise(means))
    assert second < first / 3


def test_darcy_in_three_dimensions():
    a, u = build_problem("darcy", ndim=3, num_modes=8).sample(Grid((8, 8, 8)), rngs(2))
    assert a.shape == u.shape == (2, 1, 8, 8, 8)
    assert (u > 0).all()


@pytest.mark.parametrize("ndim", [2, 3])
def test_diffusion_obeys_its_boundary_values_and_has_least_energy(ndim):
    problem, grid = build_problem("diffusion", ndim=ndim), Grid((9,) * ndim, "node")
    log_nu, u = problem.sample(grid, rngs(2))
    assert (u[:, :, 0] == 1).all()
    assert (u[:, :, -1] == 0).all()
    x = np.broadcast_to(1 - grid.axes()[0].reshape(-1, *(1,) * (ndim - 1)), u.shape)
    nu = np.exp(log_nu[:, 0])
    least = dirichlet_energy(nu, u[:, 0], grid.spacing)
    for t in (0.01, 1.0):
        other = u + t * (x - u)
        assert (dirichlet_energy(nu, other[:, 0], grid.spacing) > least).all()


def test_log_permeability_is_its_formula():
    log_nu = build_problem("diffusion").sample(Grid((5, 5), "node"), rngs(1))[0]
    w, a = (
        np.random.default_rng(0).uniform(-3, 3, 6),
        np.array([1.7207, 4.0575, 6.8512, 9.8264, 12.8746, 15.9573]),
    )
    amplitude = 1 / (1 + (0.5 * a) ** 2)
    phi = [0.5 * a * np.cos(a * x) + np.sin(a * x) for x in (0.25, 0.75)]
    assert log_nu[0, 0, 1, 3] == pytest.approx(np.sum(w * amplitude * phi[0] * phi[1]))


@pytest.mark.parametrize("grid", [CELLS, Grid((16, 17), "node")], ids=str)
def test_diffusion_wants_boundary_nodes(grid):
    with pytest.raises(UserError, match="problem 'diffusion'"):
        build_problem("diffusion").sample(grid, rngs(1))


def test_a_pair_is_one_step_of_a_trajectory():
    problem = build_problem("reaction_diffusion", num_starts=4)
    for seed in range(4):
        before, after = problem.sample(CELLS, rngs(1, seed))
        states = problem.trajectory(CELLS, np.random.default_rng(seed), 5)
        assert states.shape == (6, 2, 16, 16)
        (place,) = np.flatnonzero(np.abs(states - before).max(axis=(1, 2, 3)) < 1e-9)
        np.testing.assert_allclose(states[place + 1], after[0], atol=1e-9)


def test_reaction_diffusion_is_resolved_in_space_and_time():
    def run(n, substeps):
        problem = build_problem("reaction_diffusion", substeps=substeps, num_modes=4)
        return problem.trajectory(Grid((n, n), "node"), np.random.default_rng(0), 2)

    states = run(48, 10)
    assert np.abs(states - run(96, 10)[..., ::2, ::2]).max() < 5e-5
    assert np.abs(states - run(48, 20)).max() < 5e-5


def test_reaction_diffusion_wants_a_periodic_grid():
    with pytest.raises(UserError, match="must be even"):
        build_problem("reaction_diffusion").sample(NODES, rngs(1))


def test_the_wave_is_its_formula():
    problem, grid = build_problem("wave", num_modes=3, decay=0.5, speed=0.2, time=2.0), CELLS
    first, last = problem.sample(grid, rngs(1))
    a = np.random.default_rng(0).uniform(-1, 1, (3, 3))
    x, y = (t[3, 9] for t in np.meshgrid(*grid.axes(), indexing="ij"))
    for field, factor in ((first, lambda k: 1.0), (last, lambda k: np.cos(0.4 * np.pi * k))):
        expected = sum(
            np.pi
            / 9
            * a[i - 1, j - 1]
            / k
            * factor(k)
            * np.sin(np.pi * i * x)
            * np.sin(np.pi * j * y)
            for i in (1, 2, 3)
            for j in (1, 2, 3)
            for k in (np.hypot(i, j),)
        )
        assert field[0, 0, 3, 9] == pytest.approx(expected)


def test_a_single_mode_in_three_dimensions_swings():
    problem = build_problem("wave", ndim=3, num_modes=1, speed=1.0, time=2 / np.sqrt(3))
    first, last = problem.sample(Grid((6, 6, 6)), rngs(1))
    np.testing.assert_allclose(last, first, atol=1e-12)  # one period


@pytest.mark.parametrize("kind", ["smooth_transport", "discontinuous_transport"])
def test_transport_moves_bumps_along_the_velocity(kind):
    grid = Grid((50, 50))  # the velocity is ten cells
    first, last = build_problem(kind).sample(grid, rngs(20))
    moved = np.zeros_like(first)
    moved[:, :, 10:, :-10] = first[:, :, :-10, 10:]
    inside = (slice(None), slice(None), slice(10, None), slice(None, -10))
    differences = np.abs(last - moved)[inside]
    if kind == "smooth_transport":
        assert differences.max() < 1e-12
    assert np.mean(differences > 1e-6) < 1e-4  # points on a disc's rim may go either way
    assert first.max() <= 1
    assert first.min() >= 0


def test_bumps_have_the_sizes_that_are_asked_for():
    grid = Grid((200, 200))
    disc = build_problem("discontinuous_transport", smallest=0.1, largest=0.1 + 1e-9)
    assert disc.sample(grid, rngs(1))[0].mean() == pytest.approx(np.pi * 0.01, rel=0.01)
    bump = build_problem("smooth_transport", smallest=0.001, largest=0.001 + 1e-9)
    assert bump.sample(grid, rngs(1))[0].mean() == pytest.approx(2 * np.pi * 0.001, rel=0.01)


def test_allen_cahn_without_waves_is_the_logistic_equation_of_squares():
    # Far from the boundary a smooth field u(0) = a grows by the reaction alone.
    problem = build_problem("allen_cahn", num_modes=3, rate=200.0, time=1e-4, resolution=64)
    k = np.arange(1, 64)
    ones = np.where(k % 2, 4 / (np.pi * k), 0) * np.exp(-((k / 25) ** 2))
    last = sine_series(problem.advance(0.05 * np.outer(ones, ones)[None]), Grid((3, 3), "node"))
    growth = np.exp(-2 * 200.0**2 * 1e-4)
    expected = 1 / np.sqrt(1 + (1 / 0.05**2 - 1) * growth)
    assert last[0, 0, 1, 1] == pytest.approx(expected, rel=1e-3)


def test_allen_cahn_is_resolved():
    coarse, fine = (
        build_problem("allen_cahn", resolution=n, substeps=m).sample(Grid((32, 32)), rngs(1))[1]
        for n, m in ((128, 40), (192, 80))
    )
    assert np.linalg.norm(coarse - fine) < 2e-3 * np.linalg.norm(fine)


def taylor_green(grid):
    x, y = np.meshgrid(*grid.axes(), indexing="ij")
    return (4 * np.pi * np.sin(2 * np.pi * x) * np.sin(2 * np.pi * y))[None, None]


def test_a_taylor_green_vortex_decays():
    problem = build_problem(
        "navier_stokes", forcing="none", viscosity=0.01, time_step=0.5, drag=0.1
    )
    w = taylor_green(CELLS)
    later = problem._integrator(CELLS).advance(w, 64)
    decay = np.exp(-0.5 * (0.01 * 8 * np.pi**2 + 0.1))
    np.testing.assert_allclose(later, decay * w, atol=1e-10)


@pytest.mark.parametrize("forcing", ["diagonal", "kolmogorov"])
def test_laminar_flow_under_a_force(forcing):
    options = {"wavenumber": 2, "amplitude": 0.3, "viscosity": 0.05}
    problem = build_problem("navier_stokes", forcing=forcing, **options)
    later = problem._integrator(CELLS).advance(np.zeros((1, 1, 16, 16)), 640)
    square = 8 * np.pi**2 if forcing == "diagonal" else 16 * np.pi**2
    x, y = np.meshgrid(*CELLS.axes(), indexing="ij")
    waves = np.sin(2 * np.pi * (x + y)) + np.cos(2 * np.pi * (x + y))
    wave = waves if forcing == "diagonal" else -np.cos(4 * np.pi * y)
    expected = 0.3 * wave / (0.05 * square) * (1 - np.exp(-10 * 0.05 * square))
    np.testing.assert_allclose(later[0, 0], expected, atol=1e-6)


def test_vorticity_starts_with_the_spectrum_of_the_fno():
    w = build_problem("navier_stokes").first_states(Grid((32, 32), "node"), rngs(200))
    assert w.std() == pytest.approx(0.262, rel=0.05)
    power = (np.abs(np.fft.fft2(w[:, 0], norm="forward")) ** 2).mean(axis=0)
    # Of one of their modes, from their program: (2 * 7^3) (4 pi^2 k^2 + 49)^-2.5
    for k in ((1, 0), (0, 1), (2, 1)):
        expected = 2 * 7**3 * (4 * np.pi**2 * (k[0] ** 2 + k[1] ** 2) + 49) ** -2.5
        assert power[k] == pytest.approx(expected, rel=0.3)


def test_a_blob_is_carried_with_the_mean_flow():
    grid = Grid((32, 32), "node")
    modes = FourierModes(grid)
    x, y = np.meshgrid(*grid.axes(), indexing="ij")
    w = (np.cos(2 * np.pi * x) * np.sin(2 * np.pi * y))[None, None]
    advection = vorticity_advection(modes, np.array([0.5, -0.25]).reshape(1, 2, 1, 1))
    change = modes.to_points(advection(modes.to_modes(w)))[0, 0]
    expected = -np.pi * np.sin(2 * np.pi * x) * np.sin(2 * np.pi * y)
    expected -= 0.5 * np.pi * np.cos(2 * np.pi * x) * np.cos(2 * np.pi * y)
    np.testing.assert_allclose(change, expected, atol=1e-12)


def test_velocity_is_free_of_divergence_and_has_the_vorticity():
    modes = FourierModes(Grid((16, 16), "node"))
    w = modes.resolved * modes.to_modes(np.random.default_rng(0).standard_normal((1, 1, 16, 16)))
    w[..., 0, 0] = 0
    u, v = (velocity(modes) * w)[0]
    dx, dy = modes.gradient
    np.testing.assert_allclose(dx * u + dy * v, 0, atol=1e-12)
    np.testing.assert_allclose(dx * v - dy * u, w[0, 0], atol=1e-12)


def test_the_shear_layer_has_the_range_of_the_published_data():
    problem = build_problem("shear_layer", substeps=1)
    inputs = problem.sample(Grid((64, 64)), rngs(40))[0]
    assert inputs.max() == pytest.approx(1.4, abs=0.08)  # 1.43 over all of their samples
    assert np.abs(inputs.mean(axis=(1, 2, 3))).max() < 0.05


def test_the_shear_layer_moves_with_its_input_and_turns_round_when_mirrored():
    problem = build("shear_layer")
    modes = problem.modes(CELLS)

    def last(profile):  # u_x, at the points of the solver
        mean = profile.mean()
        return modes.to_points((velocity(modes) * problem.advance(profile, modes)[1])[:, :1]) + mean

    def mirrored(x, axis):  # about the first node
        return np.roll(np.flip(x, axis), 1, axis)

    profile = problem._profile(modes.grid, np.random.default_rng(0))[None, None]
    expected = last(profile)
    changes = (
        lambda x: np.roll(x, (3, 5), axis=(2, 3)),
        lambda x: -mirrored(x, 2),
        lambda x: mirrored(x, 3),
    )
    for change in changes:
        np.testing.assert_allclose(last(change(profile)), change(expected), atol=1e-9)
    assert problem.symmetries.mirror_signs == (-1, 1)


def test_a_smooth_shear_layer_stays_as_it_is():
    problem = build_problem("shear_layer", perturbation=0.0, thickness=0.5, resolution=64)
    first, last = problem.sample(Grid((32, 32)), rngs(1))
    assert np.abs(last - first).max() < 0.02


def test_steps_of_the_shear_layer_are_of_fourth_order():
    def last(substeps):
        problem = build("shear_layer", resolution=32, substeps=substeps)
        return problem.sample(Grid((32, 32), "node"), rngs(1))[1]

    *coarse, reference = map(last, (32, 64, 256))
    first, second = (np.abs(found - reference).max() for found in coarse)
    assert 3.4 < np.log2(first / second) < 4.6
    assert second < 1e-3


def test_a_small_wave_grows_as_kuramoto_and_sivashinsky_say():
    problem = build_problem("kuramoto_sivashinsky", extent=12.0, resolution=1)
    x = CELLS.axes()[0]
    k = 2 * np.pi / 12
    u = 1e-6 * np.cos(2 * np.pi * x)[None, None, :, None] * np.ones(16)
    grown = problem._integrator(CELLS).advance(u, problem.substeps)
    np.testing.assert_allclose(grown, np.exp(k**2 - k**4) * u, rtol=1e-5)


def test_advection_diffusion_carries_and_damps_a_wave():
    problem = build_problem("advection_diffusion", ndim=1, speed=0.75, diffusivity=2e-3)
    x = np.arange(32) / 32
    first, last = (np.cos(2 * np.pi * 3 * (x - shift))[None, None] for shift in (0, 0.075))
    later = problem._integrator(Grid((32,), "node")).advance(first, 1)
    np.testing.assert_allclose(later, np.exp(-0.1 * 2e-3 * (6 * np.pi) ** 2) * last, atol=1e-12)


def test_burgers_steepens_as_its_exact_solution():
    # Cole and Hopf: u = -2 nu phi_x / phi, phi the solution of the heat equation.
    nu, t = 0.05, 0.3
    problem = build_problem("burgers", viscosity=nu, time_step=t, substeps=50, resolution=1)
    grid = Grid((64, 64), "node")
    x = grid.axes()[0]

    def exact(t):
        decay = np.exp(-nu * (2 * np.pi) ** 2 * t)
        phi = 2 + decay * np.cos(2 * np.pi * x)
        slope = -2 * np.pi * decay * np.sin(2 * np.pi * x)
        return -2 * nu * slope / phi

    state = np.zeros((1, 2, 64, 64))
    state[0, 0] = exact(0)[:, None]
    later = problem._integrator(grid).advance(state, 50)
    np.testing.assert_allclose(later[0, 0], exact(t)[:, None] * np.ones(64), atol=1e-8)
    assert np.abs(later[0, 1]).max() < 1e-12


def test_gray_scott_rests_where_there_is_no_v():
    problem = build_problem("gray_scott")
    state = np.zeros((1, 2, 8, 8))
    state[:, 0] = 0.3
    later = problem._integrator(Grid((8, 8))).advance(state, problem.substeps)
    expected = 1 - 0.7 * np.exp(-problem.feed * problem.time_step)
    np.testing.assert_allclose(later[:, 0], expected, atol=1e-12)
    np.testing.assert_allclose(later[:, 1], 0, atol=1e-12)


SPECTRAL = {
    "navier_stokes": {"forcing": "kolmogorov", "time_step": 0.5, "viscosity": 1e-2, "std": 3.0},
    "burgers": {"num_modes": 2, "viscosity": 0.02},
    "kuramoto_sivashinsky": {"extent": 20.0},
    "gray_scott": {"num_spots": 3},
    "reaction_diffusion": {"num_modes": 4},
}


@pytest.mark.parametrize("kind", SPECTRAL)
def test_steps_in_time_are_of_fourth_order(kind):
    grid, steps = Grid((32, 32), "node"), (8, 16, 32, 128)

    def state(substeps):
        problem = build_problem(kind, **SPECTRAL[kind], substeps=substeps)
        first = problem.first_states(grid, rngs(1))
        return problem._integrator(grid).advance(first, substeps)

    *coarse, reference = map(state, steps)
    errors = [np.abs(found - reference).max() for found in coarse]
    orders = [np.log2(a / b) for a, b in pairwise(errors)]
    assert 3.4 < orders[-1] < 4.6
    assert errors[-1] < 1e-3 * np.abs(reference).max()


def test_states_are_evaluated_on_coarser_grids_than_solved_on():
    def pair(grid):
        problem = build_problem("navier_stokes", resolution=64, num_starts=1, substeps=4)
        return problem.sample(grid, rngs(1))

    cells, nodes, fine = pair(CELLS), pair(Grid((16, 16), "node")), pair(Grid((64, 64), "node"))
    for coarse, whole in zip(nodes, fine, strict=True):
        np.testing.assert_allclose(coarse, whole[:, :, ::4, ::4], atol=1e-10)
    for coarse, whole in zip(cells, fine, strict=True):
        np.testing.assert_allclose(coarse, whole[:, :, 2::4, 2::4], atol=1e-10)


def test_waves_are_cut_where_fields_are_truncated():
    fine, coarse = Grid((32, 32), "node"), Grid((8, 8))
    modes = FourierModes(fine)

    def field(grid, long, short):
        x, y = np.meshgrid(*grid.axes(), indexing="ij")
        values = long * np.cos(2 * np.pi * (3 * x - 2 * y) + 1) + 0.3
        return (values + short * np.sin(2 * np.pi * (5 * x + 6 * y)))[None, None]

    truncated = modes.truncated(modes.to_modes(field(fine, 1, 1)), coarse)
    np.testing.assert_allclose(truncated, field(coarse, 1, 0), atol=1e-12)
    sampled = modes.sampled(modes.to_modes(field(fine, 1, 1)), coarse)
    np.testing.assert_allclose(sampled, field(coarse, 1, 1), atol=1e-12)


def test_blocks_of_states_follow_each_other():
    options = {**SMALL["navier_stokes"], "num_starts": 1}
    blocks = build_problem("navier_stokes", **options, num_states=3)
    assert blocks.input_names == ("w_0", "w_1", "w_2")
    assert blocks.output_names == ("w_3", "w_4", "w_5")
    inputs, outputs = blocks.sample(CELLS, rngs(1))
    single = build_problem("navier_stokes", **options)
    states = single.trajectory(CELLS, np.random.default_rng(0), 8)[:, 0]
    np.testing.assert_allclose(np.concatenate([inputs, outputs], axis=1)[0], states[:6], atol=1e-9)
    series = blocks.trajectory(CELLS, np.random.default_rng(0), 2)
    np.testing.assert_allclose(series.reshape(9, 16, 16), states, atol=1e-9)


# Experiment files


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_shipped_experiments_are_valid(path):
    experiment = Experiment(load_config(path, ["checkpoints.load=null"]))
    assert experiment.config.name.removeprefix("cno_") == path.stem
    finest = experiment.hierarchy.finest
    problem = experiment.config.pde()
    if not problem.time_dependent:  # which take long, and are in test_experiments.py
        assert len(problem.sample(finest, rngs(1))[0]) == 1


def config(problem, levels=(16, 32), **sections):
    return parse_config({"name": "x", "problem": problem, "levels": list(levels), **sections})


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        ({"kind": "poison"}, "problem.kind: \"poison\" is not allowed; .*; did you mean 'poisson'"),
        ({"kind": "darci"}, r"one of .*darcy, .*; did you mean 'darcy'\?"),
        ({}, "problem.kind: missing; it must be one of .*poisson"),
        ({"kind": 3}, "problem.kind: 3 is not allowed"),
        (3, "problem: 3 is not allowed; it must be a mapping with the key 'kind'"),
        ({"kind": "darcy", "hihg": 3}, "problem.hihg: unknown key; .*; did you mean 'high'"),
        ({"kind": "darcy", "log_std": 1.0}, "problem.log_std: unknown key; allowed here: kind,"),
        ({"kind": "darcy", "ndim": 5}, "problem.ndim: 5 is not allowed; it must be the number of"),
        ({"kind": "cno_poisson", "num_modes": 64}, "problem.num_modes: 64 sine modes .* at most"),
        ({"kind": "darcy", "ndim": 3, "num_modes": 1024}, "num_modes: 1024 modes .* at most 255"),
        ({"kind": "diffusion"}, "data.centering: problem 'diffusion' has boundary values"),
    ],
)
def test_mistakes_in_the_problem(problem, sentence):
    with pytest.raises(UserError, match=sentence):
        config(problem)


@pytest.mark.parametrize("kind", [kind for kind in PROBLEMS.names() if kind != "diffusion"])
def test_modes_are_shifted_where_the_problem_declares_it_and_refused_elsewhere(kind):
    problem = {"kind": kind, **SMALL.get(kind, {})}
    if PROBLEMS.get(kind).symmetries.mode_shifts:
        config(problem, data={"mode_shifts": 0.5})
        return
    sentence = f"data.mode_shifts: .* cno_poisson and poisson only, not for '{kind}'; it must be 0"
    with pytest.raises(UserError, match=sentence):
        config(problem, data={"mode_shifts": 0.5})


@pytest.mark.parametrize(
    ("levels", "centering", "num_modes", "sentence"),
    [
        ([16, 32], "cell", 16, None),
        ([16, 32], "cell", 17, r"levels\[0\], 16x16, tells apart 16 sine modes only, .*, 17; it"),
        ([17, 33], "node", 15, None),
        ([17, 33], "node", 16, r"levels\[0\], 17x17, tells apart 15 sine modes only, .*, 16; it"),
        ([16, 32], "node", 16, "tells apart 15 sine modes only"),
        ([4, 26], "node", 3, "tells apart 0 sine modes only"),
    ],
)
def test_modes_are_shifted_on_grids_that_tell_them_apart(levels, centering, num_modes, sentence):
    problem, data = {"kind": "poisson", "num_modes": num_modes}, {"centering": centering}
    config(problem, levels, data=data)
    if sentence is None:
        config(problem, levels, data={**data, "mode_shifts": 0.5})
        return
    with pytest.raises(UserError, match=f"data.mode_shifts: .*{sentence}"):
        config(problem, levels, data={**data, "mode_shifts": 0.5})


def test_modes_are_shifted_on_the_grid_of_the_fields():
    problem, data = {"kind": "poisson", "num_modes": 32}, {"mode_shifts": 0.5}
    for sections in ({"schedule": {"cycle": "single"}}, {"model": {"fields": "folded"}}):
        config(problem, [16, 32], data=data, **sections)
        nodes = {**data, "centering": "node"}
        with pytest.raises(UserError, match=r"levels\[1\], 32x32, tells apart 31 sine modes only"):
            config(problem, [16, 32], data=nodes, **sections)


def test_grids_that_do_not_suit_the_problem():
    node = {"data": {"centering": "node"}}
    with pytest.raises(UserError, match=r"levels\[0\]: .* odd sizes such as 17x17, not 16x16"):
        config({"kind": "diffusion"}, (16, 31), **node)
    with pytest.raises(UserError, match=r"levels\[1\]: problem 'reaction_diffusion' is periodic"):
        config({"kind": "reaction_diffusion"}, (17, 33), **node)
    assert config({"kind": "diffusion"}, (17, 33), **node).problem.kind == "diffusion"


@every_kind
def test_configuration_and_constructor_have_the_same_defaults(kind):
    grid = {"levels": (33, 65), "data": {"centering": "node"}} if kind == "diffusion" else {}
    settings = config({"kind": kind}, **{"levels": (32, 64), **grid}).problem.model_dump()
    assert build_problem(**settings).parameters == PROBLEMS.get(kind)().parameters


def test_linear_networks_are_for_linear_problems():
    model = {"activation": "none"}
    assert config({"kind": "wave"}, model=model).model.activation == "none"
    file = {"kind": "file", "file": "a.npz"}
    config({**file, "symmetries": ["linear"]}, model=model)
    for problem in ({"kind": "darcy"}, file):
        why = f"\"none\" is for linear problems: .*wave.*, not for '{problem['kind']}'"
        with pytest.raises(UserError, match=f"model.activation: {why}"):
            config(problem, model=model)
