import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigrid.errors import UserError
from multigrid.grid import Grid, Hierarchy, halvings_between


def square(*sizes, centering="cell"):
    return [Grid((n, n), centering) for n in sizes]


def shapes(grids):
    return [grid.shape for grid in grids]


@pytest.mark.parametrize(
    ("grid", "axis", "spacing"),
    [
        (Grid((4,)), [0.125, 0.375, 0.625, 0.875], 0.25),
        (Grid((5,), "node"), [0, 0.25, 0.5, 0.75, 1], 0.25),
        (Grid((4,), "node"), [0, 0.25, 0.5, 0.75], 0.25),
    ],
)
def test_coordinates_and_spacing(grid, axis, spacing):
    np.testing.assert_allclose(grid.axes()[0], axis, rtol=1e-15)
    assert grid.spacing == (spacing,)


def test_anisotropic_grid():
    grid = Grid((4, 8, 2))
    assert grid.spacing == (0.25, 0.125, 0.5)
    assert [len(axis) for axis in grid.axes()] == [4, 8, 2]
    assert (grid.size, grid.ndim, str(grid)) == (64, 3, "4x8x2")


@pytest.mark.parametrize("n", [9, 17, 85, 48, 32])
def test_nodes_that_are_kept_stay_where_they_are(n):
    fine = Grid((n,), "node")
    np.testing.assert_allclose(fine.coarsen().axes()[0], fine.axes()[0][::2], rtol=1e-14)


@pytest.mark.parametrize("n", [43, 3, 15])
def test_nodes_that_are_kept_stay_where_they_are_for_odd_to_even(n):
    fine = Grid((n,), "node")
    np.testing.assert_allclose(fine.coarsen().axes()[0], fine.axes()[0][::2], rtol=1e-14)


def test_cells_merge_in_pairs():
    fine = Grid((12,))
    pairs = fine.axes()[0].reshape(6, 2).mean(1)
    np.testing.assert_allclose(fine.coarsen().axes()[0], pairs, rtol=1e-15)


@pytest.mark.parametrize(
    ("grid", "symmetric"),
    [(Grid((8,)), True), (Grid((9,), "node"), True), (Grid((8,), "node"), False)],
)
def test_symmetry_is_that_of_the_points(grid, symmetric):
    axis = grid.axes()[0]
    assert np.allclose(axis, 1 - axis[::-1]) == symmetric
    assert grid.is_symmetric(0) == symmetric


@pytest.mark.parametrize("grid", [Grid((2,)), Grid((8, 2)), Grid((2,), "node")])
def test_what_cannot_be_halved_says_so(grid):
    assert not grid.halves
    with pytest.raises(UserError, match=f"a {grid} grid cannot be halved"):
        grid.coarsen()


