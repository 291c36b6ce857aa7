"""What users add: callbacks, trackers and blocks, from Python and from experiment files."""

import errno
import json
import re
import sys
import types
from collections.abc import Iterable
from typing import Annotated, Literal

import pytest
import torch
from pydantic import Field
from tiny import SECTIONS, run, train, write_experiment

import multigrid
from multigrid import options as options_module
from multigrid.__main__ import main
from multigrid.data.samples import Samples
from multigrid.ladder.components import network_family
from multigrid.ladder.experiment import Experiment
from multigrid.models.surgery import remove_levels
from multigrid.registry import LOSSES, NETWORKS
from multigrid.training.callbacks import Callback
from multigrid.training.optimizers import NamedOptimizer

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


def test_callbacks_that_have_not_started_hear_of_no_end(tmp_path):
    first, last = Noted(), Noted()

    class Fail(Noted):
        def on_start(self, run):
            raise ConnectionError("no network")

    fail = Fail()
    with pytest.raises(ConnectionError, match="no network"):
        multigrid.train(settings(tmp_path), callbacks=[first, fail, last])
    assert first.events == [("start", "tiny"), ("end", False)]
    assert fail.events == last.events == []


def test_a_callback_that_fails_at_the_end_hides_nothing(tmp_path, capsys):
    noted = Noted()

    class Fail(Callback):
        def on_epoch(self, trainer, record):
            raise KeyError("enough")

        def on_end(self, run, summary):
            raise ConnectionError("no network")

    with pytest.raises(KeyError, match="enough"):
        multigrid.train(settings(tmp_path), callbacks=[Fail(), noted])
    assert noted.events[-1] == ("end", False)
    assert "Fail failed at the end: no network" in capsys.readouterr().out


def test_a_run_whose_results_cannot_be_written_tells_its_callbacks(tmp_path, monkeypatch):
    noted = Noted()

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("multigrid.ladder.ladder.spectra", fail)
    with pytest.raises(multigrid.UserError, match="No space left on device"):
        multigrid.train(settings(tmp_path), callbacks=[noted])
    assert noted.events[-2:] == [("level end", 1), ("end", False)]


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        (lambda prediction, truth: 1 / 0, "fails on a try with 2 validation samples: ZeroDivision"),
        (lambda prediction, truth: 0.5, "returns 0.5, but must return one value for each of the 2"),
        (lambda prediction, truth: truth.mean(), r"returns the shape \(\), but must return one"),
    ],
)
def test_metrics_are_tried_before_training(tmp_path, metric, sentence):
    noted = Noted()
    with pytest.raises(multigrid.UserError, match=f"metrics: 'own' {sentence}"):
        multigrid.train(settings(tmp_path), metrics={"own": metric}, callbacks=[noted])
    assert noted.events == []


def test_what_is_handed_in_leaves_no_setting_without_effect(tmp_path):
    data = {**settings(tmp_path)["data"], "centering": "node"}
    raw = settings(tmp_path, problem={"kind": "diffusion"}, levels=[9, 17], data=data)
    raw["loss"] = {"name": "energy"}
    with pytest.raises(
        multigrid.UserError, match=r'loss\.name: "energy" has no effect beside loss='
    ):
        multigrid.train(raw, loss=lambda prediction, batch: prediction.square().mean())
    budget = {"work_units": 1.0, "error": 0.1}
    schedule = {**SECTIONS["schedule"], "epochs": "auto", "cycle": "half-v", "budget": budget}
    with pytest.raises(multigrid.UserError, match=r"budget\.error: is for the growing pyramids"):
        multigrid.train(
            settings(tmp_path, schedule=schedule),
            network=lambda grid: torch.nn.Conv2d(1, 1, 3, padding=1),
        )

    with pytest.raises(multigrid.UserError, match=r"loss\.options: .* has no effect beside loss="):
        multigrid.train(
            settings(tmp_path, loss={"options": {"power": 2}}),
            loss=lambda prediction, batch: prediction.square().mean(),
        )
    with pytest.raises(multigrid.UserError, match=r'optimizer\.name: "adamw" has no effect beside'):
        multigrid.train(settings(tmp_path, optimizer={"name": "adamw"}), optimizer=torch.optim.SGD)


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
    assert not (tmp_path / "data").exists()  # before samples are generated


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


