"""Surrogates that come with the package."""

import numpy as np
import pytest
import torch
from tiny import run, write_experiment

import multigrid
from experiments.zoo import SURROGATES
from multigrid import UserError
from multigrid.training.checkpoint import load_weights
from multigrid.zoo import FOLDER, located, names


@pytest.mark.parametrize("name", names())
def test_each_loads_and_has_a_card(name):
    surrogate = multigrid.load(f"zoo:{name}")
    shape = (1, len(surrogate.input_names), *surrogate.finest.shape)
    assert np.isfinite(surrogate.predict(np.ones(shape, dtype=np.float32))).all()
    assert name in SURROGATES
    assert (FOLDER / f"{name}.md").read_text(encoding="utf-8").startswith(f"## {name}\n")
    assert located(f"zoo:{name}").stat().st_size <= 2e6


def test_one_is_as_good_as_its_card_says():
    surrogate = multigrid.load("zoo:poisson")
    grid = surrogate.finest
    problem = surrogate.config.pde()
    rngs = [np.random.default_rng(seed) for seed in range(4)]
    assert (
        surrogate.evaluate(problem.sample(grid, rngs)).mean() < 0.008
    )  # card: mean 0.002, worst 0.007


def test_a_name_that_is_not_there():
    with pytest.raises(UserError, match=r"zoo:poison: is not .*; did you mean 'poisson'"):
        multigrid.load("zoo:poison")


def test_a_training_starts_from_one(tmp_path):
    problem = {"kind": "poisson", "num_modes": 8}
    model, levels = {"width": 24, "depth": 3}, [16]
    settings = {"problem": problem, "model": model, "levels": levels}
    experiment = write_experiment(tmp_path / "tiny.yaml", **settings)
    assert run(experiment, tmp_path, "checkpoints.load=zoo:poisson", "schedule.epochs=0") == 0
    best = load_weights(tmp_path / "results/tiny/level_0_16x16/best.pt").tensors
    before = load_weights(located("zoo:poisson")).tensors
    assert all(torch.equal(tensor, before[name]) for name, tensor in best.items())
