from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from dirichlet import dirichlet_energy

from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.solvers import conjugate_gradients as cg
from multigrid.solvers.conjugate_gradients import conjugate_gradients
from multigrid.solvers.exponential_runge_kutta import ExponentialRungeKutta, FourierModes
from multigrid.solvers.finite_elements import FastElements, StiffnessOperator, solve_between_plates
from multigrid.solvers.finite_volumes import (
    DiffusionOperator,
    FastPoisson,
    closed_axes,
    solve_diffusion,
    unknowns,
)

GRIDS = [Grid((6, 9)), Grid((7, 9), "node"), Grid((6, 8), "node"), Grid((4, 5, 6))]
TWO_PHASE = [Grid((32, 32)), Grid((33, 33), "node"), Grid((32, 32), "node")]


def order(sizes, errors):
    return -np.polyfit(np.log(sizes), np.log(errors), 1)[0]


def matrix_of(operator, shape):
    size = int(np.prod(shape))
    return np.stack([operator(e.reshape(1, *shape)).ravel() for e in np.eye(size)], axis=1)


def assemble(a, grid):
    """The matrix of -div(a grad u), a given as ``[*grid]`` at cells, u = 0 on the boundary.

    Written otherwise than the solver: differences across all faces, times the faces' coefficients,
    times the transposed differences.
    """
    eyes = [scipy.sparse.eye_array(n) for n in grid.shape]
    total = 0
    for axis, (n, h) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
        difference = scipy.sparse.diags_array([1.0, -1.0], offsets=[0, -1], shape=(n + 1, n)) / h
        gradient = reduce(scipy.sparse.kron, [*eyes[:axis], difference, *eyes[axis + 1 :]])
        inverse = 1 / np.moveaxis(a, axis, 0)
        inner = (inverse[:-1] + inverse[1:]) / 2
        resistance = np.concatenate([inverse[:1] / 2, inner, inverse[-1:] / 2])
        conductance = scipy.sparse.diags_array(1 / np.moveaxis(resistance, 0, axis).ravel())
        total = total + gradient.T @ conductance @ gradient
    return scipy.sparse.csc_array(total)


def positive_field(axes, rng, num_samples=1):
    phase = rng.uniform(0, 6, (num_samples, *(1,) * len(axes)))
    points = np.meshgrid(*axes, indexing="ij")
    return np.exp(np.sin(sum((3 + i) * x for i, x in enumerate(points)) + phase))


def react(diffusivities, reaction, grid, step):
    """The integrator of u_t = D Laplace(u) + r(u), r evaluated at the points."""
    modes = FourierModes(grid)
    symbol = np.multiply.outer(diffusivities, modes.laplacian)
    return ExponentialRungeKutta(
        symbol, lambda u: modes.to_modes(reaction(modes.to_points(u))), modes, step
    )


# Conjugate gradients


def test_every_system_ends_by_itself():
    rng = np.random.default_rng(0)
    matrices = np.stack([np.diag(rng.uniform(1, top, 20)) for top in (1, 4, 100)])
    b = rng.standard_normal((3, 20))
    b[0] = 0

    def solve(which):
        return conjugate_gradients(
            lambda x: np.einsum("nij,nj->ni", matrices[which], x), b[which], np.copy, 1e-9
        )

    together = solve(slice(None))
    np.testing.assert_allclose(np.einsum("nij,nj->ni", matrices, together), b, rtol=0, atol=1e-7)
    for n in range(3):
        np.testing.assert_array_equal(solve(slice(n, n + 1)), together[n : n + 1])


def test_no_convergence_is_said(monkeypatch):
    monkeypatch.setattr(cg, "MAX_ITERATIONS", 5)
    scale = np.logspace(0, 8, 30)
    with pytest.raises(UserError, match="1 of 1 linear systems have not converged"):
        conjugate_gradients(lambda x: scale * x, np.ones((1, 30)), np.copy, 1e-12)


