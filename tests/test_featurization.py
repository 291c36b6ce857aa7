"""Training on features gives what training on fields gives."""

import os
import signal
from unittest.mock import patch

import pytest
import torch
from torch import nn

from multigrid.grid import Grid, Hierarchy
from multigrid.ladder.recorder import Recorder
from multigrid.models.growth import UNetFamily
from multigrid.records.history import read_history
from multigrid.training import finetuning
from multigrid.training.checkpoint import load_checkpoint
from multigrid.training.finetuning import trains_its_tail
from tests.tiny import run, train, write_experiment

HEADS_ONLY = [{"pattern": "*", "freeze": True}, {"pattern": "*.head", "freeze": False}]
TIMES = {"seconds": 0, "evaluation_seconds": 0}


def unet(form="pyramid"):
    hierarchy = Hierarchy.build([Grid((16, 16), "cell")], 4, None)
    return UNetFamily(hierarchy, [8, 8, 8], 1, 1, form=form).build(0)


@pytest.mark.parametrize("form", ["pyramid", "classic"])
def test_the_heads_finish_what_the_rest_has_computed(form):
    network = unet(form)
    frozen = [k for k in network.state_dict() if ".head." not in k]
    assert trains_its_tail(network, frozen)
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(network.finish(network.features(x)), network(x))


def test_where_the_trunk_is_trained_there_is_nothing_to_keep():
    network = unet()
    for frozen in ([], [k for k in network.state_dict() if not k.startswith("scales.2.encoder")]):
        assert not trains_its_tail(network, frozen)
    assert not trains_its_tail(network, network.state_dict())
    assert not trains_its_tail(nn.Linear(2, 2), ["weight"])


class Tailed(nn.Module):
    """A user's network that tells its tail."""

    tail = ("last",)

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 1)

    def features(self, x):
        return [self.first(x)]

    def finish(self, features):
        return self.last(features[0])

    def forward(self, x):
        return self.finish(self.features(x))


def test_a_network_may_tell_its_tail():
    assert trains_its_tail(Tailed(), ["first.weight", "first.bias"])
    assert not trains_its_tail(Tailed(), ["first.weight"])


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    problem = {"kind": "poisson", "num_modes": 8}
    experiment = write_experiment(folder / "first.yaml", problem=problem)
    train(experiment, folder, f"checkpoints.save={folder / 'w.pt'}")
    return folder / "w.pt"


def experiment(tmp_path, pretrained, rules, **sections):
    return write_experiment(
        tmp_path / "second.yaml",
        name="second",
        problem={"kind": "poisson", "num_modes": 8},
        levels=[16],
        model={"depth": 3},
        schedule={"epochs": 3},
        data={"augmentation": "none"},
        checkpoints={"load": str(pretrained), "interval": 1},
        transfer={"rules": rules, "featurize": True},
        **sections,
    )


