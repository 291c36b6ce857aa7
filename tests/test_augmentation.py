import numpy as np
import pytest
import torch
from alike import augment
from sine import solve_poisson

from multigrid.data.samples import Samples
from multigrid.fields import restrict
from multigrid.grid import Grid, refinements
from multigrid.problems import Symmetries
from multigrid.problems.cno import DiscontinuousTransport
from multigrid.problems.elliptic import CNOPoisson, Poisson
from multigrid.training.batches import add_noise, draw, shift_solutions, translate

GRIDS = [
    Grid((12,)),
    Grid((13,), "node"),
    Grid((12, 12)),
    Grid((8, 20)),
    Grid((13, 13), "node"),
    Grid((12, 12), "node"),
    Grid((12, 13), "node"),
    Grid((8, 12, 8)),
    Grid((9, 9, 9), "node"),
]
grids = pytest.mark.parametrize("grid", GRIDS, ids=str)


def poisson_samples(grid, count=6, num_modes=6):
    rngs = [np.random.default_rng(i) for i in range(count)]
    f, u = Poisson(grid.ndim, num_modes=num_modes).sample(grid, rngs)
    return Samples(torch.from_numpy(f), torch.from_numpy(u), grid)


@grids
@pytest.mark.parametrize("seed", range(8))
def test_augmented_samples_still_solve_the_equation(grid, seed):
    batch = poisson_samples(grid)
    augmented = augment(batch, Poisson.symmetries, np.random.default_rng(seed))
    expected = solve_poisson(augmented.inputs.numpy(), grid)
    # single-precision factors multiply double-precision fields
    np.testing.assert_allclose(augmented.outputs, expected, atol=1e-9 * np.abs(expected).max())
    assert augmented.inputs.shape == batch.inputs.shape
    assert augmented.outputs.shape == batch.outputs.shape
    assert augmented.grid == grid


@grids
@pytest.mark.parametrize("seed", range(4))
def test_samples_with_shorter_waves_still_solve_the_equation(grid, seed):
    batch, rng = poisson_samples(grid), np.random.default_rng(seed)
    augmented = augment(batch, Poisson.symmetries, rng, mode_shifts=1)
    expected = solve_poisson(augmented.inputs.numpy(), grid)
    np.testing.assert_allclose(augmented.outputs, expected, atol=1e-9 * np.abs(expected).max())


def test_in_single_precision_they_do_so_up_to_rounding():
    f, u = CNOPoisson().sample(Grid((64, 64)), [np.random.default_rng(i) for i in range(8)])
    batch = Samples(torch.from_numpy(f).float(), torch.from_numpy(u).float(), Grid((64, 64)))
    for seed in range(4):
        rng = np.random.default_rng(seed)
        augmented = augment(batch, CNOPoisson.symmetries, rng, mode_shifts=1)
        expected = solve_poisson(augmented.inputs.double().numpy(), batch.grid)
        found = augmented.outputs.numpy()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("num_modes", [8, 12])
@pytest.mark.parametrize("coarse", [Grid((12, 12)), Grid((15, 15), "node")], ids=str)
def test_so_do_restricted_fields_which_are_restrictions_of_solutions(coarse, num_modes):
    (fine,) = refinements(coarse)[-1:]
    batch = poisson_samples(fine, num_modes=num_modes)
    restricted = [restrict(fields, fine) for fields in (batch.inputs, batch.outputs)]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        augmented = augment(Samples(*restricted, coarse), Poisson.symmetries, rng, mode_shifts=1)
        expected = solve_poisson(augmented.inputs.numpy(), coarse)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(augmented.outputs, expected, atol=1e-9 * scale)


