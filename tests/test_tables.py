"""The published tables beside what trains here, with cases made tiny."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest

from experiments.benchmarks import __main__ as command
from experiments.benchmarks import tables
from experiments.benchmarks.tables import Case
from multigrid.config.checks import check_handed_in
from multigrid.errors import UserError

SMALL = (
    "data.train=16",
    "data.validation=4",
    "data.test=6",
    "levels=[8,16]",
    "compute.precision=float32",
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two tiny cases with two methods, and the folder for their records."""
    here = (*SMALL, f"data.folder={tmp_path / 'data'}", "model.width=8")
    wave = (*here, "problem.num_modes=3", "data.extra_tests={out_of_distribution: {num_modes: 4}}")
    flow = (*here, "problem.num_states=2", "problem.resolution=16", "problem.substeps=8")
    cases = {
        "wave": Case("cno/wave", {"CNO": (0.63, 1.17)}, overrides=wave, ours=()),
        "navier_stokes": Case("navier_stokes_ten", {"FNO": (0.1,)}, "flow", flow, ours=()),
    }
    monkeypatch.setattr(tables, "CASES", cases)
    budget = "schedule.budget={work_units: 3}"  # seconds would depend on the machine
    monkeypatch.setattr(tables, "COMMON", (*tables.COMMON, budget))
    methods = {key: tables.METHODS[key] for key in ("ours", "classic")}
    classic = [s for s in methods["classic"][1] if "width" not in s]
    methods["classic"] = ("classic UNet", (*classic, "model.width={outer: 4, max: 8}"))
    monkeypatch.setattr(tables, "METHODS", methods)
    monkeypatch.setattr(tables, "GRID", "levels=[16]")
    return tmp_path / "tables"


def test_the_tables_are_trained_once_and_written(small: Path) -> None:
    text = tables.run([], 0.02, small)
    folder = small / "0.02_minutes"
    assert (folder / "table.md").read_text() == text
    assert "## wave: 0.02 minutes" in text
    assert "| *CNO, published* | 0.63 | 1.17 |" in text
    wave, flow = (json.loads((folder / f"{n}.json").read_text()) for n in tables.CASES)
    ours = wave["methods"]["ours"]["runs"]["0"]
    assert min(ours["in"]["min_max_rel_l1"], ours["out"]["rel_l2"]) > 0
    assert wave["generation"]["samples"] == 16 + 4 + 6 + 6
    classic = flow["methods"]["classic"]["runs"]["0"]
    assert 0 < classic["block_rel_l2"] < 2
    assert 0 < classic["persistence"] < 2
    runs = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/summary.json")}
    assert len(runs) == 4
    assert "## wave" in tables.run(["wave", "ours"], 0.02, small)
    assert runs == {path: path.stat().st_mtime_ns for path in runs}


def test_rows_of_a_record_stay(small: Path) -> None:
    tables.run(["wave", "classic"], 0.02, small)
    path = small / "0.02_minutes/wave.json"
    before = json.loads(path.read_text())
    shutil.rmtree(small / "0.02_minutes/runs")  # as in a clone
    text = tables.run(["wave", "ours"], 0.02, small)
    after = json.loads(path.read_text())
    assert after["methods"].pop("ours")["runs"].keys() == {"0"}
    assert [after[key] for key in ("methods", "generation")] == [
        before[key] for key in ("methods", "generation")
    ]
    places = [text.index(f"| {label} | ") for label in ("ours, exact augmentation", "classic UNet")]
    assert places == sorted(places)  # whatever was trained first


def test_several_seeds_are_a_mean_and_a_range(small: Path) -> None:
    text = tables.run(["wave", "ours"], 0.02, small, num_seeds=2)
    runs = json.loads((small / "0.02_minutes/wave.json").read_text())["methods"]["ours"]["runs"]
    low, high = sorted(run["in"]["min_max_rel_l1"] for run in runs.values())
    assert low < high
    assert f"| {(low + high) / 2:.2f} ({low:.2f} to {high:.2f}) | " in text


def test_changed_settings_are_no_finished_run(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.run(["wave", "ours"], 0.02, small)
    monkeypatch.setattr(tables, "COMMON", (*tables.COMMON, "schedule.learning_rate=1e-3"))
    with pytest.raises(UserError, match=r"ours on wave, seed 0: .*schedule\.learning_rate"):
        tables.run(["wave", "ours"], 0.02, small)


def test_a_row_that_fails_does_not_end_the_others(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label, settings = tables.METHODS["classic"]
    monkeypatch.setitem(tables.METHODS, "classic", (label, (*settings, "data.train=3")))
    with pytest.raises(UserError, match=r"rows are missing: classic on wave, seed 0: .*16 is more"):
        tables.run(["wave"], 0.02, small)
    record = json.loads((small / "0.02_minutes/wave.json").read_text())
    assert record["methods"].keys() == {"ours"}
    assert "| ours, exact augmentation | " in (small / "0.02_minutes/table.md").read_text()


@pytest.mark.parametrize(
    ("names", "minutes", "seeds", "told"),
    [
        (["wafe"], 1, 1, r"no case or method 'wafe', only .*; did you mean 'wave'"),
        (["wave"], 0, 1, r"--minutes: 0 is not allowed"),
        (["wave"], float("nan"), 1, r"--minutes: nan is not allowed"),
        (["wave"], 1, 0, r"--seeds: 0 is not allowed"),
    ],
)
def test_what_is_not_allowed(
    names: list[str], minutes: float, seeds: int, told: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=told):
        tables.run(names, minutes, tmp_path, seeds)


def test_a_missing_package_is_told_before_anything_is_trained(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tables.METHODS, "fno", ("FNO", ()))
    monkeypatch.setitem(sys.modules, "neuralop.models", None)
    with pytest.raises(UserError, match="need the package neuraloperator"):
        tables.run(["wave"], 0.02, small)
    assert not small.exists()


@pytest.mark.parametrize("option", ["minutes", "seeds", "experiment"])
def test_options_without_an_effect_are_refused(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = "poisson_3d" if option != "experiment" else "tables"
    assert command.main([suite, f"--{option}", "1"]) == 2
    assert f"--{option}: has no effect on '{suite}', only on " in capsys.readouterr().err


def test_the_fno_takes_blocks_of_states() -> None:
    pytest.importorskip("neuralop")
    import torch

    from experiments.benchmarks.peers import fno
    from multigrid.grid import Grid

    network = partial(fno, channels=(10, 10))(Grid((64, 64)))
    assert network(torch.zeros(1, 10, 64, 64)).shape == (1, 10, 64, 64)


@pytest.mark.parametrize("name", tables.CASES)
@pytest.mark.parametrize("method", tables.METHODS)
def test_every_case_has_settings_for_every_method(name: str, method: str, tmp_path: Path) -> None:
    config, network = tables._setup(name, method, 20, 0, tmp_path)
    assert config.schedule.budget.seconds == 1200
    assert (network is not None) == (method == "fno")
    if network is not None:
        check_handed_in(config, "network")
    if method != "ours":
        assert (config.data.augmentation, config.data.mode_shifts) == ("none", 0)
    if not method.startswith("ours"):
        assert (config.model.activation, config.data.noise) == ("silu", 0)
