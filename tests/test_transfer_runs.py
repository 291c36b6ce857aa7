"""The toolbox from the command, on tiny grids."""

import json
import os
import shutil
import signal
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

import multigrid
from multigrid import report
from multigrid.__main__ import main
from multigrid.config import load_config
from multigrid.errors import UserError
from multigrid.ladder import initialization
from multigrid.ladder.experiment import Experiment, Extensions
from multigrid.ladder.recorder import Recorder
from multigrid.ladder.state import begin
from multigrid.training.checkpoint import load_checkpoint, load_weights
from multigrid.training.evaluation import LevelValidator
from multigrid.training.trainer import Trainer
from tests.tiny import run, train, write_experiment

TIMES = {"seconds": 0, "evaluation_seconds": 0}
POISSON = {"problem": {"kind": "poisson", "num_modes": 8}}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A finished run and its weights in both formats."""
    folder = tmp_path_factory.mktemp("pretrained")
    experiment = write_experiment(folder / "first.yaml", **POISSON)
    train(experiment, folder, f"checkpoints.save={folder / 'weights.safetensors'}")
    weights = load_weights(folder / "weights.safetensors").tensors
    torch.save(weights, folder / "weights.pt")
    return folder


def second(tmp_path, pretrained, file="weights.safetensors", **sections):
    sections = {**POISSON, "name": "second", **sections}
    sections["checkpoints"] = {"load": str(pretrained / file), **sections.get("checkpoints", {})}
    return write_experiment(tmp_path / "second.yaml", **sections)


def level(tmp_path, number, grid):
    return tmp_path / "results" / "second" / f"level_{number}_{grid}x{grid}"


def not_transferred(folder):
    tensors = report_of(folder)["tensors"]
    return {t["key"]: t["status"] for t in tensors if t["status"] != "TRANSFERRED"}


def report_of(folder):
    return json.loads((folder / "transfer.json").read_text())


def test_saved_weights_are_a_surrogate(pretrained):
    saved = multigrid.load(pretrained / "weights.safetensors")
    trained = multigrid.load(pretrained / "results" / "tiny")
    inputs = np.random.default_rng(0).standard_normal((3, 1, 16, 16))
    np.testing.assert_array_equal(saved(inputs), trained(inputs))
    assert (str(saved), saved.config) == ("tiny: f -> u on 16x16", trained.config)


def test_evaluating_needs_no_longer_what_a_run_started_from(tmp_path, pretrained, capsys):
    weights = tmp_path / "weights.safetensors"
    shutil.copy(pretrained / weights.name, weights)
    train(second(tmp_path, tmp_path), tmp_path)
    weights.unlink()
    assert main(["evaluate", str(tmp_path / "results" / "second")]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.pt", "run"])
def test_weights_of_all_kinds_load_completely(tmp_path, pretrained, file):
    if file == "run":
        file = "results/tiny/level_1_16x16/best.pt"
    experiment = second(tmp_path, pretrained, file, schedule={"epochs": 0})
    train(experiment, tmp_path)
    expected = load_weights(pretrained / "weights.pt").tensors
    found = load_checkpoint(level(tmp_path, 1, 16) / "last.pt")["network"]
    assert all(torch.equal(found[key], expected[key]) for key in found)
    totals = report_of(level(tmp_path, 1, 16))["totals"]
    assert totals["transferred"]["tensors"] == len(expected)


def test_trained_at_one_size_loads_completely_at_another(tmp_path, pretrained):
    experiment = second(tmp_path, pretrained, levels=[32], model={"depth": 3})
    summary = train(experiment, tmp_path)
    first = json.loads((pretrained / "results" / "tiny" / "summary.json").read_text())
    num_tensors = len(load_weights(pretrained / "weights.pt").tensors)
    assert report_of(level(tmp_path, 0, 32))["totals"]["transferred"]["tensors"] == num_tensors
    (stage,) = summary["levels"]
    assert stage["transferred"] == stage["parameters"] == first["levels"][1]["parameters"]
    assert summary["levels"][0]["rel_l2_at_start"] < first["levels"][0]["rel_l2_at_start"]


def test_features_are_frozen_and_survive_resume(tmp_path, pretrained):
    experiment = second(
        tmp_path,
        pretrained,
        levels=[8, 16, 32],
        transfer={"mode": "features"},
        schedule={"epochs": [0, 0, 4]},
        checkpoints={"interval": 1},
    )
    summary = train(experiment, tmp_path)
    old = load_weights(pretrained / "weights.pt").tensors
    folder = level(tmp_path, 2, 32)
    straight = load_checkpoint(folder / "last.pt")
    for key, tensor in straight["network"].items():
        if key in old:
            assert torch.equal(tensor, old[key]), key
    assert not set(straight["trainer"]["optimizer"]) & set(old)
    totals = report_of(folder)["totals"]
    assert totals["frozen"]["tensors"] == len(old)
    stage = summary["levels"][2]
    assert stage["frozen"] == totals["frozen"]["parameters"] == stage["transferred"]
    assert stage["trainable"] + stage["frozen"] == stage["parameters"]
    assert_resume_equals(tmp_path, experiment, straight)


def test_gradual_unfreezing_resumes_bit_for_bit(tmp_path, pretrained):
    experiment = second(
        tmp_path,
        pretrained,
        levels=[16],
        model={"depth": 3},
        transfer={"mode": "gradual", "unfreeze": [0, 2, 3], "decay": 0.5},
        schedule={"epochs": 5},
        checkpoints={"interval": 1},
    )
    # without a new scale, the outermost one is trained from the start and the next after 0 epochs
    train(experiment, tmp_path)
    straight = load_checkpoint(level(tmp_path, 0, 16) / "last.pt")
    assert straight["rows"][-1]["flops"] > 5 * straight["rows"][1]["flops"]
    assert_resume_equals(tmp_path, experiment, straight)


def assert_resume_equals(tmp_path, experiment, straight, stage=None, epoch=3, step=2):
    """Stops within an epoch, goes on, and compares with the run that was not interrupted."""
    original = Recorder.on_step
    place = (straight["stage"] if stage is None else stage, epoch, step)

    def stopped(recorder, trainer):
        progress = trainer.progress
        if (trainer.stage.index, progress.epoch + 1, progress.step) == place:
            os.kill(os.getpid(), signal.SIGTERM)
        original(recorder, trainer)

    with patch.object(Recorder, "on_step", stopped):
        assert run(experiment, tmp_path, "--overwrite") == 75
    assert run(experiment, tmp_path, "--resume") == 0
    (folder,) = (tmp_path / "results" / "second").glob(f"level_{straight['stage']}_*")
    resumed = load_checkpoint(folder / "last.pt")
    for key, tensor in straight["network"].items():
        assert torch.equal(resumed["network"][key], tensor), key
    assert resumed["trainer"]["freezer"] == straight["trainer"]["freezer"]
    for row, expected in zip(resumed["rows"], straight["rows"], strict=True):
        assert {**row, **TIMES} == {**expected, **TIMES}


@pytest.mark.parametrize("unfreeze", [1, "plateau"])
@pytest.mark.parametrize("step", [1, 4])
def test_what_unfreezes_while_a_run_is_stopped(tmp_path, pretrained, unfreeze, step):
    experiment = second(
        tmp_path,
        pretrained,
        levels=[16],
        model={"depth": 3},
        transfer={
            "mode": "gradual",
            "unfreeze": unfreeze,
            **({"patience": 1} if unfreeze == "plateau" else {}),
        },
        schedule={"epochs": 5, "learning_rate": 3e-2},
        recovery={"tries": 0},
    )
    train(experiment, tmp_path)
    straight = load_checkpoint(level(tmp_path, 0, 16) / "last.pt")
    assert straight["rows"][-1]["flops"] > 5 * straight["rows"][1]["flops"]
    for epoch in (2, 4):
        assert_resume_equals(tmp_path, experiment, straight, epoch=epoch, step=step)


def test_resume_does_without_the_file_that_was_loaded(tmp_path, pretrained):
    """A later level takes from it what the level in work has no use for."""
    weights = tmp_path / "mine.pt"
    weights.write_bytes((pretrained / "weights.pt").read_bytes())
    experiment = second(tmp_path, tmp_path, "mine.pt", schedule={"epochs": 3})
    train(experiment, tmp_path)
    straight = load_checkpoint(level(tmp_path, 1, 16) / "last.pt")
    assert report_of(level(tmp_path, 1, 16))["totals"]["new"]["tensors"] == 0
    load = partial(initialization.load_weights, weights)

    def once(*args):
        found = load()
        weights.unlink(missing_ok=True)
        return found

    with patch.object(initialization, "load_weights", once):
        assert_resume_equals(tmp_path, experiment, straight, stage=0)
    assert not weights.exists()
    assert load_checkpoint(level(tmp_path, 1, 16) / "last.pt")["loaded"] == {}


def test_going_back_keeps_what_has_unfrozen(tmp_path, pretrained):
    """The weights return, the optimizer fits what is trained, and the lost work is counted."""
    experiment = second(
        tmp_path,
        pretrained,
        levels=[16],
        model={"depth": 3},
        transfer={"mode": "gradual", "unfreeze": [0, 2, 3]},
        schedule={"epochs": 5},
    )
    straight = train(experiment, tmp_path)["flops"]
    original, seen = Trainer.backward, []

    def backward(trainer, microbatches):
        loss = original(trainer, microbatches)
        seen.append(trainer)
        return float("nan") if len(seen) == 3 * 4 + 3 else loss

    validate = LevelValidator.__call__
    errors = iter([1.0, 0.5, *[0.9] * 10])  # the best state is older than what has unfrozen

    def worse(validator, surrogate):
        return next(errors), validate(validator, surrogate)[1]

    with (
        patch.object(Trainer, "backward", backward),
        patch.object(LevelValidator, "__call__", worse),
    ):
        summary = train(experiment, tmp_path, "--overwrite")
    (fault,) = summary["levels"][0]["went_back"]
    assert (fault["epoch"], fault["step"]) == (4, 3)
    best = load_checkpoint(level(tmp_path, 0, 16) / "best.pt")
    last = load_checkpoint(level(tmp_path, 0, 16) / "last.pt")
    early, late = (set(state["trainer"]["optimizer"]) for state in (best, last))
    trained = {k for k, p in seen[-1].surrogate.network.named_parameters() if p.requires_grad}
    assert early < late == trained
    assert straight < summary["flops"] < 1.3 * straight


def test_tensors_of_another_shape_are_told_and_trained_anew(tmp_path, pretrained):
    train(second(tmp_path, pretrained, model={"width": [8, 8, 8, 9]}), tmp_path)
    wrong = not_transferred(level(tmp_path, 1, 16))
    assert set(wrong.values()) == {"MISMATCHED"}
    assert {key.split(".")[1] for key in wrong} == {"3"}
    log = (tmp_path / "results" / "second" / "run.log").read_text()
    assert "Skipping layer scales.3.stem.conv.weight: 8x1x3x3 -> 9x1x3x3" in log
    assert f"warning: {len(wrong)} tensors have another shape" in log


@pytest.mark.parametrize("file", ["weights.safetensors", "run", "weights.pt", "both.safetensors"])
def test_settings_that_names_and_shapes_do_not_show_are_told(tmp_path, pretrained, file):
    if file == "run":
        file = "results/tiny/level_1_16x16/best.pt"
    if file == "both.safetensors":
        surrogate = multigrid.load(pretrained / "results" / "tiny")
        surrogate.save(pretrained / file, levels=[0, 1])
    others = {"activation": "none", "padding": {"x": "periodic", "y": "zeros"}, "prolongation": 2}
    rename = {"level_1.*": "*"} if file == "both.safetensors" else {}
    experiment = second(
        tmp_path, pretrained, file, model=others, levels=[16], transfer={"rename": rename}
    )
    for name, model in (("other", []), ("same", ["model.activation=silu", "model.padding=zeros"])):
        assert run(experiment, tmp_path, f"name={name}", "model.depth=3", *model) == 0
    logs = [(tmp_path / "results" / n / "run.log").read_text() for n in ("other", "same")]
    known = file != "weights.pt"  # a bare state dictionary says nothing of its network
    path = pretrained / file
    differences = (
        f'warning: the weights of {path} were trained with model.activation "silu" (here "none"), '
        'model.padding "zeros" (here {"x": "periodic", "y": "zeros"}), model.prolongation 4 '
        "(here 2), which names and shapes do not show; they are loaded all the same\n"
    )
    assert (differences in logs[0]) == known
    assert (f"{path} were trained with model.prolongation 4 (here 2), which" in logs[1]) == known
    assert logs[1].count("model.") == known


def test_transplants_of_another_network_are_told(tmp_path, pretrained, capsys):
    transplant = [{"load": str(pretrained / "weights.safetensors"), "pattern": "scales.1"}]
    experiment = second(tmp_path, pretrained, "weights.pt", transfer={"transplant": transplant})
    assert run(experiment, tmp_path, "--dry-run") == 0
    assert "warning" not in capsys.readouterr().out
    assert run(experiment, tmp_path, "--dry-run", "model.padding=replicate") == 0
    out = capsys.readouterr().out
    assert 'weights.safetensors were trained with model.padding "zeros" (here "replicate"),' in out


def named_by_size(grid):
    """Somebody's network: batch statistics, and a layer named and shaped by the grid."""
    net = nn.Sequential()
    net.add_module("lift", nn.Conv2d(1, 4, 3, padding=1))
    net.add_module("norm", nn.BatchNorm2d(4))
    net.add_module("project", nn.Conv2d(4, 1, 1))
    net.add_module(f"dense_{grid.size}", PointwiseDense(grid.size))
    return net


