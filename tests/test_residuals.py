"""The residual of a PDE as a further term of the loss."""

import re

import numpy as np
import pytest
import torch
from tiny import SECTIONS

from multigrid.config import parse_config
from multigrid.data.samples import Samples
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.ladder.experiment import Experiment
from multigrid.ladder.ladder import LadderRun
from multigrid.metrics import rel_l2
from multigrid.problems import build_problem
from multigrid.problems.elliptic import Diffusion, Poisson
from multigrid.records.run_folder import RunFolder
from multigrid.registry import PROBLEMS
from multigrid.solvers.finite_volumes import (
    DiffusionOperator,
    apply_diffusion,
    closed_axes,
    equations,
    unknowns,
)
from multigrid.training.losses import build_loss

WITH_RESIDUAL = ("poisson", "cno_poisson", "darcy", "darcy_lognormal", "poisson_two_phase")
GRIDS = [
    Grid((6, 9)),
    Grid((7, 9), "node"),
    Grid((6, 8), "node"),
    Grid((5, 8), "node"),
    Grid((4, 5, 6)),
    Grid((5, 7, 6), "node"),
]
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid}-{grid.centering}")


def sample(kind, grid, count=2, **parameters):
    """Input and output fields as float64 tensors."""
    rngs = [np.random.default_rng(i) for i in range(count)]
    arrays = build_problem(kind, **parameters).sample(grid, rngs)
    return tuple(torch.from_numpy(array) for array in arrays)


def residual(kind, inputs, outputs, grid):
    return rel_l2(*build_problem(kind).discrete_equation(inputs, outputs, grid))


# The discrete equation


def test_fluxes_by_hand():
    a, u = torch.tensor([[2.0, 6.0]]), torch.tensor([[1.0, 10.0]])
    inner, left, right = 3.0, 2 * 2.0, 2 * 6.0
    expected = [left * 1 + inner * (1 - 10), right * 10 + inner * (10 - 1)]
    torch.testing.assert_close(apply_diffusion(a, u, Grid((2,)))[0], 4 * torch.tensor(expected))


def test_values_on_the_boundary_count_as_zero():
    a, u = torch.ones(1, 5), torch.tensor([[7.0, 1.0, 3.0, 2.0, 7.0]])
    closed = apply_diffusion(a, u, Grid((5,), "node"))
    torch.testing.assert_close(closed, 16 * torch.tensor([[2 - 3.0, 6 - 3.0, 4 - 3.0]]))
    periodic = apply_diffusion(a, u, Grid((5,), "node", (0.2,)))
    torch.testing.assert_close(periodic, 25 * torch.tensor([[2 - 3.0, 6 - 3.0, 4 - 10.0]]))
    assert u[0, 0] == 7


@every_grid
def test_it_is_the_matrix_of_the_solver(grid):
    rng = np.random.default_rng(0)
    a = rng.uniform(1, 10, (2, *(len(x) for x in closed_axes(grid))))
    u = np.zeros((2, *grid.shape))
    where = (slice(None), *unknowns(grid))
    u[where] = rng.standard_normal(u[where].shape)
    image = np.full_like(u, np.nan)
    image[where] = DiffusionOperator(a, grid)(u[where])
    on_grid = a[(slice(None), *(slice(n) for n in grid.shape))]
    expected = image[(slice(None), *equations(grid))]
    np.testing.assert_allclose(apply_diffusion(on_grid, u, grid), expected, rtol=1e-11, atol=1e-9)
    by_torch = apply_diffusion(torch.from_numpy(on_grid), torch.from_numpy(u), grid)
    np.testing.assert_allclose(by_torch, expected, rtol=1e-11, atol=1e-9)


@every_grid
def test_gradients(grid):
    generator = torch.Generator().manual_seed(0)
    a = 1 + torch.rand(1, *grid.shape, generator=generator, dtype=torch.float64)
    u = torch.randn(1, *grid.shape, generator=generator, dtype=torch.float64)
    a.requires_grad_()
    u.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, u: apply_diffusion(a, u, grid), (a, u))


# Samples


@pytest.mark.parametrize("kind", ["darcy", "darcy_lognormal"])
@pytest.mark.parametrize(
    "grid",
    [Grid((32, 32)), Grid((33, 17), "node"), Grid((32, 24), "node"), Grid((8, 12, 10))],
    ids=lambda grid: f"{grid}-{grid.centering}",
)
def test_what_the_solver_finds_has_no_residual(kind, grid):
    loose, tight = (
        residual(kind, *sample(kind, grid, ndim=grid.ndim, tolerance=tolerance), grid).max()
        for tolerance in (1e-6, 1e-10)
    )
    assert loose < 1e-4
    assert tight < 1e-8


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [("poisson", {"num_modes": 8}), ("poisson", {"ndim": 3, "num_modes": 4}), ("cno_poisson", {})],
)
@pytest.mark.parametrize("centering", ["cell", "node"])
@pytest.mark.parametrize("odd", [0, 1])
def test_exact_solutions_fulfil_it_to_second_order(kind, parameters, centering, odd):
    ndim = parameters.get("ndim", 2)
    sizes = (16, 32, 64) if ndim == 3 else (64, 128, 256)
    grids = [Grid((n + odd,) * ndim, centering) for n in sizes]
    norms = [residual(kind, *sample(kind, g, **parameters), g).mean() for g in grids]
    spacings = [grid.spacing[0] for grid in grids]
    slope = np.polyfit(np.log(spacings), np.log(norms), 1)[0]
    assert slope == pytest.approx(2, abs=0.1)
    assert norms[-1] < 1e-2