@pytest.mark.parametrize("grid", [Grid((7,)), Grid((8, 9))])
def test_odd_numbers_of_cells_are_halved_for_folded_fields_only(grid):
    coarse = Grid(tuple((n + 1) // 2 for n in grid.shape))
    assert not grid.halves
    assert grid.coarsen().shape == coarse.shape
    assert halvings_between(coarse, grid) is None
    assert halvings_between(coarse, grid, padded=True) == 1
    with pytest.raises(UserError, match=r"cell-centred .* cannot be halved"):
        Hierarchy.build([coarse, grid])
    assert Hierarchy.build([coarse, grid], padded=True).levels[0].shape == coarse.shape


def test_nodes_are_closed_or_open_in_any_number():
    closed, even = Grid((64,), "closed"), Grid((65,), "open")
    assert closed.spacing == (1 / 63,)
    assert even.spacing == (1 / 65,)
    assert closed.axes()[0][-1] == pytest.approx(1.0)
    assert even.axes()[0][-1] == pytest.approx(64 / 65)
    assert not closed.is_open
    assert even.is_open
    assert Grid((65, 64), "node").spacing == (1 / 64, 1 / 64)


@pytest.mark.parametrize(
    ("coarse", "fine", "count"),
    [
        (Grid((6,)), Grid((48,)), 3),
        (Grid((8,)), Grid((8,)), 0),
        (Grid((5,)), Grid((48,)), None),
        (Grid((11,), "node"), Grid((85,), "node"), 3),
        (Grid((6,), "node"), Grid((85,), "node"), 4),
        (Grid((4, 8)), Grid((16, 32)), 2),
        (Grid((8, 8)), Grid((16, 32)), None),
        (Grid((8,)), Grid((16,), "node"), None),
    ],
)
def test_halvings_between(coarse, fine, count):
    assert halvings_between(coarse, fine) == count


def test_hierarchy_48_is_6_times_8():
    hierarchy = Hierarchy.build(square(6, 48), min_size=4)
    assert shapes(hierarchy.scales) == [(6, 6), (12, 12), (24, 24), (48, 48)]
    assert hierarchy.tops == (0, 3)
    assert hierarchy.levels == tuple(square(6, 48))
    assert hierarchy.finest == Grid((48, 48))


def test_hierarchy_of_85_nodes():
    hierarchy = Hierarchy.build(square(43, 85, centering="node"), min_size=4)
    assert shapes(hierarchy.scales) == [(n, n) for n in (6, 11, 22, 43, 85)]
    assert hierarchy.tops == (3, 4)


def test_anisotropic_hierarchy_follows_its_shortest_axis():
    hierarchy = Hierarchy.build([Grid((8, 32)), Grid((16, 64))], min_size=4)
    assert shapes(hierarchy.scales) == [(4, 16), (8, 32), (16, 64)]


@pytest.mark.parametrize(
    ("min_size", "depth", "coarsest"),
    [(4, None, 4), (8, None, 8), (5, None, 8), (2, None, 2), (4, 0, 32), (16, 3, 4), (4, 4, 2)],
)
def test_depth_and_min_size(min_size, depth, coarsest):
    hierarchy = Hierarchy.build(square(32, 64), min_size, depth)
    assert hierarchy.scales[0] == Grid((coarsest, coarsest))
    assert hierarchy.finest == Grid((64, 64))


def test_neighbouring_scales_differ_by_one_halving():
    hierarchy = Hierarchy.build(square(12, 24, 96), min_size=2)
    assert [fine.coarsen() for fine in hierarchy.scales[1:]] == list(hierarchy.scales[:-1])


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        (square(16, 16), r"levels\[1\]: 16x16 must be finer than 16x16"),
        (square(8, 16, 8), r"levels\[2\]: 8x8 must be finer than 16x16"),
        (square(12, 20), r"levels\[1\]: .* 20x20 .* 12x12.* nearest size that can is 24x24$"),
        (square(12, 50), r"nearest size that can is 48x48$"),
        (square(9, 20, centering="node"), r"nearest size that can is 18x18 or 17x17$"),
        ([Grid((8, 8)), Grid((16, 32))], r"16x32 grid cannot be halved to 8x8"),
        ([Grid((8, 8)), Grid((16, 16, 16))], r"levels\[1\]: 16x16x16 must be finer than 8x8"),
    ],
)
def test_levels_that_do_not_nest(levels, sentence):
    with pytest.raises(UserError, match=sentence):
        Hierarchy.build(levels)


def test_folded_levels_that_do_not_nest_are_told_what_does():
    for sizes, possible in (((10, 32), "16x16, 8x8, 4x4"), ((12, 25), "13x13, 7x7, 4x4")):
        fine = f"{sizes[1]}x{sizes[1]}"
        with pytest.raises(UserError, match=f"rounded up: below {fine} these are {possible}$"):
            Hierarchy.build(square(*sizes), padded=True)
    assert len(Hierarchy.build(square(13, 25, 50), padded=True).levels) == 3


def test_too_deep_says_how_deep_is_possible():
    with pytest.raises(UserError, match=r"model\.depth: 5 scales below .* 12x12 .*at most 2 are"):
        Hierarchy.build(square(12), depth=5)


@given(st.lists(st.integers(2, 200), min_size=1, max_size=3), st.sampled_from(["cell", "node"]))
def test_coarsening_is_counted_back(shape, centering):
    fine = grid = Grid(tuple(shape), centering)
    halvings = 0
    while grid.halves and min(grid.shape) > 3:
        grid, halvings = grid.coarsen(), halvings + 1
    assert halvings_between(grid, fine) == halvings
    assert grid.centering == fine.centering
