"""What users add: callbacks, trackers and blocks, from Python and from experiment files."""

import json
import sys
import types

import pytest
import torch
from tiny import SECTIONS, run, train, write_experiment

import multigrid
from multigrid.__main__ import main
from multigrid.ladder.components import network_family
from multigrid.registry import LOSSES, NETWORKS
from multigrid.training.callbacks import Callback

POISSON = {"kind": "poisson", "num_modes": 4}


class Noted(Callback):
    """Notes what it is told."""

    def __init__(self):
        self.events = []

    def on_start(self, run):
        self.events.append(("start", run.config.name))

    def on_level_start(self, run, trainer):
        self.events.append(("level start", trainer.stage.level, len(run.rows)))

    def on_step(self, trainer):
        self.events.append(("step", trainer.progress.step))

    def on_epoch(self, trainer, record):
        self.events.append(("epoch", record.epoch))

    def on_level_end(self, run, trainer):
        self.events.append(("level end", trainer.stage.level))

    def on_end(self, run, summary):
        self.events.append(("end", summary is not None and "test" in summary))


def settings(folder, **sections):
    output = {"folder": str(folder / "results"), "figures": False}
    return {
        **SECTIONS,
        "problem": POISSON,
        "data": {**SECTIONS["data"], "folder": str(folder / "data")},
        "output": output,
        **sections,
    }


def test_a_callback_sees_the_run_in_order(tmp_path):
    noted = Noted()
    multigrid.train(settings(tmp_path), callbacks=[noted])
    steps = [("step", step) for step in (1, 2, 3, 4)]
    assert noted.events == [
        ("start", "tiny"),
        ("level start", 0, 1),
        *steps,
        ("epoch", 1),
        ("level end", 0),
        ("level start", 1, 3),
        *steps,
        ("epoch", 1),
        ("level end", 1),
        ("end", True),
    ]


def test_a_callback_may_end_a_level(tmp_path):
    class Stop(Callback):
        def on_epoch(self, trainer, record):
            trainer.should_stop = trainer.stage.level == 0 and record.epoch == 2

    schedule = {**SECTIONS["schedule"], "epochs": 3}
    multigrid.train(settings(tmp_path, schedule=schedule), callbacks=[Stop()])
    summary = json.loads((tmp_path / "results" / "tiny" / "summary.json").read_text())
    assert [level["epochs"] for level in summary["levels"]] == [2, 3]


@pytest.mark.parametrize("kind", [multigrid.UserError, ConnectionError, KeyError])
def test_a_failing_run_tells_its_callbacks_and_is_saved(tmp_path, kind):
    noted = Noted()

    class Fail(Callback):
        def on_epoch(self, trainer, record):
            raise kind("enough")

    with pytest.raises(kind, match="enough"):
        multigrid.train(settings(tmp_path), callbacks=[noted, Fail()])
    assert noted.events[-1] == ("end", False)
    assert (tmp_path / "results" / "tiny" / "level_0_8x8" / "last.pt").exists()


def test_a_callback_finds_the_results_at_the_end(tmp_path):
    found = []

    class Read(Callback):
        def on_end(self, run, summary):
            written = json.loads((run.folder.path / "summary.json").read_text())
            found.append(written["test"] == summary["test"])

    multigrid.train(settings(tmp_path), callbacks=[Read()])
    assert found == [True]


def test_what_is_handed_in_leaves_no_setting_without_effect(tmp_path):
    data = {**settings(tmp_path)["data"], "centering": "node"}
    raw = settings(tmp_path, problem={"kind": "diffusion"}, levels=[9, 17], data=data)
    raw["loss"] = {"name": "energy"}
    with pytest.raises(multigrid.UserError, match=r"loss\.name: 'energy' has no effect on a loss"):
        multigrid.train(raw, loss=lambda prediction, batch: prediction.square().mean())
    budget = {"work_units": 1.0, "error": 0.1}
    schedule = {**SECTIONS["schedule"], "epochs": "auto", "cycle": "half-v", "budget": budget}
    with pytest.raises(multigrid.UserError, match=r"budget\.error: is for the growing pyramids"):
        multigrid.train(
            settings(tmp_path, schedule=schedule),
            network=lambda grid: torch.nn.Conv2d(1, 1, 3, padding=1),
        )