def test_nodes_short_of_the_right_end():
    short = Grid((86, 86), "node", (1 / 85,) * 2).coarsen()
    assert not short.is_symmetric(0)
    assert residual("poisson", *sample("poisson", short, num_modes=4), short).max() < 0.02


def test_single_precision_is_enough():
    grid = Grid((128, 128))
    inputs, outputs = sample("darcy", grid, tolerance=1e-8)
    assert residual("darcy", inputs.float(), outputs.float(), grid).max() < 1e-3


# The term


@pytest.mark.parametrize("kind", WITH_RESIDUAL)
def test_it_is_added_with_its_weight(kind, generator):
    grid = Grid((64, 64))
    inputs, outputs = (field.float() for field in sample(kind, grid))
    batch = Samples(inputs, outputs, grid)
    prediction = outputs * (1 + 0.1 * torch.rand(outputs.shape, generator=generator))
    problem = build_problem(kind)
    plain, weighted = (build_loss("rel_l2", grid, problem, w)(prediction, batch) for w in (0, 0.3))
    term = residual(kind, inputs, prediction, grid).mean()
    assert term > 1e-2
    torch.testing.assert_close(weighted, plain + 0.3 * term)


def test_residual_by_hand():
    grid = Grid((3,), "node")
    f, u = torch.tensor([[[0.0, 4.0, 0.0]]]), torch.tensor([[[0.0, 1.0, 0.0]]])
    # -u'' is 4 (2 u) = 8, f is 4
    loss = build_loss("mse", grid, Poisson(ndim=1), residual=2.0)
    assert loss(u, Samples(f, u, grid)).item() == pytest.approx(2.0)


def test_no_prediction_at_all_has_the_residual_one():
    grid = Grid((16, 16))
    inputs, outputs = sample("darcy", grid)
    torch.testing.assert_close(
        residual("darcy", inputs, 0 * outputs, grid), torch.ones(2, dtype=torch.float64)
    )


def finest_residual(folder, weight):
    """Trains for a while and returns the mean residual of the predictions for the test samples."""
    problem = {"kind": "poisson", "num_modes": 4}
    raw = {
        **SECTIONS,
        "problem": problem,
        "data": {**SECTIONS["data"], "train": 64, "folder": str(folder / "data")},
        "schedule": {**SECTIONS["schedule"], "epochs": 6},
        "loss": {"residual": weight},
    }
    path = folder / str(weight)
    path.mkdir()
    run = LadderRun(Experiment(parse_config(raw)), RunFolder(path))
    run.train()
    samples, surrogate = run.data.test, run.best_surrogate(1)
    with torch.no_grad():
        prediction = surrogate(samples.inputs)
    return residual("poisson", samples.inputs, prediction, samples.grid).mean()


def test_a_run_with_the_term_lowers_it(tmp_path):
    without, with_term = (finest_residual(tmp_path, weight) for weight in (0.0, 0.3))
    assert with_term < 0.7 * without


# What is not known


def config(kind, weight=0.1, **sections):
    return {**SECTIONS, "problem": {"kind": kind}, "loss": {"residual": weight}, **sections}


@pytest.mark.parametrize(
    ("kind", "sections"),
    [
        ("diffusion", {"levels": [9, 17], "data": {"centering": "node"}}),
        ("reaction_diffusion", {}),
        ("file", {"problem": {"kind": "file", "file": "some.h5"}}),
    ],
)
def test_problems_without_residual_are_told_those_with_one(kind, sections):
    with pytest.raises(UserError) as caught:
        parse_config(config(kind, **sections))
    names = ", ".join(kind for kind in PROBLEMS.names() if kind in WITH_RESIDUAL)
    why = f"needs the residual, which the problems {names} have, but not '{kind}'; it must be 0.0"
    assert re.fullmatch(rf"configuration: loss\.residual: \S+ {why}", str(caught.value))
    parse_config(config(kind, weight=0, **sections))


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), "1", None])
def test_impossible_weights(weight):
    with pytest.raises(UserError, match=r"loss\.residual: .* it must be the weight of at least 0"):
        parse_config(config("darcy", weight))


def test_the_check_knows_all_problems_that_have_one():
    able = {kind for kind in PROBLEMS.names() if PROBLEMS.get(kind).has("discrete_equation")}
    assert able == set(WITH_RESIDUAL)


def test_a_loss_cannot_be_built_without():
    with pytest.raises(UserError, match=r"loss\.residual: .* 'diffusion' is not available"):
        build_loss("energy", Grid((5, 5), "node"), Diffusion(), residual=1.0)
