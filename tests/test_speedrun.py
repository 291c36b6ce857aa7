"""The speedrun: an entry is run, checked and written into the record."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import write_experiment

from experiments.speedrun import __main__ as speedrun
from experiments.speedrun import ladder
from multigrid.config import load_config
from multigrid.files import read_json


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    problem = {"kind": "wave", "num_modes": 3}
    data = {"train": 8, "validation": 2, "test": 4, "folder": str(tmp_path / "data")}
    file = write_experiment(tmp_path / "e.yaml", problem=problem, data=data)
    target = replace(speedrun.TARGETS["wave"], experiment=file, error=110.0)
    monkeypatch.setitem(speedrun.TARGETS, "wave", target)
    monkeypatch.setattr(speedrun, "RECORD", tmp_path / "record.md")
    return tmp_path


@pytest.mark.parametrize(("offset", "counts"), [(0.0, True), (9.0, False)])
def test_an_entry_counts_where_its_errors_are_below_the_target(
    tiny: Path, offset: float, counts: bool
) -> None:
    entry = tiny / f"entry_{counts}.py"
    entry.write_text(
        "import numpy as np\n\n\ndef train(training, validation, seed):\n"
        f"    return lambda inputs: np.full_like(inputs, {offset} + 0.001 * seed)\n"
    )
    assert speedrun.main(["wave", "--entry", str(entry), "--runs", "3"]) == 0
    header, _, line = (tiny / "record.md").read_text().splitlines()
    assert line.count("|") == header.count("|")
    assert ("does not count" in line) != counts
    assert "| 3 |" in line


ZEROS = "lambda x: 0 * x"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise RuntimeError('out of luck')", "RuntimeError: out of luck"),
        ("return None", "TypeError"),
        ("return lambda x: x[:, 0]", "float32 of shape [4, 16, 16]; real numbers of shape [4, 1"),
        ("return lambda x: 1.0", "float64 of shape []"),
        ("return lambda x: x + 0j", "complex64"),
    ],
)
def test_a_run_that_fails_is_recorded(
    tiny: Path, capsys: pytest.CaptureFixture[str], body: str, told: str
) -> None:
    entry = tiny / f"failing_{len(body)}.py"
    first = f"    if seed == 0:\n        return {ZEROS}\n"
    entry.write_text(f"def train(training, validation, seed):\n{first}    {body}\n")
    assert speedrun.main(["wave", "--entry", str(entry), "--runs", "2"]) == 0
    line = (tiny / "record.md").read_text().splitlines()[-1]
    assert line.endswith("| 2 | 1 of 2 failed | nan (does not count) |")
    assert told in capsys.readouterr().err


def test_an_entry_cannot_change_the_samples(tiny: Path) -> None:
    entry = tiny / "changing.py"
    entry.write_text(
        "def train(training, validation, seed):\n    training[1][:] *= 1e4\n\n"
        "    def predict(inputs):\n        inputs[:] = 1 + inputs\n        return 0 * inputs\n\n"
        "    return predict\n"
    )
    plain = tiny / "plain.py"
    plain.write_text(f"def train(training, validation, seed):\n    return {ZEROS}\n")
    target = speedrun.TARGETS["wave"]
    changed, unchanged = (speedrun.run_entry(target, path, 2) for path in (entry, plain))
    assert changed["errors"] == unchanged["errors"]
    assert len(set(changed["errors"])) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [("x = 1\n", "has no function train("), ("x = \n", "cannot be imported: SyntaxError")],
)
def test_a_file_that_is_no_entry(
    tiny: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    entry = tiny / f"none_{len(text)}.py"
    entry.write_text(text)
    assert speedrun.main(["wave", "--entry", str(entry)]) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith(f"error: --entry: {entry}")
    assert told in sentence
    assert not (tiny / "record.md").exists()


def test_the_metrics() -> None:
    truth = np.array([[[[1.0, 3.0]]], [[[2.0, 2.0]]], [[[0.0, 4.0]]]])
    guess = truth + np.array([0.1, 0.2, 0.4]).reshape(3, 1, 1, 1)
    assert speedrun.scaled_rel_l1(guess, truth, truth) == pytest.approx(100 * 0.2 / 2)
    expected = np.mean([np.sqrt(2) * e / n for e, n in ((0.1, 10**0.5), (0.2, 8**0.5), (0.4, 4))])
    assert speedrun.block_rel_l2(guess, truth, truth) == pytest.approx(expected)


def test_one_run_shows_nothing() -> None:
    assert np.isnan(speedrun.significance([0.1], 1.0))
    assert speedrun.significance([0.5, 0.52, 0.51], 0.63) < 0.01
    assert speedrun.significance([0.7, 0.7], 0.63) == 1


@pytest.mark.parametrize("name", speedrun.TARGETS)
def test_every_target_has_an_entry_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, trained = speedrun.TARGETS[name], []
    monkeypatch.setattr(ladder, "train_with", lambda *given: trained.append(given))
    train = runpy.run_path(str(target.entry))["train"]
    monkeypatch.setitem(train.__globals__, "train_with", ladder.train_with)
    train(None, None, 7)
    settings, seed, experiment = (*trained[0], "cno/wave")[:3]
    assert seed == 7
    assert target.experiment == Path(f"experiments/{experiment}.yaml")
    load_config(target.experiment, settings)


def test_the_target_of_the_flow_is_what_fno_reaches() -> None:
    record = read_json(Path("results/benchmarks/tables/20_minutes/navier_stokes_1e-5.json"))
    error = record["methods"]["fno"]["runs"]["0"]["block_rel_l2"]
    assert speedrun.TARGETS["navier_stokes"].error == pytest.approx(error, rel=1e-3)