class PointwiseDense(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.linear = nn.Linear(size, size)

    def forward(self, x):
        return self.linear(x.flatten(2)).reshape(x.shape)


def ladder(path, folder, factory, *overrides, pictures=False):
    from multigrid.run import train_ladder

    folders = [f"output.folder={folder / 'results'}", f"data.folder={folder / 'data'}"]
    folders += ["model={}"] * (factory is not None)
    with nullcontext() if pictures else patch.object(report, "write_report", lambda *args: []):
        folder = train_ladder(
            load_config(path, [*folders, *overrides]), extensions=Extensions(network=factory)
        )
    return json.loads(folder.summary.read_text())


def test_the_users_own_network_gets_ladder_report_and_familiar_notices(tmp_path):
    path = write_experiment(tmp_path / "e.yaml", **POISSON, name="second")
    summary = ladder(path, tmp_path, named_by_size, pictures=True)
    assert summary["levels"][1]["transferred"] == 4 * 9 + 4 + 4 + 4 + 5
    log = (tmp_path / "results" / "second" / "run.log").read_text()
    assert "Skipping layer dense_256: not found in checkpoint" in log
    assert "Skipping layer dense_64: not found in network" in log
    assert (tmp_path / "results" / "second" / "convergence.png").exists()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "model.width=8",
            r"model\.width: 8 has no effect beside network= from Python; it must be 48",
        ),
        (
            "model.depth=1",
            r"model\.depth: 1 has no effect beside network= from Python; it must be null",
        ),
        ("model.growth=false", r"model\.growth: false has no effect beside network="),
    ],
)
def test_a_network_handed_in_leaves_no_setting_without_effect(tmp_path, override, sentence):
    path = write_experiment(tmp_path / "e.yaml", **POISSON)
    with pytest.raises(UserError, match=sentence):
        Experiment(load_config(path, ["model={}", override]), Extensions(network=named_by_size))


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("model.growth=false", "no network gets any"),
        ("model.width={outer: 8, max: 64}", "their neighbours have other widths"),
    ],
)
def test_copies_without_effect_are_refused(tmp_path, override, reason):
    path = write_experiment(tmp_path / "e.yaml", **POISSON)
    config = load_config(path, ["transfer.new_scales=copy", override])
    with pytest.raises(
        UserError, match=f"^transfer.new_scales: .* has no effect .*, as {reason}; "
    ):
        begin(Experiment(config))