@pytest.mark.parametrize("grid", [Grid((8, 12)), Grid((13, 9), "node"), Grid((12, 8), "node")])
def test_every_sine_moves_to_the_one_wanted_and_beyond_the_grid_to_none(grid):
    def solution(k, j):
        x, y = (np.sin(np.pi * m * x) for m, x in zip((k, j), grid.axes(), strict=True))
        return torch.from_numpy(np.outer(x, y))[None, None]

    f = solution(3, 2)
    moved = shift_solutions(f, f / 13, grid, (2, 4))
    expected = torch.cat([solution(5, 6), solution(5, 6) / (25 + 36)], dim=1)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-13)
    beyond = shift_solutions(f, f / 13, grid, (grid.num_sines[0] - 2, 0))
    assert beyond.abs().max() < 1e-13


def test_modes_are_shifted_as_often_as_wanted_and_no_other_draw_changes():
    for wanted, low, high in ((0, 0, 0), (0.25, 35, 65), (1, 200, 200)):
        steps = []
        for seed in range(200):
            drawn, without = (
                draw(4, Grid((12, 16)), Poisson.symmetries, np.random.default_rng(seed), often)
                for often in (wanted, 0)
            )
            steps += [drawn.mode_shifts] if drawn.mode_shifts else []
            assert (drawn.orientation, drawn.mirror) == (without.orientation, without.mirror)
            np.testing.assert_array_equal(drawn.factors, without.factors)
        assert low <= len(steps) <= high
    assert {step for step, _ in steps} == set(range(4))
    assert {step for _, step in steps} == set(range(5))


@grids
def test_samples_change_but_the_originals_do_not(grid):
    batch = poisson_samples(grid)
    inputs, outputs = batch.inputs.clone(), batch.outputs.clone()
    augmented = augment(batch, Poisson.symmetries, np.random.default_rng(0))
    assert torch.equal(batch.inputs, inputs)
    assert torch.equal(batch.outputs, outputs)
    differences = (augmented.inputs - inputs).flatten(1).norm(dim=1)
    assert (differences > 0.1 * inputs.flatten(1).norm(dim=1)).all()


