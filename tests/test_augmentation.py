import numpy as np
import pytest
import torch
from sine import solve_poisson

from multigrid.augmentation import augment
from multigrid.data.samples import Samples
from multigrid.grid import Grid
from multigrid.problems import Poisson, Symmetries

GRIDS = [
    Grid((12, 12)),
    Grid((8, 20)),
    Grid((13, 13), "node"),
    Grid((12, 12), "node"),
    Grid((12, 13), "node"),
    Grid((8, 12, 8)),
    Grid((9, 9, 9), "node"),
]
grids = pytest.mark.parametrize("grid", GRIDS, ids=str)


def poisson_samples(grid, count=6):
    rngs = [np.random.default_rng(i) for i in range(count)]
    f, u = Poisson(grid.ndim, num_modes=6).sample(grid, rngs)
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


def test_superpositions_mix_samples_of_the_batch():
    fields = torch.eye(4, dtype=torch.float64).reshape(4, 1, 2, 2)
    batch = Samples(fields, 3 * fields, Grid((2, 2)))
    augmented = augment(batch, Symmetries(linear=True), np.random.default_rng(2))
    num_parts = (augmented.inputs.flatten(1).abs() > 1e-12).sum(1)
    assert set(num_parts.tolist()) <= {1, 2}
    assert 2 in num_parts
    torch.testing.assert_close(augmented.outputs, 3 * augmented.inputs)
