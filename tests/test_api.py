"""What is promised to those who use the package from Python."""

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import train, write_experiment

import multigrid
from multigrid import UserError
from multigrid.training.evaluation import predict

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    train(write_experiment(folder / "tiny.yaml", problem={"kind": "poisson", "num_modes": 8}),
          folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def run(place):
    return place / "results" / "tiny"


@pytest.fixture
def inputs():
    return np.random.default_rng(0).standard_normal((5, 1, 16, 16))


def test_everything_listed_is_there():
    for name in multigrid.__all__:
        assert getattr(multigrid, name).__doc__
    assert set(multigrid.__all__) <= set(dir(multigrid))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = multigrid.lode


def test_arrays_and_tensors(run, inputs):
    surrogate = multigrid.load(run)
    expected = surrogate(inputs)
    assert (expected.shape, expected.dtype) == ((5, 1, 16, 16), np.float32)
    tensor = torch.from_numpy(inputs)
    assert torch.equal(surrogate(tensor).detach(), torch.from_numpy(expected))
    np.testing.assert_array_equal(surrogate(inputs[2]), surrogate(inputs[2:3])[0])
    np.testing.assert_allclose(surrogate.predict(inputs, batch_size=2), expected, atol=1e-6)
    np.testing.assert_allclose(surrogate.predict(tensor, batch_size=2), expected, atol=1e-6)
    np.testing.assert_allclose(surrogate((inputs > 0).astype("u1")), surrogate(inputs > 0))


def test_each_grid_has_its_own_network(run, inputs):
    surrogate = multigrid.load(run)
    coarse = inputs.reshape(5, 1, 8, 2, 8, 2).mean((3, 5))
    checkpoint = multigrid.load(run / "level_0_8x8" / "best.pt")
    assert str(checkpoint) == "tiny: f -> u on 8x8"
    np.testing.assert_array_equal(surrogate(coarse), checkpoint(coarse))
    with pytest.raises(UserError, match="restrict it to 8x8"):
        checkpoint(inputs)


def test_it_predicts_what_the_run_tested(run):
    summary = json.loads((run / "summary.json").read_text())
    with np.load(run / "predictions.npz") as arrays:
        guess = multigrid.load(run)(arrays["inputs_0"])
        np.testing.assert_allclose(guess, arrays["prediction_0"], atol=1e-6)
    assert summary["test"]["rel_l2"] < 1


def test_gradients_go_through(run):
    x = torch.randn(1, 1, 16, 16, requires_grad=True)
    multigrid.load(run)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_saved_and_loaded_again(run, tmp_path, inputs, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    surrogate = multigrid.load(run)
    path = tmp_path / "a.safetensors"
    surrogate.save("~/a.safetensors")
    again = multigrid.load("~/a.safetensors")
    np.savez(tmp_path / "f.npz", x=inputs, y=surrogate(inputs))
    assert again.evaluate("~/f.npz").mean() < 1e-6
    np.testing.assert_array_equal(again(inputs), surrogate(inputs))
    assert again.config == surrogate.config
    from safetensors.torch import load_file

    assert set(load_file(path)) == set(surrogate.surrogate().network.state_dict())


@pytest.mark.parametrize("diffusion", [False, True], ids=["poisson", "with boundary values"])
def test_exported_for_any_number_of_samples(run, tmp_path, inputs, diffusion):
    if diffusion:
        sections = {"problem": {"kind": "diffusion"}, "data": {"centering": "node"}}
        experiment = write_experiment(tmp_path / "d.yaml", levels=[9, 17], **sections)
        train(experiment, tmp_path)
        run = tmp_path / "results" / "tiny"
        inputs = np.random.default_rng(0).uniform(1, 2, (5, 1, 17, 17))
    surrogate = multigrid.load(run)
    path = tmp_path / "a.pt2"
    surrogate.export(path)
    program = torch.export.load(path).module()
    for count in (1, 5):
        given = inputs[:count]
        found = program(torch.from_numpy(given).float()).detach().numpy()
        np.testing.assert_allclose(found, surrogate(given), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((3, 16, 16), r"\[N, 1, x, y\] is needed: add an axis .* x\[:, None\]"),
        ((16, 16), r"\[N, 1, x, y\] is needed$"),
        ((2, 3, 16, 16), "has 3 fields, but 1 are needed: f"),
        ((2, 1, 32, 32), "trained are 8x8, 16x16; restrict it to 16x16 .averages of 2 points"),
        ((2, 1, 4, 4), "give the input on 16x16, or train with 4x4 among the levels"),
        ((2, 1, 20, 16), "resample it to one of these"),
    ],
)
def test_other_shapes_are_told_what_to_do(run, shape, sentence):
    with pytest.raises(UserError, match=sentence):
        multigrid.load(run)(np.zeros(shape))


def test_bad_values_and_names(run, tmp_path):
    surrogate = multigrid.load(run)
    with pytest.raises(UserError, match="holds complex128, but real numbers"):
        surrogate(np.zeros((1, 1, 16, 16), complex))
    with pytest.raises(UserError, match=r"must end in '\.safetensors'"):
        surrogate.save(tmp_path / "a.bin")
    with pytest.raises(UserError, match=r"must end in '\.pt2'"):
        surrogate.export(tmp_path / "a.onnx")
    with pytest.raises(UserError, match="cannot be written"):
        surrogate.save(tmp_path / "gone" / "a.safetensors")
    with pytest.raises(UserError, match="level 5: not there"):
        surrogate.surrogate(5)
    with pytest.raises(UserError, match="holds no run"):
        multigrid.load(tmp_path)
    with pytest.raises(UserError, match="no such"):
        multigrid.load(tmp_path / "gone.pt")


def test_the_module_can_be_trained_on(run):
    module = multigrid.load(run).surrogate()
    samples = torch.randn(2, 1, 16, 16)
    before = predict(module, samples, 2)
    optimizer = torch.optim.SGD(module.parameters(), 1e-2)
    module(samples).square().mean().backward()
    optimizer.step()
    assert not torch.equal(predict(module, samples, 2), before)


@pytest.mark.parametrize("name", ["multigrid.run", "multigrid.report", "multigrid.surrogate"])
def test_docstrings(place, monkeypatch, name):
    monkeypatch.chdir(place)
    monkeypatch.setattr("multigrid.report.write_report", lambda *args: [])
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_package_is_typed(tmp_path):
    pytest.importorskip("mypy")
    script = tmp_path / "use.py"
    script.write_text(
        "import numpy as np\nimport multigrid\n"
        "surrogate = multigrid.load('results/poisson')\n"
        "reveal_type(surrogate(np.zeros((1, 1, 8, 8))))\n"
    )
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache")]
    shown = subprocess.run(
        [*command, str(script)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stdout
    assert "Revealed type" in shown.stdout
    assert "ndarray" in shown.stdout
    assert (ROOT / "multigrid" / "py.typed").exists()