@pytest.mark.parametrize("override", ["schedule.cycle=single", "levels=[8]"])
def test_a_single_stage_copies_nothing_and_says_so(tmp_path, caplog, override):
    path = write_experiment(tmp_path / "e.yaml", **POISSON)
    begin(Experiment(load_config(path, ["transfer.new_scales=copy", override])))
    assert "transfer.new_scales: 'copy' has no effect on a single stage" in caplog.text


def test_the_log_names_what_is_copied(tmp_path):
    path = write_experiment(tmp_path / "e.yaml", **POISSON, model={"width": [8, 8, 8, 4]})
    train(path, tmp_path, "transfer.new_scales=copy", "levels=[4, 8, 16, 32]", "model.depth=0")
    log = (tmp_path / "results" / "tiny" / "run.log").read_text()
    assert "level 1: copied from the next coarser scale: scales.1.encoder\n" in log
    assert "level 1: fresh, as it has none of this shape: scales.1.decoder, scales.1.up\n" in log
    assert "level 2: copied from the next coarser scale: scales.2.encoder, scales.2.dec" in log
    assert "level 3: copied" not in log


class WithNamesOfOurs(nn.Conv2d):
    """A network with attributes of its own that networks of this package have as well."""

    checkpoint_activations = True
    signature = "mine"