# Fast Poisson solvers


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_fast_poisson_inverts_the_finite_volumes(grid):
    rng = np.random.default_rng(0)
    ones = np.ones((2, *(len(x) for x in closed_axes(grid))))
    u = rng.standard_normal((2, *grid.shape))[(slice(None), *unknowns(grid))]
    f = DiffusionOperator(ones, grid)(u)
    np.testing.assert_allclose(FastPoisson(grid).solve(f), u, atol=1e-12)
    single = FastPoisson(grid).solve(f.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, u, atol=1e-5)


@pytest.mark.parametrize("shape", [(7, 5), (5, 3, 7)])
def test_fast_elements_invert_the_stiffness_matrix(shape):
    grid = Grid(shape, "node")
    u = np.random.default_rng(0).standard_normal((2, *shape))
    u[:, [0, -1]] = 0
    f = StiffnessOperator(np.ones((2, *shape)), grid.spacing)(u)
    np.testing.assert_allclose(FastElements(grid).solve(f), u, atol=1e-11)


# Finite volumes


def test_faces_by_hand():
    a = np.array([[2.0, 6.0]])
    image = DiffusionOperator(a, Grid((2,)))(np.array([[1.0, 10.0]]))
    inner, left, right = 3.0, 2 * 2.0, 2 * 6.0
    expected = [left * 1 + inner * (1 - 10), right * 10 + inner * (10 - 1)]
    np.testing.assert_allclose(image[0], 4 * np.array(expected))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_matrices_are_symmetric_positive_definite(grid):
    a = positive_field(closed_axes(grid), np.random.default_rng(0))
    shape = a[(slice(None), *unknowns(grid))].shape[1:]
    matrix = matrix_of(DiffusionOperator(a, grid), shape)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > 0


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-10])
def test_direct_solver_agrees(smooth, tolerance):
    grid, rng = Grid((24, 16)), np.random.default_rng(1)
    a = positive_field(grid.axes(), rng, 3) if smooth else rng.choice([3.0, 12.0], (3, 24, 16))
    f = rng.standard_normal((3, 24, 16))
    u = solve_diffusion(a, f, grid, tolerance, smooth)
    for n in range(3):
        direct = scipy.sparse.linalg.spsolve(assemble(a[n], grid), f[n].ravel())
        assert np.linalg.norm(u[n].ravel() - direct) < tolerance * np.linalg.norm(direct)


@pytest.mark.parametrize("grid", TWO_PHASE, ids=lambda grid: f"{grid}-{grid.centering}")
def test_direct_solver_agrees_on_nodes(grid):
    axes = closed_axes(grid)
    a = np.where(positive_field(axes, np.random.default_rng(0)) > 1, 12.0, 3.0)
    f = np.ones((1, *grid.shape))
    solution = solve_diffusion(a, f, grid, 1e-9)
    operator = DiffusionOperator(a, grid)
    where = (slice(None), *unknowns(grid))
    matrix = scipy.sparse.csc_array(matrix_of(operator, f[where].shape[1:]))
    direct = scipy.sparse.linalg.spsolve(matrix, f[where].ravel())
    np.testing.assert_allclose(solution[where].ravel(), direct, rtol=1e-7)
    outside = np.ones_like(f, dtype=bool)
    outside[where] = False
    assert not solution[outside].any()


@pytest.mark.parametrize(
    ("sizes", "centering"),
    [((16, 32, 64, 128), "cell"), ((17, 33, 65, 129), "node"), ((16, 32, 64), "node")],
)
def test_finite_volumes_are_of_second_order(sizes, centering):
    errors = []
    for n in sizes:
        grid = Grid((n, n), centering)
        a = np.exp(np.add.outer(*closed_axes(grid)))[None]
        x, y = np.meshgrid(*grid.axes(), indexing="ij")
        s, c = np.sin, np.cos
        p, q = np.pi * x, 2 * np.pi * y
        u = s(p) * s(q)
        gradient_sum = np.pi * c(p) * s(q) + 2 * np.pi * s(p) * c(q)
        f = -np.exp(x + y) * (gradient_sum - 5 * np.pi**2 * u)
        found = solve_diffusion(a, f[None], grid, 1e-9, smooth=True)[0]
        errors.append(np.linalg.norm(found - u) / np.linalg.norm(u))
    spacings = [Grid((n,), centering).spacing[0] for n in sizes]
    assert order(1 / np.array(spacings), errors) == pytest.approx(2, abs=0.1)
    assert errors[-1] < 2e-3


