"""Training for roll-outs: several steps at once, pushforward and noise."""

import os
import signal
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from alike import assert_same_training
from tiny import run, write_experiment
from together import run_together
from torch import nn

from multigrid.config.data import TimeConfig
from multigrid.data.files import FileSource
from multigrid.data.generation import Block, Recipe
from multigrid.data.samples import Samples
from multigrid.data.splits import DataFile
from multigrid.data.time import TimeSetup
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.ladder.recorder import Recorder
from multigrid.models.cost import Flops
from multigrid.problems.periodic import GrayScott
from multigrid.records.history import read_history
from multigrid.training.checkpoint import load_checkpoint
from multigrid.training.losses import Unrolling

GRID, RNG = Grid((4, 4)), np.random.default_rng(0)
POISSON = {"kind": "poisson", "num_modes": 4}
STEPS = {
    "name": "tiny",
    "problem": {"kind": "gray_scott", "resolution": 16, "num_starts": 3, "first_start": 1},
    "model": {"padding": "periodic"},
    "schedule": {"epochs": 2},
}


def mse(prediction, batch):
    return (prediction - batch.outputs).square().mean()


def batch_of(setup, num_steps, generator, parameters=0):
    """Inputs with a history and parameters, and the targets of some steps."""
    states = torch.randn(
        3, setup.history + num_steps, setup.num_channels, 4, 4, generator=generator
    )
    constants = torch.randn(3, parameters, 4, 4, generator=generator)
    past, later = states[:, : setup.history], states[:, setup.history :]
    if setup.target == "delta":
        later = later - states[:, setup.history - 1 : -1]
    inputs = torch.cat([past.flatten(1, 2), constants], dim=1)
    return Samples(inputs, later.flatten(1, 2), GRID), states


@pytest.mark.parametrize("target", ["state", "delta"])
def test_the_gradient_goes_through_all_steps(target, generator):
    setup = TimeSetup(2, history=2, target=target)
    batch, states = batch_of(setup, 3, generator, parameters=1)
    network = nn.Conv2d(5, 2, 3, padding=1)

    by_hand, window, losses = batch.inputs[:, 4:], [states[:, 0], states[:, 1]], []
    for step in range(3):
        output = network(torch.cat([*window, by_hand], dim=1))
        state = output if target == "state" else window[-1] + output
        losses.append((state - states[:, 2 + step]).square().mean())
        window = [window[1], state]
    sum(losses).div(3).backward()
    expected = network.weight.grad.clone()

    network.zero_grad()
    loss = Unrolling(setup, [3]).loss(network, batch, mse, 3, RNG)
    loss.backward()
    torch.testing.assert_close(loss, sum(losses) / 3)
    torch.testing.assert_close(network.weight.grad, expected)


def test_pushforward_stops_the_gradient(generator):
    setup = TimeSetup(2)
    batch, _ = batch_of(setup, 3, generator)
    network = nn.Conv2d(2, 2, 3, padding=1)
    pushforward = Unrolling(setup, [3], "pushforward")
    drawn = set()
    for seed in range(12):
        last = int(np.random.default_rng(seed).integers(3))
        state = batch.inputs
        for _ in range(last):
            state = network(state).detach()
        loss = (network(state) - batch.outputs[:, 2 * last : 2 * last + 2]).square().mean()
        (expected,) = torch.autograd.grad(loss, network.weight)
        rng = np.random.default_rng(seed)
        (found,) = torch.autograd.grad(
            pushforward.loss(network, batch, mse, 3, rng), network.weight
        )
        torch.testing.assert_close(found, expected)
        drawn.add(last)
    assert drawn == {0, 1, 2}


def test_one_exact_step_is_plain_training(generator):
    setup = TimeSetup(2, target="delta")
    batch, _ = batch_of(setup, 1, generator, parameters=1)
    network = nn.Conv2d(3, 2, 3, padding=1)
    for method in ("unrolled", "pushforward"):
        loss = Unrolling(setup, method=method).loss(network, batch, mse, 1, RNG)
        torch.testing.assert_close(loss, mse(network(batch.inputs), batch))


def test_noise_is_relative_and_on_states_alone(generator):
    setup = TimeSetup(2, history=2)
    batch, _ = batch_of(setup, 1, generator, parameters=1)
    batch.inputs[:, 0] *= 100
    batch.inputs[:, 1] = 7.0
    seen = []

    def network(inputs):
        seen.append(inputs)
        return inputs[:, :2]

    Unrolling(setup, noise=0.1).loss(network, batch, mse, 1, RNG)
    change = (seen[0] - batch.inputs).std((0, 2, 3)) / batch.inputs.std((0, 2, 3))
    assert change[4] == 0
    assert torch.equal(seen[0][:, 1], batch.inputs[:, 1])  # a constant field has no size
    assert all(0.05 < value < 0.2 for value in change[[0, 2, 3]])


def test_the_curriculum_and_its_cost():
    unrolled = Unrolling(TimeSetup(1), [1, 2, 4])
    assert [unrolled.num_steps(epoch, 7) for epoch in range(7)] == [1, 1, 1, 2, 2, 4, 4]
    assert [epoch for epoch in range(7) if unrolled.begins(epoch, 7)] == [3, 5]
    assert unrolled.cost(4, Flops(1, 3)) == 12
    assert unrolled.mean_cost(Flops(1, 3)) == 7
    pushforward = Unrolling(TimeSetup(1), [4], "pushforward")
    assert pushforward.cost(4, Flops(1, 3)) == 3 + 1.5  # 0 to 3 steps before