def test_attributes_of_the_users_own_network_are_its_own(tmp_path, capsys):
    networks = []

    def factory(grid):
        networks.append(WithNamesOfOurs(1, 1, 3, padding=1))
        return networks[-1]

    path = write_experiment(tmp_path / "e.yaml", **POISSON, name="second", levels=[8])
    ladder(path, tmp_path, factory)
    assert all(network.checkpoint_activations for network in networks)
    config = load_config(path, ["model={}", "parallel.checkpoint_activations=true"])
    with pytest.raises(UserError, match="for the networks of the section 'model'"):
        begin(Experiment(config, Extensions(network=factory)))


class WithMetadata(nn.Sequential):
    """A network whose state dictionary holds more than tensors, as those of neuraloperator do."""

    def state_dict(self, *args, **kwargs):
        return {**super().state_dict(*args, **kwargs), "_metadata": {"kind": "FNO"}}

    def load_state_dict(self, state, **options):
        assert state.pop("_metadata") == {"kind": "FNO"}
        return super().load_state_dict(state, **options)

    def get_extra_state(self):
        return "not a tensor either"

    def set_extra_state(self, state):
        assert state == "not a tensor either"


def with_metadata(grid):
    return WithMetadata(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 1, 1))


def test_what_is_no_tensor_in_a_state_dictionary_stays_with_its_network(tmp_path):
    path = write_experiment(tmp_path / "e.yaml", **POISSON, name="second")
    freeze = "transfer.rules=[{pattern: '0', freeze: true}]"
    summary = ladder(path, tmp_path, with_metadata, freeze, "checkpoints.interval=1")
    assert summary["levels"][1]["transferred"] == summary["levels"][0]["parameters"]
    assert summary["levels"][1]["frozen"] == 4 * 9 + 4
    surrogate = multigrid.load(tmp_path / "results" / "second", network=with_metadata)
    surrogate.save(tmp_path / "w.safetensors")
    again = multigrid.load(tmp_path / "w.safetensors", network=with_metadata)
    x = np.ones((1, 1, 16, 16))
    np.testing.assert_array_equal(surrogate(x), again(x))


