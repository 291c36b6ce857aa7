"""Training without labels: the energy of the discrete problem is least for its solution."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from dirichlet import dirichlet_energy
from tiny import run, train, write_experiment
from torch import nn

from multigrid.data.samples import Samples
from multigrid.data.store import DataStore, GeneratedSource
from multigrid.errors import UserError
from multigrid.fields import prolong, restrict
from multigrid.grid import Grid
from multigrid.metrics import rel_l2
from multigrid.models.scaling import FieldScaling, Surrogate
from multigrid.problems.elliptic import Diffusion, Poisson
from multigrid.solvers.energy_descent import EnergyDescent
from multigrid.training.losses import build_loss

NDIMS = pytest.mark.parametrize("ndim", [1, 2, 3])
PROBLEM = {"kind": "diffusion"}
DATA = {"centering": "node", "train": 32, "validation": 8, "test": 8}


def solved(ndim: int, count: int = 4) -> Samples:
    """Samples in float64, with solutions of the discrete problem."""
    grid = Grid((9,) * ndim, "node")
    rngs = [np.random.default_rng(seed) for seed in range(count)]
    fields = Diffusion(ndim, tolerance=1e-12).sample(grid, rngs)
    return Samples(*map(torch.from_numpy, fields), grid)


def energy(samples: Samples):
    """The mean energy of outputs for the samples' inputs."""
    nu, spacing = samples.inputs[:, 0].exp(), samples.grid.spacing
    return lambda outputs: dirichlet_energy(nu, outputs[:, 0], spacing).mean()


def loss(samples: Samples, outputs: torch.Tensor) -> torch.Tensor:
    return build_loss("energy", samples.grid, Diffusion(samples.grid.ndim))(outputs, samples)


def disturbed(samples: Samples, size: float, generator: torch.Generator) -> torch.Tensor:
    """The solutions and noise that is zero on the plates."""
    noise = torch.randn(samples.outputs.shape, generator=generator, dtype=torch.float64)
    noise[:, :, [0, -1]] = 0
    return samples.outputs + size * noise


@NDIMS
def test_the_solution_has_the_least_energy(ndim: int, generator: torch.Generator) -> None:
    samples = solved(ndim)
    least, solution = energy(samples)(samples.outputs), samples.outputs
    noise = disturbed(samples, 1.0, generator) - solution
    rises = {
        size: (energy(samples)(solution + size * noise) - least).item()
        for size in (-1e-2, 1e-3, 1e-2, 1e-1)
    }
    assert rises[1e-2] > 1e-4
    for size, rise in rises.items():  # the parabola has its vertex at the solution
        assert rise == pytest.approx(rises[1e-2] * (size / 1e-2) ** 2, rel=1e-4)


@NDIMS
def test_the_gradient_at_the_solution_vanishes_between_the_plates(ndim: int) -> None:
    samples = solved(ndim)
    profile = 1 - samples.grid.axes()[0].reshape(-1, *(1,) * (ndim - 1))
    linear = torch.from_numpy(profile).expand_as(samples.outputs)
    sizes = []
    for outputs in (samples.outputs, linear):
        field = outputs.clone().requires_grad_()
        energy(samples)(field).backward()
        sizes.append(field.grad[:, :, 1:-1].abs().max().item())
    assert sizes[0] < 1e-9
    assert sizes[1] > 1e-3


@NDIMS
def test_steps_of_descent_lead_to_the_solution(ndim: int) -> None:
    samples = solved(ndim)
    grid, inputs, solution = samples.grid, samples.inputs, samples.outputs
    profile = torch.from_numpy(Diffusion().initial_outputs(grid).copy()).expand_as(solution)
    energies = [energy(samples)(profile).item()]
    for num_steps in (1, 2, 4, 300):
        change = EnergyDescent(grid, grid, num_steps=num_steps)(inputs[:, 0], profile[:, 0])
        assert (change[:, [0, -1]] == 0).all()
        found = profile + change[:, None]
        energies.append(energy(samples)(found).item())
    assert energies == sorted(energies, reverse=True)
    torch.testing.assert_close(found, solution, rtol=0, atol=1e-9)


@NDIMS
def test_coarse_fields_descend_to_the_best_of_them_on_the_finer_grid(
    ndim: int, generator: torch.Generator
) -> None:
    samples = solved(ndim)
    fine, coarse = samples.grid, samples.grid.coarsen()
    inputs, outputs = (restrict(f, fine) for f in (samples.inputs, samples.outputs))
    start = disturbed(Samples(inputs, outputs, coarse), 0.1, generator)
    change = EnergyDescent(coarse, fine, degree=2, num_steps=300)(inputs[:, 0], start[:, 0])
    slopes = []
    for field in (start, start + change[:, None]):
        field = field.clone().requires_grad_()
        log_nu, u = (prolong(f, fine, degree=2)[:, 0] for f in (inputs, field))
        dirichlet_energy(log_nu.exp(), u, fine.spacing).sum().backward()
        slopes.append(field.grad[:, :, 1:-1].abs().max().item())
    assert slopes[1] < 1e-8 * slopes[0]


