"""Compiled networks train as others do, and where they cannot be had, others are trained."""

import copy
import json
import os
import shutil
import signal

import pytest
import soak
import torch
from alike import assert_same_training
from tiny import run, train, write_experiment
from torch import nn

from multigrid.grid import Grid, Hierarchy
from multigrid.ladder.recorder import Recorder
from multigrid.models.growth import UNetFamily
from multigrid.models.layers import set_activation_checkpointing

COMPILED = "compute.compile=true"
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Batches of 4 and 2 samples, so that each network is compiled twice."""
    return write_experiment(
        tmp_path_factory.mktemp("experiment") / "tiny.yaml",
        problem={"kind": "poisson", "num_modes": 4},
        levels=[4, 8],
        data={"train": 6, "validation": 4, "test": 4},
        schedule={"epochs": 2, "batch_size": 4},
        model={"width": 4},
        checkpoints={"interval": 1},
    )


@pytest.fixture(scope="module")
def expected(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    train(experiment, folder)
    return folder / "results" / "tiny"


@pytest.fixture
def graphs(monkeypatch):
    """Has what has been traced run without a C++ compiler; returns the operations of each."""
    original, found = torch.compile, []

    def backend(graph, inputs):
        found.append(len(graph.graph.nodes))
        return graph.forward

    def compile_quickly(network, **options):
        return original(network, dynamic=options["dynamic"], fullgraph=True, backend=backend)

    monkeypatch.setattr(torch, "compile", compile_quickly)
    return found


@needs_compiler
def test_compiled_training_is_the_same_and_resumes_to_the_bit(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("plain", "whole", "parts"):
        (tmp_path / name).mkdir()
    small = ["levels=[4]", "data.train=8", COMPILED]
    train(experiment, tmp_path / "plain", *small[:-1])
    (stage,) = train(experiment, tmp_path / "whole", *small)["levels"]
    plain, whole = (tmp_path / name / "results" / "tiny" for name in ("plain", "whole"))
    assert_same_training(whole, plain)
    assert stage["compiled"] is True
    assert 0 < stage["compile_seconds"] < stage["seconds"]

    step, calls = Recorder.on_step, []

    def stop_once(recorder, *place):
        calls.append(place)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        step(recorder, *place)

    monkeypatch.setattr(Recorder, "on_step", stop_once)
    assert run(experiment, tmp_path / "parts", *small) == 75
    assert run(experiment, tmp_path / "parts", *small, "--resume") == 0
    parts = soak.result(tmp_path / "parts" / "results" / "tiny")
    assert parts == soak.result(whole)


@pytest.mark.parametrize(
    ("overrides", "sizes"),
    [
        ([], 2),
        (["parallel.accumulate=2", "parallel.checkpoint_activations=true"], 1),
        (["model.padding=periodic", "model.normalization=group"], 2),
        (["data.centering=node", "model.form=classic", "levels=[5,9]"], 2),
    ],
    ids=["plain", "in parts, checkpointed", "other layers", "classic, nodes"],
)
def test_networks_are_traced_whole_and_once_for_each_size(
    experiment, expected, tmp_path, graphs, overrides, sizes
):
    for name in ("plain", "compiled"):
        (tmp_path / name).mkdir()
    if overrides:
        train(experiment, tmp_path / "plain", *overrides)
        expected = tmp_path / "plain" / "results" / "tiny"
    summary = train(experiment, tmp_path / "compiled", *overrides, COMPILED)
    assert all(stage["compiled"] for stage in summary["levels"])
    assert_same_training(tmp_path / "compiled" / "results" / "tiny", expected)
    assert len(graphs) == 2 * sizes  # of batches, or of their parts, on two levels


def test_thawed_weights_are_trained_compiled_too(experiment, tmp_path, graphs):
    rules = "transfer.rules=[{pattern: scales.0, freeze: 1}]"
    for name, more in (("plain", []), ("compiled", [COMPILED])):
        (tmp_path / name).mkdir()
        train(experiment, tmp_path / name, rules, *more)
    assert_same_training(*(tmp_path / name / "results" / "tiny" for name in ("compiled", "plain")))
    assert len(graphs) > 4


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("shape", [(16, 16), (8, 8, 8)])
def test_compiled_gradients_are_the_plain_ones(shape, checkpointed, graphs, generator):
    hierarchy = Hierarchy.build([Grid(shape)], min_size=4)
    network = UNetFamily(hierarchy, [4, 4, 4][: len(hierarchy.scales)], 2, 1).build(0)
    set_activation_checkpointing(network, checkpointed)
    x = torch.randn(3, 2, *shape, generator=generator)
    twin = copy.deepcopy(network)
    twin(x)
    torch.compiler.reset()
    outputs = network(x), torch.compile(twin, dynamic=False)(x)
    torch.testing.assert_close(*outputs)
    for output in outputs:
        output.square().mean().backward()
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert len(graphs) == 1


def test_a_failing_compilation_is_told_once_and_costs_nothing(
    experiment, expected, tmp_path, monkeypatch, capsys
):
    calls = []

    class Failing(nn.Module):
        def forward(self, x):
            calls.append(len(x))
            raise RuntimeError("no working C++ compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda network, **options: Failing())
    summary = train(experiment, tmp_path, COMPILED)
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if "compute.compile" in line]
    assert len(lines) == len(calls) == 2  # once a level
    assert "training goes on without compilation: no working C++ compiler" in lines[0]
    assert [stage["compiled"] for stage in summary["levels"]] == [False, False]
    assert_same_training(tmp_path / "results" / "tiny", expected, tolerance=0)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["parallel.strategy=fsdp"], "parallel.strategy 'fsdp'"),
        (["transfer.featurize=true", "data.augmentation=none"], "transfer.featurize true"),
        (["schedule.epochs=auto", "schedule.budget={seconds: 9}"], "schedule.budget seconds"),
    ],
)
def test_what_compiled_networks_do_not_allow(experiment, tmp_path, capsys, overrides, key):
    assert run(experiment, tmp_path, COMPILED, *overrides) == 2
    error = capsys.readouterr().err
    assert f"compute.compile: true is not possible with {key}; it must be false" in error


def test_a_summary_says_that_nothing_was_compiled(expected):
    summary = json.loads((expected / "summary.json").read_text())
    assert [stage["compiled"] for stage in summary["levels"]] == [False, False]
    assert [stage["compile_seconds"] for stage in summary["levels"]] == [0, 0]
