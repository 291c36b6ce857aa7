"""What benchmarks conclude from runs, and a suite of tiny ones that can be interrupted."""

import csv
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import write_experiment

from experiments.benchmarks.analysis import CostRecord, speed_ups
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.speedup import SuiteRun
from experiments.benchmarks.suites import Method, Suite
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.ladder.ladder import LadderRun
from multigrid.ladder.state import RunState
from multigrid.records.history import Row

# ---------------------------------------------------------------- conclusions


def record(
    method: str, points: Sequence[tuple[int, float, float]], seed: int = 0, rate: float = 10.0
) -> CostRecord:
    """A run from its levels, seconds and errors, at ``rate`` operations a second."""
    rows = [
        replace(
            Row.zero(), level=level, seconds=seconds, flops=rate * seconds, val_finest_rel_l2=error
        )
        for level, seconds, error in points
    ]
    return CostRecord(method, seed, rows)


LADDER = record("ladder", [(0, 0, 1.0), (0, 1, 0.2), (1, 2, 0.3), (1, 4, 0.1), (1, 5, 0.05)])
DIRECT = record("direct", [(0, 0, 1.0), (0, 8, 0.5), (0, 16, 0.2), (0, 40, 0.1), (0, 50, 0.11)])


def test_cost_to_an_error() -> None:
    assert LADDER.best == 0.05
    assert LADDER.cost_to(0.2, "seconds") == 1
    assert LADDER.cost_to(0.2, "flops") == 10
    assert LADDER.cost_to(0.2, "seconds", finest_only=True) == 4
    assert LADDER.cost_to(1.0, "seconds") == 0
    assert LADDER.cost_to(0.01, "seconds") == math.inf


@pytest.mark.parametrize(("seconds", "error"), [(0, 1.0), (3.9, 0.2), (4, 0.1), (99, 0.05)])
def test_error_at_a_time(seconds: float, error: float) -> None:
    assert LADDER.error_at(seconds) == error


def test_no_error_before_the_start() -> None:
    assert LADDER.error_at(-1) == math.inf


def test_speed_ups_at_multiples_of_direct_trainings_best_error() -> None:
    best, tenth, double = speed_ups([LADDER], [DIRECT])
    assert [up.factor for up in (best, tenth, double)] == [1, 1.1, 2]
    assert [up.error for up in (best, tenth, double)] == pytest.approx([0.1, 0.11, 0.2])
    assert [up.seconds for up in (best, tenth, double)] == [40 / 4, 40 / 4, 16 / 1]
    assert double.seconds_finest == 16 / 4
    assert double.flops == 16
    assert double.flops_finest == 4


def test_dearer_operations_change_one_ratio_only() -> None:
    ladder = replace(LADDER, rows=[replace(row, flops=5 * row.flops) for row in LADDER.rows])
    best, *_ = speed_ups([ladder], [DIRECT])
    assert (best.seconds, best.flops) == (10, 2)


def test_a_ladder_that_never_arrives_is_infinitely_slow() -> None:
    short = record("ladder", [(0, 0, 1.0), (1, 4, 0.15)])
    best, _, double = speed_ups([short], [DIRECT])
    assert best.seconds == best.flops_finest == 0
    assert double.seconds == 16 / 4
    assert [up.num_reached for up in (best, double)] == [0, 1]


def test_a_ladder_that_starts_where_direct_training_ends_is_infinitely_fast() -> None:
    ahead = record("ladder", [(0, 0, 0.01), (1, 4, 0.005)])
    assert all(up.seconds == up.flops == math.inf for up in speed_ups([ahead], [DIRECT]))


def test_speed_ups_are_medians_over_pairs_of_equal_seed() -> None:
    ladders = [replace(LADDER, seed=seed) for seed in (0, 1, 2, 3)]
    directs = [
        replace(DIRECT, seed=seed, rows=[replace(r, seconds=c * r.seconds) for r in DIRECT.rows])
        for seed, c in ((2, 3), (0, 1), (1, 100))
    ]
    best, *_ = speed_ups(ladders, directs)
    assert best.seconds == 30
    assert best.flops == 10
    assert best.num_reached == best.num_seeds == 3


# ---------------------------------------------------------------- a suite

RECORDS = {"runs.csv", "speedup.png", "summary.json", "table.txt"}
RUNS = {"ladder_seed3", "direct_rate0.001", "direct_rate0.01", "direct_seed3"}


