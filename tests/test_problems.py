from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from dirichlet import dirichlet_energy
from scipy.fft import dstn, idstn

from multigrid.config import load_config, parse_config
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.ladder.experiment import Experiment
from multigrid.problems import build_problem
from multigrid.problems.random_fields import GaussianField
from multigrid.registry import PROBLEMS
from multigrid.solvers.finite_elements import solve_between_plates
from multigrid.solvers.finite_volumes import solve_diffusion
from multigrid.solvers.sine_modes import shift_solutions

CELLS, NODES = Grid((16, 16)), Grid((17, 17), "node")
GRIDS = {kind: NODES if kind == "diffusion" else CELLS for kind in PROBLEMS.names()}
SMALL = {"poisson": {"num_modes": 8}, "cno_poisson": {"num_modes": 8}}
EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").glob("*.yaml"))


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
    problem = build(kind, num_starts=1) if kind == "reaction_diffusion" else build(kind)
    coarse = problem.sample(nodes, rngs(1))[0]
    fine = problem.sample(Grid(shape, "node"), rngs(1))[0]
    np.testing.assert_allclose(fine[:, :, ::factor, ::factor], coarse, atol=1e-9)


# Each declared symmetry, by solving anew for the changed input


def solve(problem, inputs, grid):
    """Solves for given inputs, by ways of its own where the problem has none."""
    if problem.kind in ("darcy", "darcy_lognormal"):
        return solve_diffusion(inputs[:, 0], np.ones_like(inputs[:, 0]), grid, 1e-10).values[
            :, None
        ]
    if problem.kind == "poisson_two_phase":
        return solve_diffusion(np.ones_like(inputs[:, 0]), 1 / inputs[:, 0], grid, 1e-10).values[
            :, None
        ]
    if problem.kind == "diffusion":
        return solve_between_plates(np.exp(inputs[:, 0]), grid, 1e-10).values[:, None]
    if problem.kind == "reaction_diffusion":
        return problem._integrator(grid).advance(inputs, problem.substeps)
    axes = (2, 3)
    frequencies = np.pi * np.arange(1, grid.shape[0] + 1)
    return idstn(
        dstn(inputs, 2, axes=axes) / np.add.outer(frequencies**2, frequencies**2), 2, axes=axes
    )


def transformations(symmetries):
    free = [axis for axis in (0, 1) if axis not in symmetries.fixed_axes]
    if symmetries.reflections:
        for axis in free:
            yield partial(np.flip, axis=axis + 2)
    if symmetries.rotations and len(free) == 2:
        yield lambda x: x.swapaxes(2, 3)
    if symmetries.shifts:
        yield lambda x: np.roll(x, (3, 5), axis=(2, 3))
    if symmetries.homogeneous:
        yield lambda x: 3.7 * x
    if symmetries.linear:
        yield lambda x: 2 * x - x[::-1]


@every_kind
def test_declared_symmetries_are_exact(kind):
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
    field = GaussianField(2, basis, 2.0, 3.0, 12)
    values = field.sample(Grid((48, 48)).axes(), rngs(400))
    np.testing.assert_allclose(values.mean(axis=(1, 2)), 0, atol=1e-12)
    assert np.mean(values**2) == pytest.approx(1, abs=0.15)


def test_gaussian_fields_have_the_spectrum_they_claim():
    field = GaussianField(2, "cosine", 2.0, 3.0, 6)
    x = Grid((32, 32)).axes()
    values = field.sample(x, rngs(3000))

    def power(i, j):
        mode = np.multiply.outer(np.cos(i * np.pi * x[0]), np.cos(j * np.pi * x[1]))
        return np.mean((values * mode).mean(axis=(1, 2)) ** 2) / np.mean(mode**2)

    ratio = power(1, 0) / power(2, 1)
    assert ratio == pytest.approx(((5 * np.pi**2 + 9) / (np.pi**2 + 9)) ** 2, rel=0.1)


def test_periodic_fields_have_no_seam():
    values = GaussianField(2, "periodic", 2.0, 10.0, 4).sample(Grid((64, 64)).axes(), rngs(50))
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
    with pytest.raises(UserError, match="diffusion needs a node-centred grid with odd sizes"):
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
    with pytest.raises(UserError, match="even sizes"):
        build_problem("reaction_diffusion").sample(NODES, rngs(1))


# Experiment files


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_shipped_experiments_are_valid(path):
    experiment = Experiment(load_config(path, ["checkpoints.load=null"]))
    assert experiment.config.name == path.stem
    finest = experiment.hierarchy.finest
    problem = build_problem(**experiment.config.problem.model_dump())
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
    sentence = f"data.mode_shifts: modes .* cno_poisson and poisson only; for '{kind}' it must be 0"
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