def with_dropout(grid):
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(4, 1, 1))


def test_what_a_network_draws_by_itself_is_a_function_of_the_step(tmp_path):
    path = write_experiment(tmp_path / "e.yaml", **POISSON, name="second", levels=[8])
    networks = []
    for folder in (tmp_path / "first", tmp_path / "again"):
        torch.rand(7)  # moves torch's own generator on
        ladder(path, folder, with_dropout)
        networks.append(load_checkpoint(level(folder, 0, 8) / "last.pt")["network"])
    assert all(torch.equal(networks[0][key], networks[1][key]) for key in networks[0])


def test_foreign_names_are_mapped(tmp_path):
    path = write_experiment(tmp_path / "e.yaml", **POISSON, name="second", levels=[8])
    foreign = named_by_size(Experiment(load_config(path)).hierarchy.finest).state_dict()
    renamed = {k.replace("lift", "encoder.conv"): t for k, t in foreign.items()}
    torch.save({"state_dict": renamed}, tmp_path / "foreign.pt")
    load = f"checkpoints.load={tmp_path / 'foreign.pt'}"
    rules = "transfer.rename={encoder.conv: lift}"
    summary = ladder(path, tmp_path, named_by_size, load, rules, "schedule.epochs=0")
    assert summary["levels"][0]["new"] == 0