@NDIMS
def test_the_loss_is_about_the_error_and_its_slope_does_not_vanish(
    ndim: int, generator: torch.Generator
) -> None:
    samples = solved(ndim)
    slopes = []
    for size in (1e-1, 1e-3, 1e-5):
        outputs = disturbed(samples, size, generator).requires_grad_()
        found = loss(samples, outputs)
        error = rel_l2(outputs, samples.outputs).mean().item()
        assert 0.3 * error < found.item() < 3 * error
        found.backward()
        towards = (outputs - samples.outputs).detach()
        assert torch.cosine_similarity(outputs.grad.flatten(1), towards.flatten(1)).min() > 0.3
        slopes.append(outputs.grad.norm().item())
    assert min(slopes) > 0.5 * max(slopes)


def test_a_solution_gives_no_infinite_gradient() -> None:
    samples = solved(2)
    outputs = samples.outputs.clone().requires_grad_()
    loss(samples, outputs).backward()
    assert torch.isfinite(outputs.grad).all()


def test_no_label_is_looked_at(generator: torch.Generator) -> None:
    samples = solved(2)
    outputs = disturbed(samples, 0.1, generator)
    unlabelled = Samples(samples.inputs, torch.full_like(samples.outputs, torch.nan), samples.grid)
    assert loss(unlabelled, outputs) == loss(samples, outputs)


def test_unlabelled_samples_have_the_inputs_of_the_labelled(tmp_path: Path) -> None:
    grid, coarse = Grid((9, 9), "node"), Grid((5, 5), "node")
    store = DataStore(tmp_path, Diffusion(), grid, 0)
    unlabelled = GeneratedSource(store, labelled=False)
    assert unlabelled.prepare({"train": 7, "validation": 2, "test": 1}) == 3
    with pytest.raises(UserError, match="holds 0 train samples"):
        store.open("train", 7)[:]
    assert GeneratedSource(store).prepare({"train": 7}) == 7
    for where in (grid, coarse):
        found, expected = unlabelled.read("train", where, 7), store.open("train", 7)[:]
        torch.testing.assert_close(found.inputs, expected.restrict_to(where).inputs)
        profile = torch.from_numpy(Diffusion().initial_outputs(where).copy()).float()
        assert (found.outputs == profile).all()
    some = unlabelled.open("train", coarse, 7)[torch.tensor([5, 2])]
    assert torch.equal(some.inputs, found.inputs[[5, 2]])
    labels = unlabelled.read("validation", grid, 2).outputs
    assert torch.equal(labels, store.open("validation", 2)[:].outputs)


def test_boundary_values_are_exact(generator: torch.Generator) -> None:
    grid = Grid((9, 9), "node")
    known, values = map(torch.from_numpy, Diffusion().boundary_values(grid))
    network = nn.Conv2d(1, 1, 3, padding=1)
    unscaled = FieldScaling("none", (0.0,), (1.0,), (0.0,), (1.0,), ())
    surrogate = Surrogate(network, unscaled, (known, values.float()))
    inputs = torch.randn(2, 1, 9, 9, generator=generator)
    outputs = surrogate(inputs)
    assert (outputs[:, :, 0] == 1).all()
    assert (outputs[:, :, -1] == 0).all()
    assert torch.equal(outputs[:, :, 1:-1], network(inputs)[:, :, 1:-1])


def test_a_run_without_labels_learns_the_solution(tmp_path: Path) -> None:
    experiment = write_experiment(
        tmp_path / "e.yaml",
        problem=PROBLEM,
        data=DATA,
        levels=[5, 9, 17],
        model={"width": 12},
        schedule={"epochs": [20, 6, 2], "learning_rate": [1e-2, 5e-3, 2e-3]},
        loss={"name": "energy"},
    )
    summary = train(experiment, tmp_path)
    (path,) = (tmp_path / "data").glob("*.h5")
    with h5py.File(path) as file:  # not one training sample has been solved
        assert {split: group.attrs["num_complete"] for split, group in file.items()} == {
            "train": 0,
            "validation": 8,
            "test": 8,
        }
    first, *_, last = summary["levels"]
    assert last["rel_l2"] < 0.6 * first["rel_l2_at_start"]
    assert summary["test"]["rel_l2"] < 0.2


@pytest.mark.parametrize("problem", [{"kind": "poisson", "num_modes": 4}, {"kind": "darcy"}])
def test_energy_of_another_problem_is_one_sentence(problem, tmp_path: Path, capsys) -> None:
    experiment = write_experiment(
        tmp_path / "e.yaml", problem=problem, data={"centering": "node"}, levels=[5, 9]
    )
    assert run(experiment, tmp_path, "loss.name=energy") == 2
    error = capsys.readouterr().err
    assert "needs the energy, which the problems diffusion have" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_energy_of_another_problem_is_refused_by_the_loss_too() -> None:
    with pytest.raises(UserError, match="'energy' is not available for the problem 'poisson'"):
        build_loss("energy", Grid((9, 9), "node"), Poisson())
