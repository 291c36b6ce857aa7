"""Training without labels: the energy of the discrete problem is least for its solution."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import run, train, write_experiment
from torch import nn

from multigrid.data.samples import Samples
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.losses import build_loss
from multigrid.models.surrogate import FieldScaling, Surrogate
from multigrid.problems import Diffusion, Poisson

NDIMS = pytest.mark.parametrize("ndim", [2, 3])
PROBLEM = {"kind": "diffusion"}
DATA = {"centering": "node", "train": 32, "validation": 8, "test": 8}


def solved(ndim: int, count: int = 4) -> Samples:
    """Samples in float64, with solutions of the discrete problem."""
    grid = Grid((9,) * ndim, "node")
    rngs = [np.random.default_rng(seed) for seed in range(count)]
    fields = Diffusion(ndim, tolerance=1e-12).sample(grid, rngs)
    return Samples(*map(torch.from_numpy, fields), grid)


def energy(samples: Samples):
    loss = build_loss("energy", samples.grid, Diffusion(samples.grid.ndim))
    return lambda outputs: loss(outputs, samples)


@NDIMS
def test_the_solution_has_the_least_energy(ndim: int, generator: torch.Generator) -> None:
    samples = solved(ndim)
    loss, solution = energy(samples), samples.outputs
    inner = torch.ones_like(solution)
    inner[:, :, [0, -1]] = 0
    noise = inner * torch.randn(solution.shape, generator=generator, dtype=solution.dtype)
    rises = {
        size: (loss(solution + size * noise) - loss(solution)).item()
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


def test_no_label_is_looked_at() -> None:
    samples = solved(2)
    unlabelled = Samples(samples.inputs, torch.full_like(samples.outputs, torch.nan), samples.grid)
    assert energy(unlabelled)(samples.outputs) == energy(samples)(samples.outputs)


def test_the_profile_between_the_plates_has_loss_one() -> None:
    samples = solved(2)
    profile = torch.from_numpy(1 - samples.grid.axes()[0]).reshape(-1, 1)
    assert energy(samples)(profile.expand_as(samples.outputs)).item() == pytest.approx(1)


def test_boundary_values_are_exact(generator: torch.Generator) -> None:
    grid = Grid((9, 9), "node")
    known, values = map(torch.from_numpy, Diffusion().boundary_values(grid))
    network = nn.Conv2d(1, 1, 3, padding=1)
    surrogate = Surrogate(network, FieldScaling.identity(1, 1), (known, values.float()))
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
    assert "'energy' is known for the problem 'diffusion' only" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_energy_of_another_problem_is_refused_by_the_loss_too() -> None:
    with pytest.raises(UserError, match="'energy' is not known for the problem 'poisson'"):
        build_loss("energy", Grid((9, 9), "node"), Poisson())
