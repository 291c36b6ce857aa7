import numpy as np
import pytest
import torch

from multigrid.fields import prolong, prolong_to, restrict, restrict_to
from multigrid.grid import Grid

GRIDS = [
    Grid((16,)),
    Grid((17,), "node"),
    Grid((16, 16)),
    Grid((16, 24)),
    Grid((16, 18, 20)),
    Grid((16, 16), "node"),
    Grid((17, 13), "node"),
    Grid((9, 15, 11), "node"),
]


def antiderivative_of_wave(x, shift):
    """Of ``cos(2 pi x + shift)``."""
    return np.sin(2 * np.pi * x + shift) / (2 * np.pi)


def wave(grid, spacing=None):
    """A product of shifted cosines: cell averages or nodal values."""
    values = np.ones(())
    for axis, (x, h) in enumerate(zip(grid.axes(), spacing or grid.spacing, strict=True)):
        shift = 0.3 + axis
        if grid.centering == "cell":
            right = antiderivative_of_wave(x + h / 2, shift)
            line = (right - antiderivative_of_wave(x - h / 2, shift)) / h
        else:
            line = np.cos(2 * np.pi * x + shift)
        values = np.multiply.outer(values, line)
    return torch.from_numpy(values)


def monomial(grid, power):
    """``prod_d (x_d)^power``: cell averages or nodal values."""
    values = np.ones(())
    for x, h in zip(grid.axes(), grid.spacing, strict=True):
        if grid.centering == "cell":
            right, left = x + h / 2, x - h / 2
            line = (right ** (power + 1) - left ** (power + 1)) / ((power + 1) * h)
        else:
            line = x**power
        values = np.multiply.outer(values, line)
    return torch.from_numpy(values)


def observed_order(sizes, errors):
    return -np.polyfit(np.log(sizes), np.log(errors), 1)[0]


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("centering", "odd", "periodic"),
    [
        ("cell", 0, False),
        ("cell", 0, True),
        ("node", 0, True),
        ("node", 0, False),
        ("node", 1, False),
    ],
)
def test_order_of_convergence_up_to_the_boundary(centering, odd, periodic, degree):
    sizes = [32, 64, 128]
    errors = []
    for n in sizes:
        fine = Grid((n + odd,) * 2, centering)
        prolonged = prolong(wave(fine.coarsen()), fine, degree, periodic)
        errors.append((prolonged - wave(fine)).abs().max().item())
    assert observed_order(sizes, errors) > degree + 1 - 0.3


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("grid", [g for g in GRIDS if g.shape != (9, 15, 11)], ids=str)
def test_polynomials_are_reproduced_exactly(grid, degree):
    for power in range(min(degree + 1, min(grid.coarsen().shape))):
        exact = monomial(grid, power)
        prolonged = prolong(monomial(grid.coarsen(), power), grid, degree)
        torch.testing.assert_close(prolonged, exact, rtol=1e-11, atol=1e-11)


def test_one_degree_more_is_not_reproduced():
    grid = Grid((16, 16))
    prolonged = prolong(monomial(grid.coarsen(), 3), grid, degree=2)
    assert (prolonged - monomial(grid, 3)).abs().max() > 1e-5


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("degree", [2, 4, 6])
@pytest.mark.parametrize("grid", [g for g in GRIDS if g.centering == "cell"], ids=str)
def test_even_degrees_conserve_cell_averages(grid, degree, periodic, generator):
    x = torch.randn(2, 3, *grid.coarsen().shape, dtype=torch.float64, generator=generator)
    back = restrict(prolong(x, grid, degree, periodic), grid)
    tolerance = {2: 1e-13, 4: 1e-11, 6: 1e-8}[degree]
    torch.testing.assert_close(back, x, rtol=tolerance, atol=tolerance)


def test_degree_4_conserves_cell_averages_on_tiny_periodic_grids(generator):
    grid = Grid((8, 8))
    x = torch.randn(4, 4, dtype=torch.float64, generator=generator)
    back = restrict(prolong(x, grid, 4, periodic=True), grid)
    torch.testing.assert_close(back, x, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("grid", [g for g in GRIDS if g.centering == "node"], ids=str)
def test_nodes_that_are_kept_keep_their_values(grid, degree, periodic, generator):
    x = torch.randn(2, 1, *grid.coarsen().shape, dtype=torch.float64, generator=generator)
    back = restrict(prolong(x, grid, degree, periodic), grid)
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-12)


def test_restriction_by_hand():
    x = torch.arange(16.0).reshape(1, 4, 4)
    cells = torch.tensor([[[2.5, 4.5], [10.5, 12.5]]])
    assert torch.equal(restrict(x, Grid((4, 4))), cells)
    assert torch.equal(restrict(x, Grid((4, 4), "node")), torch.tensor([[[0.0, 2], [8, 10]]]))
    odd = torch.arange(5.0)
    assert torch.equal(restrict(odd, Grid((5,), "node")), torch.tensor([0.0, 2, 4]))


def test_linear_prolongation_by_hand():
    x = torch.tensor([0.0, 1.0, 3.0])
    nodes = torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0])
    torch.testing.assert_close(prolong(x, Grid((5,), "node"), degree=1), nodes)
    cells = torch.tensor([-0.25, 0.25, 0.75, 1.5, 2.5, 3.5])
    torch.testing.assert_close(prolong(x, Grid((6,)), degree=1), cells)


def test_periodic_prolongation_commutes_with_shifts(generator):
    x = torch.randn(8, 8, dtype=torch.float64, generator=generator)
    for centering in ("cell", "node"):
        fine = Grid((16, 16), centering)
        shifted = prolong(x.roll(3, 0), fine, 4, periodic=True)
        torch.testing.assert_close(shifted, prolong(x, fine, 4, periodic=True).roll(6, 0))


@pytest.mark.parametrize("grid", [g for g in GRIDS if g.shape != (16, 18, 20)], ids=str)
def test_several_steps_are_repeated_single_steps(grid, generator):
    coarse = grid.coarsen()
    coarsest = coarse.coarsen()
    x = torch.randn(1, *grid.shape, dtype=torch.float64, generator=generator)
    down = restrict_to(x, grid, coarsest)
    assert torch.equal(down, restrict(restrict(x, grid), coarse))
    up = prolong_to(down, coarsest, grid, 2)
    torch.testing.assert_close(up, prolong(prolong(down, coarse, 2), grid, 2))
    assert restrict_to(x, grid, grid) is x


def test_prolongation_is_differentiable(generator):
    x = torch.randn(1, 4, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda field: prolong(field, Grid((8, 8)), 2), (x,))


def test_the_last_of_an_odd_number_of_cells_is_repeated():
    field = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    assert restrict(field, Grid((5,))).tolist() == [[1.5, 3.5, 5.0]]
