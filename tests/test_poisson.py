import numpy as np
import pytest
from sine import solve_poisson

from multigrid.grid import Grid
from multigrid.problems import build_problem
from multigrid.problems.elliptic import Poisson


def rngs(*seeds):
    return [np.random.default_rng(seed) for seed in seeds]


def residual(f, u, grid):
    """Largest ``-Laplace_h(u) - f`` at the inner points."""
    axes = range(2, u.ndim)
    inner = (..., *(slice(1, -1) for _ in axes))
    laplace = np.zeros_like(u[inner])
    for axis, h in zip(axes, grid.spacing, strict=True):
        second = np.diff(u, n=2, axis=axis) / h**2
        others = [slice(None) if a == axis else slice(1, -1) for a in axes]
        laplace += second[(..., *others)]
    return np.abs(laplace + f[inner]).max()


@pytest.mark.parametrize(
    ("ndim", "sizes"), [(2, [16, 32, 64, 128]), (3, [12, 24, 48])], ids=["2d", "3d"]
)
@pytest.mark.parametrize(("centering", "odd"), [("cell", 0), ("node", 0), ("node", 1)])
def test_finite_difference_residual_is_of_second_order(ndim, sizes, centering, odd):
    problem = Poisson(ndim, num_modes=3)
    residuals = []
    for n in sizes:
        grid = Grid((n + odd,) * ndim, centering)
        residuals.append(residual(*problem.sample(grid, rngs(0)), grid))
    order = -np.polyfit(np.log(sizes), np.log(residuals), 1)[0]
    assert order == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize(
    "grid",
    [
        Grid((24, 24)),
        Grid((16, 40)),
        Grid((25, 33), "node"),
        Grid((24, 24), "node"),
        Grid((12, 16, 20)),
        Grid((13, 17, 13), "node"),
    ],
    ids=str,
)
def test_agrees_with_a_fast_sine_transform_solver(grid):
    f, u = Poisson(grid.ndim, num_modes=8).sample(grid, rngs(0, 1))
    assert f.shape == u.shape == (2, 1, *grid.shape)
    np.testing.assert_allclose(solve_poisson(f, grid), u, atol=1e-12 * np.abs(u).max())


@pytest.mark.parametrize("sizes", [(17, 33), (16, 32), (43, 85)])
def test_nested_node_grids_share_their_points(sizes):
    coarse, fine = (Grid((n, n), "node") for n in sizes)
    problem = Poisson(num_modes=20)
    for on_coarse, on_fine in zip(
        problem.sample(coarse, rngs(3)), problem.sample(fine, rngs(3)), strict=True
    ):
        np.testing.assert_allclose(on_coarse, on_fine[..., ::2, ::2], atol=1e-13)


def test_boundary_values_vanish_on_closed_node_grids():
    for field in Poisson(num_modes=8).sample(Grid((17, 17), "node"), rngs(0)):
        for edge in (field[..., 0, :], field[..., -1, :], field[..., 0], field[..., -1]):
            assert np.abs(edge).max() < 1e-13


def test_a_sample_depends_on_its_own_generator_alone():
    problem, grid = Poisson(num_modes=8), Grid((16, 16))
    f, u = problem.sample(grid, rngs(1, 2, 3))
    alone_f, alone_u = problem.sample(grid, rngs(2))
    np.testing.assert_allclose(f[1:2], alone_f, atol=1e-14)
    np.testing.assert_allclose(u[1:2], alone_u, atol=1e-14)
    assert np.abs(f[0] - f[1]).max() > 0.1


def test_right_hand_side_has_variance_of_order_one():
    f, _ = Poisson(num_modes=32).sample(Grid((32, 32)), rngs(*range(64)))
    assert 0.7 < np.sqrt(np.mean(f**2)) < 1.3


def test_spectrum_follows_its_parameters():
    grid, fields = Grid((64, 64)), {}
    for smoothness in (1.0, 3.0):
        f, _ = Poisson(smoothness=smoothness, num_modes=32).sample(grid, rngs(*range(16)))
        fields[smoothness] = np.mean(np.diff(f, axis=-1) ** 2) / np.mean(f**2)
    assert fields[1.0] > 2 * fields[3.0]


def test_build_problem_restores_from_parameters():
    problem = build_problem("poisson", ndim=3, num_modes=4, smoothness=1.5)
    again = build_problem("poisson", **problem.parameters)
    grid = Grid((8, 8, 8))
    np.testing.assert_array_equal(again.sample(grid, rngs(0)), problem.sample(grid, rngs(0)))