OPTIONS = """
import torch
from torch import nn
from multigrid import register_block, register_loss, register_network, register_optimizer

@register_block("dilated_of_test")
class Dilated(nn.Module):
    def __init__(self, ndim, channels, padding, norm, dilation=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x):
        return x + self.conv(x)

@register_loss("power_of_test")
def power(prediction, batch, exponent):
    return (prediction - batch.outputs).abs().pow(exponent).mean()

@register_optimizer("sgd_of_test")
def sgd(groups, momentum=0.5):
    return torch.optim.SGD(groups, momentum=momentum)

@register_network("pointwise_of_test")
def pointwise(grid, in_channels, out_channels, *, width):
    lift = nn.Conv2d(in_channels, width, 1)
    return nn.Sequential(lift, nn.SiLU(), nn.Conv2d(width, out_channels, 1))
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "with_options.py"
    path.write_text(OPTIONS)
    return path


@pytest.fixture
def with_options(tmp_path, plugin):
    return write_experiment(tmp_path / "e.yaml", problem=POISSON, plugins=[str(plugin)])


def test_options_reach_what_is_registered(with_options, tmp_path):
    overrides = (
        "model.block=dilated_of_test",
        "model.options={dilation: 2}",
        "loss={name: power_of_test, options: {exponent: 4}}",
        "optimizer={name: sgd_of_test, options: {momentum: 0.25}}",
    )
    experiment = Experiment(multigrid.configure(str(with_options), *overrides))
    block = experiment.family.build(1).scales[0].encoder[0]
    assert block.conv.dilation == (2, 2)
    grid = experiment.hierarchy.finest
    batch = Samples(torch.zeros(1, 1, *grid.shape), torch.zeros(1, 1, *grid.shape), grid)
    assert experiment.loss(grid, 1, ())(batch.outputs + 2, batch) == 16
    made = NamedOptimizer(experiment.family.build(1), experiment.options.optimizer).optimizers
    assert [optimizer.defaults["momentum"] for optimizer in made] == [0.25]
    train(with_options, tmp_path, *overrides)
    network = multigrid.load(tmp_path / "results" / "tiny").surrogate(1).network
    assert network.scales[0].encoder[0].conv.dilation == (2, 2)
    wider = remove_levels(network)[0].scales[0].encoder[0]
    assert wider.conv.dilation == (2, 2)


def test_a_registered_network_is_told_its_channels_and_options(with_options):
    config = multigrid.configure(
        str(with_options), "model={network: pointwise_of_test, options: {width: 5}}"
    )
    lift, _, project = network_family(config, 2, 3).build(0)
    assert (lift.in_channels, lift.out_channels, project.out_channels) == (2, 5, 3)

    def handed_in(grid, in_channels, out_channels):
        return torch.nn.Conv2d(in_channels, out_channels, 1)

    plain = multigrid.configure(str(with_options))
    assert network_family(plain, 2, 3, handed_in).build(0).out_channels == 3
    with pytest.raises(multigrid.UserError, match=r"model\.options: have no effect on a network"):
        network_family(config, 2, 3, handed_in)


class Base:
    def __init__(self, first, second=0.0):
        self.given = first, second


class Passing(Base):
    def __init__(self, *args, dilation=1, **rest):
        super().__init__(*args, **rest)
        self.dilation = dilation


def needs(first, width, **rest):
    return first, width, rest


def annotated(
    first,
    every: int | None = 10,
    name: "str" = "a",
    exact: bool = False,
    rate: "Annotated[float, Field(gt=0)]" = 1.0,
    size: Annotated[int, Field(gt=0, description="a positive size")] = 1,
    kind: Literal["a", "b"] = "a",
    betas: tuple[float, float] = (0.0, 0.0),
    device: torch.device | None = None,
    grid: "Elsewhere" = 0,  # noqa: F821
    rates: Iterable[float] = (),
    table: dict | None = None,
    limit: float = None,  # noqa: RUF013 (as some write it)
):
    return (every, name, betas, device, grid) if limit is None else (rates, table)


def test_options_are_the_parameters_that_are_not_passed():
    def given(item, reserved=(), **options):
        return options_module.with_options(item, options, 1, reserved, "the thing 'x'", "here")

    assert given(Passing, dilation=2)(5).dilation == 2
    assert given(Passing, second=2.5)(5).given == (5, 2.5)
    assert given(needs, width=3, more=4)(1) == (1, 3, {"more": 4})
    taken = given(annotated, every=None, name="b", betas=[0, 0.5], device="cpu", grid="x")
    assert taken(1) == (None, "b", (0, 0.5), "cpu", "x")
    again = given(annotated, rates=[1, 2], table={1: 2}, limit=1.5)
    assert [(list(rates), table) for rates, table in (again(1), again(1))] == 2 * [([1, 2], {1: 2})]
    assert given(annotated, limit=None)(1)[0] == 10
    block = given(annotated, device=torch.nn.ReLU)  # from Python
    assert block(1)[3] is torch.nn.ReLU
    made = given(torch.optim.SGD, momentum=0.9)([torch.zeros(1)])
    assert made.defaults["momentum"] == 0.9
    assert given(torch.dist) is torch.dist  # written in C
    for item, options, sentence in (
        (needs, {}, "here: the thing 'x' needs the option 'width'"),
        (needs, {"first": 1, "width": 2}, "has no option 'first'; it has width"),
        (needs, {"width": 2, "scale": 2}, "has no option 'scale'; it has width"),
        (torch.dist, {"p": 1}, "has no option 'p'; it has none"),
        (annotated, {"name": 3}, "here.name: 3 is not allowed; it must be a valid string"),
        (annotated, {"exact": 1}, "here.exact: 1 is not allowed; it must be a valid boolean"),
        (annotated, {"every": 2.5}, "here.every: 2.5 is not allowed; it must be a valid integer"),
        (annotated, {"rate": -1.0}, "here.rate: -1.0 is not allowed; it must be greater than 0"),
        (
            annotated,
            {"rate": "wide"},
            "here.rate: 'wide' is not allowed; it must be a valid number",
        ),
        (annotated, {"size": 0}, "here.size: 0 is not allowed; it must be a positive size"),
        (annotated, {"kind": "c"}, "here.kind: 'c' is not allowed; it must be 'a' or 'b'"),
        (annotated, {"betas": [1]}, "here.betas: [1] is not allowed; "),
    ):
        with pytest.raises(multigrid.UserError, match=re.escape(sentence)):
            given(item, reserved=("scale",), **options)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "model={block: dilated_of_test, options: {dilatation: 2}}",
            "model.options: the block 'dilated_of_test' has no option 'dilatation'; it has "
            "dilation; did you mean 'dilation'?",
        ),
        ("model.options={activation: none}", "the block 'residual' has no option 'activation'; it"),
        (
            "model={network: pointwise_of_test}",
            "the network 'pointwise_of_test' needs the option 'width'",
        ),
        (
            "loss.name=power_of_test",
            "loss.options: the loss 'power_of_test' needs the option 'exponent'",
        ),
        (
            "model={block: dilated_of_test, options: {dilation: wide}}",
            "model.options.dilation: 'wide' is not allowed; it must be a valid ",
        ),
        (
            "optimizer={name: sgd_of_test, options: {momentum: high}}",
            "optimizer.options.momentum: 'high' is not allowed; it must be a valid ",
        ),
        ("loss.options={scale: 2}", "the loss 'rel_l2' has no option 'scale'; it has none"),
        ("optimizer.options={dtype: 2}", "the optimizer 'muon' has no option 'dtype'; it has none"),
        (
            "optimizer={name: sgd_of_test, options: {lr: 1}}",
            "optimizer.options: the optimizer 'sgd_of_test' has no option 'lr'; it has momentum",
        ),
        (
            "loss.options={a: .nan}",
            'loss.options: {"a": NaN} has values that are not allowed; they must be texts',
        ),
        ("loss.options=[2]", "loss.options: [2] is not allowed; it must be {name: value}"),
    ],
)
def test_options_that_are_not_there(with_options, tmp_path, capsys, override, sentence):
    assert run(with_options, tmp_path, override) == 2
    assert sentence in capsys.readouterr().err


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