def test_sequences_begin_with_the_samples_of_one_step():
    problem = GrayScott(resolution=16, num_starts=3, first_start=1)
    grid, block = Grid((16, 16)), Block("train", 3, 6)
    inputs, outputs = Recipe(problem, grid, 0).make(block)
    first, all_outputs = Recipe(problem, grid, 0, num_steps=3).make(block)
    assert all_outputs.shape == (3, 6, 16, 16)
    np.testing.assert_array_equal(first, inputs)
    np.testing.assert_array_equal(all_outputs[:, :2], outputs)
    names = {Recipe(problem, grid, 0, n).fingerprint for n in (1, 2, 3)}
    assert len(names) == 3


@pytest.mark.parametrize("target", ["state", "delta"])
def test_files_give_the_steps_that_follow(target, tmp_path: Path):
    u = np.random.default_rng(0).standard_normal((12, 7, 2, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "f.npz", u=u)
    counts, time = {"train": 8, "validation": 4, "test": 4}, TimeConfig(target=target)
    grid, files = Grid((8, 8)), [DataFile(tmp_path / "f.npz")]
    source = FileSource(files, counts, "cell", time=time, num_steps=3)
    pool = source.locate("train", grid).numbers
    pool = pool[pool % 6 <= 3][:8]  # pairs of states 0 to 5 with the one after
    for samples in (source.read("train", grid, 8), source.open("train", grid, 8)[:]):
        for row, number in enumerate(pool):
            k, t = divmod(int(number), 6)
            expected = u[k, t + 1 : t + 4] - (0 if target == "state" else u[k, t : t + 3])
            np.testing.assert_array_equal(samples.inputs[row], u[k, t])
            np.testing.assert_array_equal(samples.outputs[row], expected.reshape(6, 8, 8))
    assert source.read("validation", grid, 4).num_channels == (2, 2)
    with pytest.raises(UserError, match="that 6 steps of their trajectory follow"):
        FileSource(files, counts, "cell", time=time, num_steps=7).read("train", grid, 8)


@pytest.mark.parametrize("method", ["unrolled", "pushforward"])
def test_a_resumed_training_is_the_same_bit_for_bit(method, tmp_path: Path):
    section = {"steps": [1, 3], "method": method, "noise": 0.05}
    experiment = write_experiment(tmp_path / "e.yaml", **STEPS, rollout_training=section)
    step = Recorder.on_step

    def stopped(recorder, trainer):
        step(recorder, trainer)
        progress = trainer.progress
        if (trainer.stage.index, progress.epoch, progress.step) == (1, 1, 2):
            os.kill(os.getpid(), signal.SIGTERM)

    assert run(experiment, tmp_path / "one") == 0
    with patch.object(Recorder, "on_step", stopped):
        assert run(experiment, tmp_path / "again") == 75
    assert run(experiment, tmp_path / "again", "--resume") == 0
    one, again = (tmp_path / name / "results" / "tiny" for name in ("one", "again"))
    rows = [read_history(folder / "metrics.csv") for folder in (one, again)]
    for ours, theirs in zip(*rows, strict=True):
        assert (ours.train_loss, ours.val_rel_l2) == (theirs.train_loss, theirs.val_rel_l2)
    first, second = (load_checkpoint(f / "level_1_16x16" / "best.pt") for f in (one, again))
    assert first["trainer"]["progress"]["epoch"] == 2  # not the better one with fewer steps
    for name, tensor in first["network"].items():
        assert torch.equal(tensor, second["network"][name])


@pytest.mark.parametrize("method", ["unrolled", "pushforward"])
def test_two_processes_train_as_one(method, tmp_path: Path):
    section = {"steps": [1, 3], "method": method}
    experiment = write_experiment(tmp_path / "e.yaml", **STEPS, rollout_training=section)
    assert run(experiment, tmp_path / "one") == 0
    (tmp_path / "two").mkdir()
    assert run_together([experiment], tmp_path / "two") == [0, 0]
    assert_same_training(*(tmp_path / name / "results" / "tiny" for name in ("two", "one")))


@pytest.mark.parametrize(
    ("problem", "section", "sentence"),
    [
        (POISSON, {"steps": 2}, "rollout_training.steps: 2 is for problems in time"),
        (POISSON, {"noise": 0.1}, "rollout_training.noise: 0.1 is for problems in"),
        (STEPS["problem"], {"steps": [2, 1]}, "must be a list of rising numbers"),
        (STEPS["problem"], {"method": "pushforward"}, "has no effect with rollout_training.steps"),
    ],
)
def test_what_makes_no_sense_is_refused(problem, section, sentence, tmp_path: Path, capsys):
    experiment = write_experiment(tmp_path / "e.yaml", problem=problem, rollout_training=section)
    assert run(experiment, tmp_path) == 2
    assert sentence in capsys.readouterr().err


def test_noise_on_inputs_is_for_single_steps(tmp_path: Path, capsys):
    experiment = write_experiment(tmp_path / "e.yaml", **STEPS)
    assert run(experiment, tmp_path, "data.noise=0.1", "rollout_training.noise=0.1") == 2
    sentence = "data.noise: 0.1 is not possible with rollout_training, which has its own noise"
    assert sentence in capsys.readouterr().err
