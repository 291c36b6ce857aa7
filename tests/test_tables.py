"""The published tables beside what trains here, with cases made tiny."""

import json
from functools import partial
from pathlib import Path

import pytest

from experiments.benchmarks import tables
from experiments.benchmarks.tables import Case
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
    assert wave["methods"]["ours"]["in"]["min_max_rel_l1"] > 0
    assert wave["methods"]["ours"]["out"]["rel_l2"] > 0
    assert wave["generation"]["samples"] == 16 + 4 + 6 + 6
    assert 0 < flow["methods"]["classic"]["block_rel_l2"] < 2
    assert 0 < flow["methods"]["classic"]["persistence"] < 2
    runs = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/summary.json")}
    assert len(runs) == 4
    assert "## wave" in tables.run(["wave", "ours"], 0.02, small)
    assert runs == {path: path.stat().st_mtime_ns for path in runs}


def test_a_case_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no case or method 'wafe', only .*; did you mean 'wave'"):
        tables.run(["wafe"], 1, tmp_path)


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
    config, _, network = tables._setup(name, method, 20, tmp_path)
    assert config.schedule.budget.seconds == 1200
    assert (network is not None) == (method == "fno")
    if method != "ours":
        assert (config.data.augmentation, config.data.mode_shifts) == ("none", 0)
    if method not in tables.OURS:
        assert (config.model.activation, config.data.noise) == ("silu", 0)