def test_what_is_no_callback_is_told_before_training(tmp_path):
    lone = types.SimpleNamespace(on_epoch=print)
    with pytest.raises(multigrid.UserError, match=r"SimpleNamespace is no callback; derive"):
        multigrid.train(settings(tmp_path), callbacks=[lone])
    assert not (tmp_path / "results").exists()


def test_registered_callbacks_are_named_in_the_experiment(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "from multigrid import Callback, register_callback\n\n"
        "@register_callback('touch')\n"
        "class Touch(Callback):\n"
        "    def __init__(self, path):\n"
        "        self.path = path\n\n"
        "    def on_end(self, run, summary):\n"
        "        Path(self.path).write_text(run.config.name)\n"
    )
    path = tmp_path / "there"
    experiment = write_experiment(
        tmp_path / "e.yaml",
        problem=POISSON,
        plugins=["mine.py"],
        output={"callbacks": [{"touch": {"path": str(path)}}]},
    )
    train(experiment, tmp_path)
    assert path.read_text() == "tiny"


@pytest.mark.parametrize(
    ("callbacks", "sentence"),
    [
        ("[wandbb]", "wandb"),
        ("[wandb]", "the package 'wandb' is not installed"),
        ("[{mlflow: {}}]", "the package 'mlflow' is not installed"),
    ],
)
def test_what_cannot_be_had_is_told(tmp_path, capsys, monkeypatch, callbacks, sentence):
    for package in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, package, None)
    experiment = write_experiment(tmp_path / "e.yaml", problem=POISSON)
    assert run(experiment, tmp_path, f"output.callbacks={callbacks}") == 2
    assert sentence in capsys.readouterr().err