def test_finite_volumes_are_of_second_order_in_three_dimensions():
    errors, sizes = [], (8, 16, 32)
    for n in sizes:
        grid = Grid((n, n, n))
        x, y, z = np.meshgrid(*grid.axes(), indexing="ij")
        u = np.sin(np.pi * x) * np.sin(np.pi * y) * np.sin(np.pi * z)
        a = 1 + x * y * z
        slopes = sum(
            others * np.pi * u / np.tan(np.pi * t)
            for t, others in ((x, y * z), (y, x * z), (z, x * y))
        )
        f = 3 * np.pi**2 * a * u - slopes
        found = solve_diffusion(a[None], f[None], grid, 1e-8)[0]
        errors.append(np.linalg.norm(found - u) / np.linalg.norm(u))
    assert order(sizes, errors) == pytest.approx(2, abs=0.1)


def test_a_jump_between_cells_is_exact():
    # Without a source a u' is constant, also where a jumps half-way between two points.
    grid = Grid((32, 4))
    a = np.where(grid.axes()[0] < 0.5, 3.0, 12.0)[None, :, None] * np.ones((1, 1, 4))
    operator = DiffusionOperator(a, grid)
    x = grid.axes()[0]
    u = np.where(x < 0.5, x / 3, 0.5 / 3 + (x - 0.5) / 12)
    image = operator(np.broadcast_to(u[None, :, None], a.shape).copy())
    np.testing.assert_allclose(image[0, 1:-1, 1:-1], 0, atol=1e-9)


@pytest.mark.parametrize("n", [32, 64, 128])
def test_iterations_do_not_grow_with_the_grid(n, monkeypatch):
    solve, calls = FastPoisson.solve, []
    monkeypatch.setattr(FastPoisson, "solve", lambda *args: calls.append(1) or solve(*args))
    grid = Grid((n, n))
    a = np.where(positive_field(grid.axes(), np.random.default_rng(0), 2) > 1, 12.0, 3.0)
    solve_diffusion(a, np.ones_like(a), grid, 1e-7)
    assert len(calls) <= 1 + 17


# Finite elements


@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 5)])
def test_the_stiffness_matrix_is_the_gradient_of_the_energy(shape):
    rng = np.random.default_rng(0)
    spacing = tuple(1 / (n - 1) for n in shape)
    nu = np.exp(rng.standard_normal((2, *shape)))
    u = rng.standard_normal((2, *shape))
    tensor = torch.tensor(u, requires_grad=True)
    energy = dirichlet_energy(torch.tensor(nu), tensor, spacing)
    (gradient,) = torch.autograd.grad(energy.sum(), tensor)
    image = StiffnessOperator(nu, spacing)(u)
    np.testing.assert_allclose(image, gradient, atol=1e-12)
    by_numpy = dirichlet_energy(nu, u, spacing)
    np.testing.assert_allclose(by_numpy, energy.detach(), rtol=1e-12)
    np.testing.assert_allclose((u * image).reshape(2, -1).sum(1) / 2, by_numpy, rtol=1e-12)


def test_energy_by_hand():
    x = np.linspace(0, 1, 5)
    u = np.broadcast_to(3 * x[:, None], (1, 5, 3))
    nu = np.broadcast_to(1 + 2 * x[:, None], (1, 5, 3))
    # 1/2 int (1 + 2 x) 3^2 dx = 9/2 * 2
    np.testing.assert_allclose(dirichlet_energy(nu, u, (1 / 4, 1 / 2)), [9.0])