MISTAKES = [
    ({"checkpoints": {"load": "none.pt"}}, "checkpoints.load: no such file: none.pt"),
    ({"transfer": {"rules": [{"pattern": "scale.0", "freeze": True}]}}, "did you mean 'scales.0"),
    ({"transfer": {"rules": [{"freeze": True}]}}, "transfer.rules[0].pattern"),
    ({"transfer": {"rules": [{"pattern": "*", "freze": True}]}}, "did you mean 'freeze'"),
    ({"transfer": {"rules": [{"pattern": "scales.0", "freeze": 7}]}}, "after epoch 7, but the net"),
    ({"transfer": {"mode": "gradual", "unfreeze": [0, 9]}}, "after epoch 9, but the network of"),
    ({"transfer": {"mode": "gradual", "unfreeze": [3, 1]}}, "list of rising numbers"),
    ({"transfer": {"unfreeze": 2}}, "no effect beside transfer.mode 'finetuning'"),
    ({"transfer": {"mode": "features"}}, "parameters of the network of level 0 are frozen"),
    ({"transfer": {"mode": "feature"}}, "did you mean 'features'"),
    ({"transfer": {"rename": {"scales.*": "levels"}}}, "must have as many '*'"),
    ({"transfer": {"rename": {"stage.0": "scales.0"}}}, "'stage.0' matches no tensor"),
    ({"transfer": {"allow": ["scale"]}}, "transfer.allow: 'scale' matches no tensor"),
    ({"transfer": {"mismatch": "error"}, "model": {"width": 9}}, "transfer.mismatch: "),
    ({"transfer": {"featurize": True}}, "data.augmentation: 'auto' makes new samples"),
    ({"transfer": {"mode": "full"}, "schedule": {"transferred_ratio": 0.5}}, "has no effect"),
    ({"checkpoints": {"save": "weights.h5"}}, "a .pt or .safetensors file"),
    ({"checkpoints": {"save": "nowhere/w.pt"}}, "the folder nowhere does not exist"),
    ({"model": {"normalization": "grup"}}, "did you mean 'group'"),
    (
        {"transfer": {"transplant": [{"load": "none.pt", "pattern": "scales.0"}]}},
        "transfer.transplant[0].load: no such file",
    ),
]


@pytest.mark.parametrize(("sections", "sentence"), MISTAKES)
def test_mistakes_cost_one_sentence_and_nothing_is_overwritten(
    tmp_path, pretrained, capsys, sections, sentence
):
    experiment = second(tmp_path, pretrained, **sections)
    assert run(experiment, tmp_path) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_nothing_in_common_is_an_error(tmp_path, pretrained, capsys):
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pt")
    experiment = second(tmp_path, tmp_path, "other.pt")
    assert run(experiment, tmp_path) == 2
    error = capsys.readouterr().err
    assert "nothing could be transferred: none of the 1 tensors" in error
    assert "map other names with transfer.rename" in error
    assert not (tmp_path / "results").exists()


def test_a_finished_file_is_not_replaced_unasked(tmp_path, pretrained, capsys):
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"mine")
    experiment = second(tmp_path, pretrained, checkpoints={"save": str(weights)})
    assert run(experiment, tmp_path) == 2
    assert "exists; use --overwrite" in capsys.readouterr().err
    assert weights.read_bytes() == b"mine"


def test_selected_levels_from_a_further_checkpoint(tmp_path, pretrained):
    weights = load_weights(pretrained / "weights.pt").tensors
    donor = {k: torch.full_like(t, 0.5) for k, t in weights.items()}
    torch.save(donor, tmp_path / "donor.pt")
    transplant = [{"load": str(tmp_path / "donor.pt"), "pattern": "scales.1"}]
    experiment = second(
        tmp_path, pretrained, transfer={"transplant": transplant}, schedule={"epochs": 0}
    )
    train(experiment, tmp_path)
    found = load_checkpoint(level(tmp_path, 1, 16) / "last.pt")["network"]
    for key, tensor in found.items():
        assert torch.equal(tensor, donor[key]) == key.startswith("scales.1."), key


