"""What stands beside a ladder's errors: direct training with the same work, and baselines."""

import json
import math

import numpy as np
import pytest
import torch
from tiny import run, train, write_experiment

import multigrid
from multigrid.metrics import mean_rel_l2
from multigrid.report import draw_figures, write_report
from multigrid.report.record import RunRecord, describe

POISSON = {"kind": "poisson", "num_modes": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ladder with direct training, a further test set, and a file that must be left alone."""
    folder = tmp_path_factory.mktemp("direct")
    sections = {
        "problem": POISSON,
        "data": {"extra_tests": {"rough": {"num_modes": 6}}},
        "schedule": {"epochs": [3, 2], "learning_rate": [2e-2, 1e-2], "patience": 5},
        "checkpoints": {"save": str(folder / "ladder.safetensors")},
        "transfer": {"new_scales": "copy"},
    }
    assert run(write_experiment(folder / "e.yaml", **sections), folder, "--with-direct") == 0
    return folder


def test_direct_training_takes_the_same_work(folder):
    record = RunRecord.open(folder / "results" / "tiny")
    config, direct = record.direct.config, record.direct.summary
    assert direct["work_units"] == math.ceil(record.summary["work_units"])
    assert [stage["level"] for stage in direct["levels"]] == [1]
    assert direct["data_fingerprint"] == record.summary["data_fingerprint"]
    assert (config.schedule.learning_rate, config.schedule.patience) == (2e-2, None)
    assert config.checkpoints.save is None
    assert config.transfer.new_scales != "copy"
    saved = multigrid.load(folder / "ladder.safetensors")
    assert saved.config.name == "tiny"


def test_its_curve_and_numbers_are_shown(folder, tmp_path):
    record = RunRecord.open(folder / "results" / "tiny")
    figure = draw_figures(record)["convergence"]
    labels = [[line.get_label() for line in axis.get_lines()] for axis in figure.axes]
    assert ["direct training on 16x16" in texts for texts in labels] == [False, True, True]
    assert len({axis.get_ylim() for axis in figure.axes}) == 1
    assert "direct training on 16x16" in [text.get_text() for text in figure.legends[0].texts]
    write_report(record.folder.path, figures=False, folder=tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Direct training</h2>" in page
    assert f'<td class="number">{direct_test(record):.4g}</td>' in page
    assert "rel_l2, mean of the training outputs" in page
    log = record.folder.log.read_text()
    assert "the best validation error of direct" in log


def direct_test(record):
    return record.direct.summary["test"]["rel_l2"]


def test_it_is_resumed_and_overwritten_with_its_ladder(folder, capsys):
    experiment, record = folder / "e.yaml", RunRecord.open(folder / "results" / "tiny")
    before = direct_test(record)
    (record.folder.direct / "summary.json").unlink()
    assert run(experiment, folder, "--with-direct", "--resume") == 0
    assert direct_test(RunRecord.open(record.folder.path)) == before
    assert run(experiment, folder, "schedule.cycle=single", "--with-direct", "--overwrite") == 2
    assert "trains on the finest grid alone already" in capsys.readouterr().err
    assert record.folder.direct.exists()
    assert run(experiment, folder, "--overwrite") == 0
    assert not record.folder.direct.exists()


def test_baselines_by_hand(folder):
    summary = RunRecord.open(folder / "results" / "tiny").summary
    surrogate = multigrid.load(folder / "results" / "tiny")
    splits = {}
    for split in ("train", "test"):
        stream = surrogate._samples(None, split, None, None)
        splits[split] = torch.cat([block.outputs for block in stream.samples.split(8)])
    mean = splits["train"].mean(0).expand_as(splits["test"])
    expected = mean_rel_l2(mean, splits["test"]).mean().item()
    assert set(summary["baselines"]) == {"test", "rough"}
    assert summary["baselines"]["test"] == {
        "mean of the training outputs": pytest.approx(expected, rel=1e-5)
    }
    text = describe(summary)
    assert text.count("rel_l2 of baselines: mean of the training outputs=") == 2


@pytest.mark.parametrize("target", ["state", "delta"])
def test_persistence_stands_beside_steps_in_time(tmp_path, target):
    states = np.random.default_rng(0).standard_normal((14, 4, 1, 8, 8)).cumsum(1)
    np.savez(tmp_path / "a.npz", u=states.astype("f4"))
    problem = {"kind": "file", "file": str(tmp_path / "a.npz")}
    data = {"train": 8, "validation": 3, "test": 3, "time": {"target": target}}
    experiment = write_experiment(tmp_path / "e.yaml", problem=problem, data=data, levels=[8])
    baselines = train(experiment, tmp_path)["baselines"]["test"]
    measured = multigrid.load(tmp_path / "results" / "tiny").evaluate().mean("persistence")
    assert baselines["persistence"] == pytest.approx(measured, rel=1e-5)
    assert (baselines["persistence"] == pytest.approx(1)) == (target == "delta")


def test_without_training_outputs_there_is_no_mean(tmp_path):
    sections = {"problem": {"kind": "diffusion"}, "loss": {"name": "energy"}, "levels": [9]}
    sections["data"] = {"centering": "node"}
    summary = train(write_experiment(tmp_path / "e.yaml", **sections), tmp_path)
    assert summary["baselines"] == {"test": {}}
    assert "baselines" not in describe(summary)
    assert json.dumps(summary)