def tiny_suite(folder: Path, *overrides: str) -> Suite:
    problem = {"kind": "poisson", "num_modes": 4}
    experiment = write_experiment(folder / "e.yaml", problem=problem, data={"train": 16})
    methods = (
        Method("ladder", "from coarse to fine", ("schedule.epochs=[3,1]",)),
        Method(
            "direct",
            "fine only",
            ("schedule.cycle=single", "schedule.epochs=2"),
            rates=(1e-3, 1e-2),
            search_overrides=("schedule.epochs=1",),
        ),
    )
    settings = (f"data.folder={folder / 'data'}", "output.figures=false", *overrides)
    return Suite(str(experiment), settings, (3,), methods)


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """Names of the runs that train, as they do."""
    names: list[str] = []
    original = LadderRun.train

    def noted(run: LadderRun, state: RunState | None = None):
        names.append(run.experiment.config.name)
        return original(run, state)

    monkeypatch.setattr(LadderRun, "train", noted)
    return names


def test_suite(tmp_path: Path, trained: list[str]) -> None:
    folder = tmp_path / "suite"
    text = SuiteRun(tiny_suite(tmp_path), folder).run()
    assert set(trained) == RUNS
    assert len(trained) == len(RUNS)
    assert {path.name for path in folder.iterdir()} == RECORDS | {"runs"}
    assert {path.name for path in (folder / "runs").iterdir()} == RUNS
    assert (folder / "table.txt").read_text() == text
    assert (folder / "speedup.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["method"], row["seed"]) for row in rows} == {("ladder", "3"), ("direct", "3")}
    assert len(rows) == (1 + 3) + (1 + 1) + (1 + 2)
    summary = json.loads((folder / "summary.json").read_text())
    assert [up["factor"] for up in summary["speed_up"]] == [1, 1.1, 2]
    assert summary["searched_rates"] == {"direct": 1e-2}
    assert summary["test_rel_l2"].keys() == RUNS

    trained.clear()
    assert SuiteRun(tiny_suite(tmp_path), folder).run() == text
    assert trained == []

    with pytest.raises(UserError, match=r"changed configuration; .* data\.seed"):
        SuiteRun(tiny_suite(tmp_path, "data.seed=1"), folder).run()

    path = folder / "runs" / "ladder_seed3" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "data_fingerprint": "other"}))
    with pytest.raises(UserError) as refusal:
        SuiteRun(tiny_suite(tmp_path), folder).run()
    assert trained == []
    sentence = str(refusal.value)
    assert "these runs cannot be compared, as 'data_fingerprint' differs" in sentence
    assert "ladder_seed3: " in sentence
    assert "direct_" in sentence
    assert "\n" not in sentence


def test_an_interrupted_suite_goes_on(tmp_path: Path, trained: list[str], monkeypatch) -> None:
    folder = tmp_path / "suite"

    def interrupted(run: LadderRun) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LadderRun, "_write_results", interrupted)
        with pytest.raises(KeyboardInterrupt):
            SuiteRun(tiny_suite(tmp_path), folder).run()
    assert trained == ["ladder_seed3"]
    SuiteRun(tiny_suite(tmp_path), folder).run()
    assert len(trained) == 1 + len(RUNS)


def test_a_rate_that_diverges_is_tried_once(tmp_path: Path, trained: list[str]) -> None:
    suite = tiny_suite(tmp_path)
    ladder, direct = suite.methods
    suite = replace(suite, methods=(ladder, replace(direct, rates=(1e-2, 1e5))))
    comparison = SuiteRun(suite, tmp_path / "suite")
    comparison.run()
    assert comparison.rates == {"direct": 1e-2}
    assert "direct_rate100000" in trained
    trained.clear()
    SuiteRun(suite, tmp_path / "suite").run()
    assert trained == []


def test_methods_of_equal_time_get_the_ladders_time(tmp_path: Path, trained: list[str]) -> None:
    suite = tiny_suite(tmp_path)
    short = Method("short", "equal time", ("schedule.cycle=single",), (1e-3, 1e-2), equal_time=True)
    suite = replace(suite, methods=(suite.methods[0], short))
    table = SuiteRun(suite, tmp_path / "suite").run()
    assert set(trained) == {"ladder_seed3", "short_rate0.001", "short_rate0.01", "short_seed3"}
    assert "Times direct's best" not in table
    config = (tmp_path / "suite" / "runs" / "short_seed3" / "config.yaml").read_text()
    seconds = json.loads(
        (tmp_path / "suite" / "runs" / "ladder_seed3" / "summary.json").read_text()
    )
    assert f"seconds: {seconds['seconds']:.1f}" in config


def test_networks_of_others_are_named_by_their_package(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "neuralop.models", None)
    with pytest.raises(UserError, match="need the package neuraloperator"):
        PEERS["fno"](Grid((8, 8), "cell"))
