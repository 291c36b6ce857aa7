"""``multigrid inspect`` says what is in a file."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

from multigrid.__main__ import main
from multigrid.config import parse_config
from multigrid.config.data import FileConfig
from multigrid.data.files import FileSource
from multigrid.data.inspect import looks_periodic, suggest_levels
from multigrid.data.splits import DataFile
from multigrid.grid import Grid, Hierarchy
from multigrid.ladder.components import problem_and_source

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(0)


def darcy_file(path: Path, num_samples: int = 100, size: int = 32) -> Path:
    with h5py.File(path, "w") as file:
        file["nu"] = np.linspace(1, 2, num_samples)[:, None, None] * np.ones((1, size, size), "f4")
        file["tensor"] = RNG.standard_normal((num_samples, 1, size, size), dtype=np.float32)
    return path


def inspect(capsys, *arguments: object) -> str:
    assert main(["inspect", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_text(tmp_path: Path, capsys) -> None:
    path = darcy_file(tmp_path / "f.hdf5")
    text = inspect(capsys, path)
    for part in ("pdebench", "100", "32x32, cell-centred (a guess", "1 channel, stored as float",
                 "nu", "1 to 2"):  # fmt: skip
        assert part in text
    sections = yaml.safe_load(text.partition("# for the experiment file:")[2])
    assert sections == {
        "problem": {"kind": "file", "file": str(path), "reader": "pdebench", "ndim": 2},
        "data": {"centering": "cell", "train": 80, "validation": 10, "test": 10},
        "levels": [16, 32],
        "model": {"fields": "auto"},
        "schedule": {"epochs": [12, 4], "learning_rate": [2e-3, 1e-3]},
    }


def test_the_suggestion_works(tmp_path: Path, capsys) -> None:
    path = tmp_path / "f.npz"
    np.savez(path, p=RNG.random((25, 21, 41)) > 0.5, q=RNG.random((25, 21, 41, 2)))
    text = inspect(capsys, path, "--input", "p", "--output", "q")
    assert "node-centred (a guess" in text
    sections = yaml.safe_load(text.partition("# for the experiment file:")[2])
    data, problem = sections["data"], sections["problem"]
    assert sections["levels"] == [[21, 41]]
    assert sections["schedule"]["batch_size"] == data["train"] == 21
    assert sections["output"]["num_predictions"] == data["test"] == 2
    counts = {split: data[split] for split in ("train", "validation", "test")}
    options = FileConfig(**problem)
    files = [DataFile(Path(problem["file"]))]
    source = FileSource(files, counts, data["centering"], options)
    assert len(source.read("train", Grid((21, 41), "node"))) == 21


def test_json(tmp_path: Path, capsys) -> None:
    fields = RNG.random((40, 2, 16, 16))
    fields[3, 1, 2, 2], fields[5, 0, 0, 0], fields[7, 0] = np.nan, np.inf, np.nan
    torch.save({"x": torch.ones(40, 16, 16), "y": torch.from_numpy(fields)}, tmp_path / "f.pt")
    report = json.loads(inspect(capsys, tmp_path / "f.pt", "--json"))
    assert report["reader"] == "neuraloperator"
    assert (report["num_samples"], report["grid"]) == (40, [16, 16])
    assert report["inputs"]["channels"] == [{"name": "x", "low": 1, "high": 1, "constant": True}]
    outputs = report["outputs"]
    assert outputs["num_nonfinite"] == 2 + 256
    assert outputs["nonfinite_samples"] == [3, 5, 7]
    assert outputs["dtype"] == "float64"
    finite = np.where(np.isfinite(fields), fields, 0.5).astype(np.float32)
    low, high = finite.min((0, 2, 3)), finite.max((0, 2, 3))
    assert [channel["low"] for channel in outputs["channels"]] == low.tolist()
    assert [channel["high"] for channel in outputs["channels"]] == high.tolist()
    text = inspect(capsys, tmp_path / "f.pt")
    assert "CONSTANT" in text
    assert "258 NaN or infinite values, in samples 3, 5 and 7" in text


def test_a_channel_without_any_finite_value(tmp_path: Path, capsys) -> None:
    np.savez(tmp_path / "f.npz", x=np.full((5, 8, 8), np.nan), y=RNG.random((5, 8, 8)))
    assert "no finite value" in inspect(capsys, tmp_path / "f.npz")
    report = json.loads(inspect(capsys, tmp_path / "f.npz", "--json"))
    assert report["inputs"]["channels"][0]["low"] is None


def test_trajectories(tmp_path: Path, capsys) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["tensor"] = RNG.random((30, 5, 16, 16))
    text = inspect(capsys, tmp_path / "f.h5", "--reduced-resolution", 2, "--fields", "tensor")
    assert "120 one-step pairs of 30 trajectories" in text
    sections = yaml.safe_load(text.partition("# for the experiment file:")[2])
    assert sections["problem"]["reduced_resolution"] == 2
    assert sections["problem"]["fields"] == ["tensor"]
    assert sections["data"]["train"] == 96
    assert sections["levels"] == [8]


def test_too_few_samples_to_suggest_anything(tmp_path: Path, capsys) -> None:
    np.savez(tmp_path / "f.npz", x=RNG.random((2, 8, 8)), y=RNG.random((2, 8, 8)))
    assert "too few samples" in inspect(capsys, tmp_path / "f.npz")


@pytest.mark.parametrize(
    ("grid", "levels"),
    [
        (Grid((128, 128)), [16, 32, 64, 128]),
        (Grid((512, 512)), [64, 128, 256, 512]),
        (Grid((128, 64)), [[32, 16], [64, 32], [128, 64]]),
        (Grid((48, 48)), [24, 48]),
        (Grid((85, 85), "node"), [22, 43, 85]),
        (Grid((421, 421), "node"), [53, 106, 211, 421]),
        (Grid((8, 8, 8)), [8]),
    ],
)
def test_levels_nest(grid: Grid, levels: list) -> None:
    assert suggest_levels(grid) == levels
    shapes = [tuple(n) if isinstance(n, list) else (n,) * grid.ndim for n in levels]
    built = Hierarchy.build([Grid(shape, grid.centering) for shape in shapes])
    assert built.finest == grid


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.h5"], "no such file"),
        (["f.hdf5", "--reader", "wel"], "did you mean 'well'"),
        (["f.hdf5", "--input", "nu"], "name both"),
        (["f.hdf5", "--ndim", "3"], "disagree"),
    ],
)
def test_mistakes_give_one_sentence(arguments, message, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    darcy_file(Path("f.hdf5"), 20, 8)
    assert main(["inspect", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "--help"], ["inspect", "gone.h5"]])
def test_help_and_mistakes_do_not_wait_for_torch(arguments) -> None:
    code = (
        "import sys\nfrom multigrid.__main__ import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    if "--help" in arguments:
        assert "inspect" in result.stdout


def test_the_command(tmp_path: Path) -> None:
    path = darcy_file(tmp_path / "f.hdf5", 20, 8)
    command = [sys.executable, "-m", "multigrid", "inspect"]
    good = subprocess.run([*command, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pdebench" in good.stdout
    path.write_bytes(path.read_bytes()[:3000])
    bad = subprocess.run([*command, path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: ")
    assert "truncated" in bad.stderr
    assert bad.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "periodic"), [("waves", True), ("sines", False), ("ramps", False), ("noise", False)]
)
def test_periodic_fields_are_recognized(name: str, periodic: bool) -> None:
    x = (np.arange(32) + 0.5) / 32
    shift, size = RNG.random((2, 20, 1, 1))
    fields = {
        "waves": np.sin(2 * np.pi * (x[:, None] + 2 * x + shift)),
        "sines": size * np.sin(np.pi * x[:, None]) * np.sin(2 * np.pi * x),  # zero at the ends
        "ramps": size * x[:, None] + shift * x,
        "noise": RNG.standard_normal((20, 32, 32)),
    }
    assert looks_periodic(fields[name][:, None]) == periodic


def test_what_is_guessed_and_what_is_ignored_is_said(tmp_path: Path, capsys) -> None:
    states = RNG.random((12, 5, 2, 16, 16))
    np.savez(tmp_path / "f.npz", u=states, nu=np.linspace(1, 2, 12), dt=0.1, note=np.array("a"))
    text = inspect(capsys, tmp_path / "f.npz")
    assert "axes      u [N T C X Y]: a guess from the shapes" in text
    assert "ignored   note" in text
    assert "scalars   nu, dt can be input channels" in text
    assert '"parameters": ["nu"]' in text.replace("parameters: [", '"parameters": [')
    report = json.loads(inspect(capsys, tmp_path / "f.npz", "--axes", "u=NTCXY", "--json"))
    assert (report["ignored"], report["parameters"]) == (["note"], ["nu", "dt"])
    assert report["arrays"] == [{"name": "u", "axes": "N T C X Y", "why": "as stated"}]
    assert report["suggestion"]["problem"]["axes"] == {"u": "N T C X Y"}
    assert report["suggestion"]["data"]["rollout_steps"] == 4


@pytest.mark.parametrize("count", [3, 5, 9, 10, 12])
@pytest.mark.parametrize("steps", [2, 5])
def test_suggestions_for_few_trajectories_run(count, steps, tmp_path: Path, capsys) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["tensor"] = RNG.random((count, steps, 16, 16))
    report = json.loads(inspect(capsys, tmp_path / "f.h5", "--json"))
    suggestion = report["suggestion"]
    config = parse_config({"name": "f", **suggestion})
    _, source = problem_and_source(config)
    for split in ("train", "validation", "test"):
        assert len(source.read(split, Grid((16, 16)))) == suggestion["data"][split]


def test_mistakes_about_axes(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("f.npz", u=RNG.random((12, 5, 16, 16)))
    for axes, message in (
        ("NTXQ", "must name each axis once"),
        ("NTXX", "must name each axis once"),
        ("u=NTX", "names 3 axes, but 'u' has 4"),
        ("N C T X Y", "'N C T X Y' names 5 axes, but 'u' has 4, [12, 5, 16, 16]"),
        ("u=N T X", "'N T X' names 3 axes, but 'u' has 4"),
    ):
        assert main(["inspect", "f.npz", "--axes", *axes.split()]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["inspect", "f.npz", "--axes", "N", "T", "X", "Y", "u=NTXY"])
    assert "--axes: must be of all arrays, or NAME=AXES for each" in capsys.readouterr().err
    text = inspect(capsys, "f.npz", "--axes", "N", "T", "X", "Y")
    assert "axes      u [N T X Y]: as stated" in text