def test_trackers_log_every_epoch_and_the_test(tmp_path, monkeypatch):
    logged = {"wandb": [], "mlflow": []}
    summary = {}
    ids = []
    wandb = types.SimpleNamespace(
        init=lambda id, **options: types.SimpleNamespace(
            begun=ids.append(id),
            log=lambda values, step: logged["wandb"].append((step, values)),
            summary=summary,
            finish=lambda exit_code: summary.update(code=exit_code),
        )
    )
    mlflow = types.SimpleNamespace(
        start_run=lambda **options: None,
        log_dict=lambda values, name: None,
        log_metrics=lambda values, step=None: logged["mlflow"].append((step, values)),
        end_run=lambda status: summary.update(status=status),
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    experiment = write_experiment(tmp_path / "e.yaml", problem=POISSON)
    result = train(experiment, tmp_path, "output.callbacks=[{wandb: {project: p}}, mlflow]")
    assert [step for step, _ in logged["wandb"]] == [1, 3]
    assert "val_rel_l2/level_1" in logged["wandb"][-1][1]
    assert summary["rel_l2"] == result["test"]["rel_l2"]
    assert logged["mlflow"][-1] == (None, {f"test_{k}": v for k, v in result["test"].items()})
    assert (summary["code"], summary["status"]) == (0, "FINISHED")
    (tmp_path / "results" / "tiny" / "summary.json").unlink()  # as if it had been interrupted
    train(experiment, tmp_path, "output.callbacks=[{wandb: {project: p}}, mlflow]", "--resume")
    assert len(ids) == 2
    assert ids[0] == ids[1]


def test_a_registered_loss_is_not_needed_to_predict(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LOSSES, "_items", dict(LOSSES._items))
    (tmp_path / "losses_for_test.py").write_text(
        "from multigrid import register_loss\n\n"
        "@register_loss('squares')\n"
        "def squares(prediction, batch):\n"
        "    return (prediction - batch.outputs).square().mean()\n"
    )
    plugins = ["losses_for_test.py"]
    experiment = write_experiment(tmp_path / "e.yaml", problem=POISSON, plugins=plugins)
    train(experiment, tmp_path, "loss.name=squares")
    del LOSSES._items["squares"]
    sys.modules.pop("losses_for_test")
    assert multigrid.load("results/tiny").config.loss.name == "squares"
    assert main(["evaluate", "results/tiny"]) == 0
    assert main(["compare", "results/tiny"]) == 0
    with pytest.raises(multigrid.UserError, match=r"loss.name: \"squares\" is not allowed"):
        multigrid.configure(multigrid.load("results/tiny").config, "plugins=[]")


def test_a_dry_run_tells_of_fields_that_are_not_there(tmp_path, capsys):
    experiment = write_experiment(tmp_path / "e.yaml", problem=POISSON)
    assert run(experiment, tmp_path, "loss.weights={u_9: 3}", "--dry-run") == 2
    told = "loss.weights: there is no output field 'u_9'; there are u; did you mean 'u'?"
    assert told in capsys.readouterr().err


def own_loss(prediction, batch):
    return (prediction - batch.outputs).square().mean()


def largest(prediction, truth):
    return (prediction - truth).abs().flatten(1).amax(1)


def test_what_is_handed_in_is_recorded(tmp_path, capsys):
    raw = settings(tmp_path)
    multigrid.train(raw, loss=own_loss, callbacks=[Noted()], metrics={"own": largest})
    folder = tmp_path / "results" / "tiny"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["handed_in"]["loss"] == "test_extensions.own_loss"
    assert summary["handed_in"]["callbacks"] == ["test_extensions.Noted"]
    assert list(summary["handed_in"]["metrics"]) == ["own"]
    assert summary["events"][0]["loss"] == "test_extensions.own_loss"
    remark = "loss: test_extensions.own_loss, handed in from Python"
    assert remark in capsys.readouterr().out
    assert remark in (folder / "report.html").read_text()
    (folder / "summary.json").unlink()  # as if it had been interrupted
    multigrid.train(raw, resume=True)
    told = "resumed with a different loss: test_extensions.own_loss before, rel_l2 now"
    assert told in capsys.readouterr().out


def test_a_registered_block_is_named_in_the_experiment(tmp_path, capsys):
    (tmp_path / "blocks.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from multigrid import register_block\n\n"
        "@register_block('scaled')\n"
        "class Scaled(nn.Module):\n"
        "    def __init__(self, ndim, channels, padding, norm):\n"
        "        super().__init__()\n"
        "        self.scale = nn.Conv2d(channels, channels, 1)\n"
        "        self.gain = nn.Parameter(torch.full((1,), 0.5))\n"
        "        self.register_buffer('shift', torch.full((1,), 0.25))\n\n"
        "    def forward(self, x):\n"
        "        return x + self.gain * self.scale(x) + self.shift\n"
    )
    experiment = write_experiment(tmp_path / "e.yaml", problem=POISSON, plugins=["blocks.py"])
    assert run(experiment, tmp_path, "model.block=scale") == 2
    assert "did you mean 'scaled'?" in capsys.readouterr().err
    assert run(experiment, tmp_path, "model.block=scaled", "model.activation=none") == 2
    sentence = "model.activation: \"none\" has no effect on model.block 'scaled'; it must be"
    assert sentence in capsys.readouterr().err
    config = multigrid.configure(str(experiment), "model.block=scaled")
    initial = network_family(config, 1, 1).build(1).state_dict()
    assert {initial[f"scales.{k}.encoder.0.gain"].item() for k in range(3)} == {0.5}
    assert {initial[f"scales.{k}.encoder.0.shift"].item() for k in range(3)} == {0.25}
    train(experiment, tmp_path, "model.block=scaled")
    tensors = multigrid.load(tmp_path / "results" / "tiny").surrogate(1).network.state_dict()
    assert "scales.0.encoder.0.scale.weight" in tensors


def test_a_registered_network_is_known_to_every_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(NETWORKS, "_items", {})
    (tmp_path / "nets_for_test.py").write_text(
        "from torch import nn\n"
        "from multigrid import register_network\n\n"
        "@register_network('plain')\n"
        "def plain(grid):\n"
        "    return nn.Conv2d(1, 1, 3, padding=1)\n"
    )
    plugins, width = ["nets_for_test.py"], SECTIONS["model"]["width"]
    experiment = write_experiment(tmp_path / "e.yaml", problem=POISSON, plugins=plugins)
    assert run(experiment, tmp_path, "model.network=plane") == 2
    assert "did you mean 'plain'?" in capsys.readouterr().err
    assert run(experiment, tmp_path, "model.network=plain") == 2
    sentence = f"model.width: {width} has no effect on model.network 'plain'; it must be 48"
    assert sentence in capsys.readouterr().err
    train(experiment, tmp_path, "model={network: plain}")
    assert list(multigrid.load("results/tiny").surrogate().network.state_dict()) == [
        "weight",
        "bias",
    ]
    NETWORKS._items.pop("plain")
    sys.modules.pop("nets_for_test")
    assert main(["evaluate", "results/tiny"]) == 2
    assert "nets_for_test.py: give that as --plugin" in capsys.readouterr().err
    assert main(["evaluate", "results/tiny", "--plugin", "nets_for_test.py"]) == 0