def test_poisson_helps_darcy_as_shipped(tmp_path):
    small = ["data.train=32", "data.validation=16", "data.test=8", "problem.num_modes=8"]
    small += ["model.width=12", "schedule.batch_size=8", "compute.precision=float32"]
    experiments = Path(__file__).parents[1] / "experiments"
    before = experiments / "poisson_two_phase.yaml"
    train(before, tmp_path, *small, "levels=[8,16]", "schedule.epochs=[12,6]",
          "schedule.learning_rate=1e-2")  # fmt: skip
    (weights,) = (tmp_path / "results").glob("poisson_two_phase/level_1_*/best.pt")
    darcy = [*small, "levels=[16]", "model.depth=3", "schedule.epochs=2"]
    errors = []
    for load in (weights, "null"):
        folder = tmp_path / ("with" if load == weights else "without")
        summary = train(
            experiments / "poisson_to_darcy.yaml", folder, *darcy, f"checkpoints.load={load}"
        )
        errors.append(summary["test"]["rel_l2"])
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (lambda grid: "unet", "the factory must return a torch.nn.Module, not str"),
        (lambda grid: nn.Conv2d(3, 1, 1), "on the 8x8 grid it cannot take inputs of shape"),
        (lambda grid: nn.Conv2d(1, 2, 1), r"it gives \[2, 2, 8, 8\] .* must give \[2, 1, 8, 8\]"),
        (lambda grid: nn.Conv2d(1, 1, 3), r"it gives \[2, 1, 6, 6\] .* must give \[2, 1, 8, 8\]"),
    ],
)
def test_networks_that_do_not_fit_are_told_before_any_work(tmp_path, factory, sentence):
    path = write_experiment(tmp_path / "e.yaml", **POISSON, name="second")
    with pytest.raises(UserError, match=sentence):
        ladder(path, tmp_path, factory)
    assert not (tmp_path / "results").exists()


def test_resuming_with_another_network_is_refused(tmp_path):
    from multigrid.run import train_ladder

    path = write_experiment(tmp_path / "e.yaml", **POISSON, name="second", levels=[8])
    ladder(path, tmp_path, named_by_size)
    folders = [f"output.folder={tmp_path / 'results'}", f"data.folder={tmp_path / 'data'}"]
    folders.append("model={}")
    other = Extensions(network=lambda grid: nn.Conv2d(1, 1, 1))
    with pytest.raises(UserError, match="belongs to another network: "):
        train_ladder(load_config(path, folders), resume=True, extensions=other)


def test_the_command_cannot_build_the_users_own_network(tmp_path, capsys):
    path = write_experiment(tmp_path / "e.yaml", **POISSON, levels=[8])
    ladder(path, tmp_path, named_by_size)
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "results" / "tiny")]) == 2
    error = capsys.readouterr().err
    assert "first of all" in error
    assert "is used from Python alone, with multigrid.load(path, network=...)" in error
    assert len(error) < 400


def test_compare_tells_networks_apart(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_experiment(tmp_path / "e.yaml", **POISSON, levels=[8])
    factories = {
        "unet": None,
        "own_seed1": named_by_size,
        "own_seed2": named_by_size,
        "other": lambda grid: nn.Conv2d(1, 1, 3, padding=1),
    }
    kinds = [
        ladder(path, tmp_path, factory, f"name={name}", f"seed={seed}")["network"]
        for seed, (name, factory) in enumerate(factories.items())
    ]
    assert kinds == ["pyramid UNet", *["custom network"] * 3]
    capsys.readouterr()
    runs = [f"results/{name}" for name in factories]
    assert main(["compare", *runs, "results/other/../unet", "--json"]) == 0
    methods = json.loads(capsys.readouterr().out)["methods"]
    assert [(m["method"], m["seeds"]) for m in methods] == [
        ("unet", [0]),
        ("own", [1, 2]),
        ("other", [3]),
    ]