@pytest.mark.parametrize("shape", [(9, 9), (5, 5, 7)])
def test_the_solution_has_least_energy_and_agrees_with_the_direct_solver(shape):
    grid, rng = Grid(shape, "node"), np.random.default_rng(0)
    nu = np.exp(rng.standard_normal((2, *shape)))
    u = solve_between_plates(nu, grid, 1e-10)
    assert (u[:, 0] == 1).all()
    assert (u[:, -1] == 0).all()
    for n in range(2):
        matrix = matrix_of(StiffnessOperator(nu[n : n + 1], grid.spacing), shape)
        free = np.zeros(shape, dtype=bool)
        free[1:-1] = True
        free = free.ravel()
        lift = np.where(free, 0, u[n].ravel())
        block = scipy.sparse.csc_array(matrix[np.ix_(free, free)])
        direct = scipy.sparse.linalg.spsolve(block, -(matrix @ lift)[free])
        np.testing.assert_allclose(u[n].ravel()[free], direct, atol=1e-9)
    change = 1e-3 * rng.standard_normal(u.shape)
    change[:, [0, -1]] = 0
    least = dirichlet_energy(nu, u, grid.spacing)
    assert (dirichlet_energy(nu, u + change, grid.spacing) > least).all()


def test_layers_in_series_have_the_exact_flux():
    grid = Grid((65, 3), "node")
    x = grid.axes()[0]
    nu = np.broadcast_to(np.exp(x)[None, :, None], (1, 65, 3))
    u = solve_between_plates(nu, grid, 1e-10)[0]
    exact = (np.exp(-x) - np.exp(-1)) / (1 - np.exp(-1))
    assert np.abs(u - exact[:, None]).max() < 1e-5


@pytest.mark.parametrize(("ndim", "sizes"), [(2, (9, 17, 33, 65)), (3, (5, 9, 17))])
def test_finite_elements_are_of_second_order(ndim, sizes):
    # Differences to the next finer grid fall like the errors.
    def solve(n):
        grid = Grid((n,) * ndim, "node")
        points = np.meshgrid(*grid.axes(), indexing="ij")
        nu = np.exp(np.prod([np.cos((1 + i) * x) for i, x in enumerate(points)], axis=0))
        return solve_between_plates(nu[None], grid, 1e-10)[0]

    every_second = (slice(None, None, 2),) * ndim
    solutions = [solve(n) for n in (*sizes, 2 * sizes[-1] - 1)]
    differences = [
        np.sqrt(np.mean((fine[every_second] - coarse) ** 2)) for coarse, fine in pairwise(solutions)
    ]
    assert order([n - 1 for n in sizes], differences) == pytest.approx(2, abs=0.15)


# Exponential Runge-Kutta


def test_diffusion_alone_is_exact():
    grid = Grid((16, 12))
    x, y = np.meshgrid(*grid.axes(), indexing="ij")
    wave = np.cos(2 * np.pi * (2 * x - y))
    state = np.stack([wave, wave])[None]
    integrator = react((0.01, 0.03), np.zeros_like, grid, 0.2)
    decay = np.exp(-np.array([0.01, 0.03]) * 5 * (2 * np.pi) ** 2 * 0.6)
    expected = decay[None, :, None, None] * state
    np.testing.assert_allclose(integrator.advance(state, 3), expected, atol=1e-13)


def test_exponential_runge_kutta_is_of_fourth_order():
    # Without gradients u_t = u - u^2, the logistic equation, with a known solution.
    grid = Grid((4, 4))
    state = np.full((1, 1, 4, 4), 0.1)
    exact = 1 / (1 + 9 * np.exp(-2.0))
    errors, counts = [], (4, 8, 16, 32)
    for count in counts:
        integrator = react((1.0,), lambda u: u - u**2, grid, 2.0 / count)
        errors.append(np.abs(integrator.advance(state, count) - exact).max())
    assert order(counts, errors) == pytest.approx(4, abs=0.2)


def test_diffusion_and_reaction_together_are_of_fourth_order():
    grid = Grid((16, 16))
    x, y = np.meshgrid(*grid.axes(), indexing="ij")
    state = (0.5 + 0.3 * np.sin(2 * np.pi * x) * np.cos(2 * np.pi * y))[None, None]

    def solve(count):
        return react((0.05,), lambda u: u - u**3, grid, 1.0 / count).advance(state, count)

    reference, counts = solve(128), (4, 8, 16)
    errors = [np.abs(solve(count) - reference).max() for count in counts]
    assert order(counts, errors) == pytest.approx(4, abs=0.4)