def test_the_same_seed_gives_the_same_samples():
    batch = poisson_samples(GRIDS[0])
    first, again, other = (
        augment(batch, Poisson.symmetries, np.random.default_rng(seed)).inputs for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_symmetries_nothing_happens():
    batch = poisson_samples(GRIDS[0])
    augmented = augment(batch, Symmetries(), np.random.default_rng(0))
    assert torch.equal(augmented.inputs, batch.inputs)
    assert torch.equal(augmented.outputs, batch.outputs)


def orientations(symmetries, grid, num_draws=200):
    """All different results for one field without any symmetry of its own."""
    field = torch.arange(grid.size, dtype=torch.float64).reshape(1, 1, *grid.shape)
    batch = Samples(field, 2 * field, grid)
    found = set()
    for seed in range(num_draws):
        augmented = augment(batch, symmetries, np.random.default_rng(seed))
        assert torch.equal(augmented.outputs, 2 * augmented.inputs)
        found.add(tuple(augmented.inputs.flatten().tolist()))
    return len(found)


@pytest.mark.parametrize(
    ("grid", "reflections", "rotations", "both"),
    [
        (Grid((4,)), 2, 1, 2),
        (Grid((4,), "node"), 1, 1, 1),
        (Grid((4, 4)), 4, 2, 8),
        (Grid((4, 6)), 4, 1, 4),
        (Grid((5, 5), "node"), 4, 2, 8),
        (Grid((4, 4), "node"), 1, 2, 2),
        (Grid((4, 5), "node"), 2, 1, 2),
        (Grid((2, 2, 2)), 8, 6, 48),
        (Grid((2, 4, 2)), 8, 2, 16),
    ],
    ids=str,
)
def test_every_orientation_that_is_exact_occurs_and_no_other(grid, reflections, rotations, both):
    assert orientations(Symmetries(reflections=True), grid) == reflections
    assert orientations(Symmetries(rotations=True), grid) == rotations
    num_draws = 600 if both == 48 else 200
    assert orientations(Symmetries(reflections=True, rotations=True), grid, num_draws) == both


@pytest.mark.parametrize(("shape", "count"), [((4, 4), 2), ((4, 4, 4), 8), ((4, 4, 6), 4)])
def test_fixed_axes_stay_as_they_are(shape, count):
    plates = Symmetries(reflections=True, rotations=True, fixed_axes=(0,))
    assert orientations(plates, Grid(shape)) == count


def test_signs_change_where_that_is_exact():
    batch, rng = poisson_samples(Grid((12,))), np.random.default_rng(0)
    drawn = [augment(batch, Symmetries(odd=True), rng).inputs for _ in range(20)]
    signs = [1 if torch.equal(inputs, batch.inputs) else -1 for inputs in drawn]
    assert all(torch.equal(s * x, batch.inputs) for s, x in zip(signs, drawn, strict=True))
    assert len(set(signs)) == 2


def test_superpositions_mix_samples_of_the_batch():
    fields = torch.eye(4, dtype=torch.float64).reshape(4, 1, 2, 2)
    batch = Samples(fields, 3 * fields, Grid((2, 2)))
    augmented = augment(batch, Symmetries(linear=True), np.random.default_rng(2))
    num_parts = (augmented.inputs.flatten(1).abs() > 1e-12).sum(1)
    assert set(num_parts.tolist()) <= {1, 2}
    assert 2 in num_parts
    torch.testing.assert_close(augmented.outputs, 3 * augmented.inputs)


def test_noise_has_the_size_that_is_asked_for():
    torch.manual_seed(0)
    fields = torch.rand(4, 3, 64, 64)
    fields[:, 1] *= 1e6
    fields[:, 2] = 7.0
    change = add_noise(fields, 0.1) - fields
    ratios = change.std((2, 3)) / fields.std((2, 3)).clamp_min(1e-9)
    torch.testing.assert_close(ratios[:, :2], torch.full((4, 2), 0.1), rtol=0.05, atol=0)
    assert torch.equal(change[:, 2], torch.zeros(4, 64, 64))  # a constant field has no size
    assert add_noise(fields, 0.0) is fields


@pytest.mark.parametrize("seed", range(5))
def test_translated_discs_are_transported_all_the_same(seed):
    grid, rng = Grid((64, 64)), np.random.default_rng(seed)
    problem = DiscontinuousTransport()
    first, last = problem.sample(grid, [np.random.default_rng((seed, i)) for i in range(40)])
    before = Samples(torch.from_numpy(first), torch.from_numpy(last), grid)
    after = augment(before, problem.symmetries, rng)
    x = torch.from_numpy(np.stack(np.meshgrid(*grid.axes(), indexing="ij")))
    moved = 0
    for old, new, output in zip(before.inputs, after.inputs, after.outputs, strict=True):
        assert new.sum() == old.sum()  # all of the input stays
        inside = x[:, new[0] > 0]
        centre, radius = inside.mean(1), (new.sum() / torch.pi / 64**2).sqrt()
        distance = (x - (centre + torch.tensor([0.2, -0.2]))[:, None, None]).norm(dim=0)
        assert (output[0][distance < radius - 1 / 64] == 1).all()
        assert (output[0][distance > radius + 1 / 64] == 0).all()
        moved += not torch.equal(new, old)
    assert moved > 20


def test_translations_end_at_the_edges():
    fields = torch.zeros(3, 2, 16)
    fields[0, 0, 5:7] = fields[0, 1, 9:11] = 1  # free to move
    fields[1, 0, 5:7] = fields[1, 1, :2] = 1  # the output may go on beyond the left edge
    for where, steps in ((0.0, (-4, -4, 0)), (0.99, (4, 0, 0))):
        moved = translate(fields, 1, torch.full((3, 1), where))
        for step, old, new in zip(steps, fields, moved, strict=True):
            if step < 0:  # what leaves does not come in again
                old = torch.cat([old[:, -step:], old.new_zeros(2, -step)], 1)
            assert torch.equal(new, old.roll(max(step, 0), 1))