@pytest.mark.parametrize("memory", ["hold", "stream"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_losses_with_far_less_work(tmp_path, pretrained, precision, memory):
    path = experiment(tmp_path, pretrained, HEADS_ONLY, compute={"precision": precision})
    train(path, tmp_path, f"data.memory={memory}")
    results = tmp_path / "results" / "second"
    rows = read_history(results / "metrics.csv")
    train(path, tmp_path, "--overwrite", "transfer.featurize=false")
    expected = read_history(results / "metrics.csv")
    tolerance = 1e-5 if precision == "float32" else 1e-3
    for row, other in zip(rows[1:], expected[1:], strict=True):
        assert row.train_loss == pytest.approx(other.train_loss, rel=tolerance)
        assert row.val_rel_l2 == pytest.approx(other.val_rel_l2, rel=tolerance)
    work, expected_work = (r[2].flops - r[1].flops for r in (rows, expected))
    assert expected_work > 3 * work
    assert rows[1].flops > rows[2].flops - rows[1].flops  # the features themselves are counted


def test_heads_of_folded_levels_learn_the_same_from_features(tmp_path):
    folded = ["model.fields=folded", "levels=[8,16]", "model.depth=2", "schedule.epochs=[2,0]"]
    first = write_experiment(tmp_path / "first.yaml", problem={"kind": "poisson", "num_modes": 8})
    train(first, tmp_path / "first", f"checkpoints.save={tmp_path / 'w.pt'}", *folded)
    path = experiment(tmp_path, tmp_path / "w.pt", HEADS_ONLY)
    losses = []
    for more in ([], ["--overwrite", "transfer.featurize=false"]):
        train(path, tmp_path, *folded, *more)
        rows = read_history(tmp_path / "results" / "second" / "metrics.csv")
        losses.append([row.train_loss for row in rows if row.level == 0][1:])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][1] < losses[0][0]


def test_large_grids_in_bfloat16(tmp_path, pretrained):
    path = experiment(tmp_path, pretrained, HEADS_ONLY, compute={"precision": "bfloat16"})
    changes = ["levels=[32]", "model.depth=3", "schedule.epochs=1"]
    loss = []
    for more in ([], ["--overwrite", "transfer.featurize=false"]):
        train(path, tmp_path, *changes, *more)
        loss.append(read_history(tmp_path / "results" / "second" / "metrics.csv")[1].train_loss)
    assert loss[0] == pytest.approx(loss[1], rel=1e-3)


def test_resume_equals_the_straight_run(tmp_path, pretrained):
    path = experiment(tmp_path, pretrained, HEADS_ONLY)
    train(path, tmp_path)
    last = tmp_path / "results" / "second" / "level_0_16x16" / "last.pt"
    straight = load_checkpoint(last)
    step = Recorder.on_step

    def stopped(recorder, trainer):
        if (trainer.progress.epoch, trainer.progress.step) == (1, 3):
            os.kill(os.getpid(), signal.SIGTERM)
        step(recorder, trainer)

    with patch.object(Recorder, "on_step", stopped):
        assert run(path, tmp_path, "--overwrite") == 75
    saved = load_checkpoint(last)
    assert len(saved["trainer"]["progress"]["losses"]) == 3
    pretrained.rename(tmp_path / "elsewhere.pt")  # the checkpoint holds all that is needed
    try:
        assert run(path, tmp_path, "--resume") == 0
    finally:
        (tmp_path / "elsewhere.pt").rename(pretrained)
    resumed = load_checkpoint(last)
    for key, tensor in straight["network"].items():
        assert torch.equal(resumed["network"][key], tensor), key
    for row, expected in zip(resumed["rows"], straight["rows"], strict=True):
        assert {**row, **TIMES} == {**expected, **TIMES}
    assert resumed["finished"][0]["frozen"] == straight["finished"][0]["frozen"] > 0


def test_microbatches_keep_their_features(tmp_path, pretrained):
    path = experiment(tmp_path, pretrained, HEADS_ONLY)
    whole = train(path, tmp_path)["levels"][0]
    parts = train(path, tmp_path, "--overwrite", "parallel.accumulate=4")["levels"][0]
    assert parts["rel_l2"] == pytest.approx(whole["rel_l2"], rel=1e-3)


def test_features_that_do_not_fit(tmp_path, pretrained, capsys, monkeypatch):
    monkeypatch.setattr(finetuning, "total_memory", lambda device: 1e4)
    assert run(experiment(tmp_path, pretrained, HEADS_ONLY), tmp_path) == 2
    error = capsys.readouterr().err
    assert "transfer.featurize: the features of" in error
    assert "but this machine has 10 kB for a process; set it to false" in error


def test_nothing_frozen_first_is_an_error(tmp_path, pretrained, capsys):
    path = experiment(tmp_path, pretrained, [{"pattern": "scales.0", "freeze": True}])
    assert run(path, tmp_path) == 2
    error = capsys.readouterr().err
    assert "transfer.featurize: nothing can be computed once" in error
    assert not (tmp_path / "results").exists()
