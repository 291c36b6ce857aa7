"""``multigrid sweep``: combinations of settings and seeds, trained, continued and compared."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from tiny import sweep_here, write_experiment

from multigrid import UserError
from multigrid.__main__ import main
from multigrid.cli import sweep


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = {"kind": "poisson", "num_modes": 4}
    return write_experiment(tmp_path / "e.yaml", problem=problem, levels=[8], model={"width": 4})


def test_all_combinations_have_names_of_their_own(experiment):
    sets = ["model.width=4,8", "schedule.epochs=[2],3", "optimizer.name=adamw"]
    trials = sweep.plan(experiment, ["seed=5"], sets, 2)
    assert len(trials) == 8
    assert trials[0].config.name == "width-4_epochs-2_name-adamw_seed-5"
    assert trials[3].config.schedule.epochs == 3
    assert [trial.config.seed for trial in trials[:3]] == [5, 6, 5]
    assert len({trial.folder.path for trial in trials}) == 8
    assert {trial.folder.path.parent for trial in trials} == {Path("results/tiny-sweep")}
    (plain,) = sweep.plan(experiment, [], [], None)
    assert plain.config.name == "tiny"
    long = sweep.plan(experiment, [], [f"data.folder={'a' * 101},{'a' * 102}"], None)
    assert {len(trial.config.name) for trial in long} == {16}


def test_names_that_would_be_equal_are_told_apart(experiment):
    trials = sweep.plan(experiment, [], ["data.folder=a_b,a-b,a__b", "seed=1,2"], None)
    names = [trial.config.name for trial in trials]
    assert len(set(names)) == 6
    assert names[0].startswith("folder-a-b_seed-1-")
    others = sweep.plan(experiment, [], ["data.folder=a-b,a_b", "seed=1"], None)
    assert [trial.config.name for trial in others] == [names[2], names[0]]
    (alone,) = sweep.plan(experiment, [], ["data.folder=a-b", "seed=1"], None)
    assert alone.config.name == "folder-a-b_seed-1"
    long = [f"{'a' * 100}{end}" for end in ("_", "-")]
    trials = sweep.plan(experiment, [], [f"data.folder={','.join(long)}"], None)
    assert len({trial.config.name for trial in trials}) == 2


def test_it_trains_continues_and_compares(experiment, monkeypatch, capsys):
    started = sweep_here(monkeypatch)
    call = ["sweep", str(experiment), "--set", "model.width=4,8", "--seeds", "2"]
    assert main([*call, "--dry-run"]) == 0
    assert "3: width-8_seed-1, to train" in capsys.readouterr().err
    assert main([*call, "--jobs", "2"]) == 0
    shown = capsys.readouterr().out
    header, _, *rows = shown.splitlines()[1:5]
    assert header.split()[:2] == ["model.width", "Runs"]
    assert [row.split()[1] for row in rows] == ["2", "2"]
    assert len(started) == 4
    folder = Path("results/tiny-sweep")
    numbers = json.loads((folder / "sweep.json").read_text())
    medians = [row["best_validation"]["median"] for row in numbers["methods"]]
    assert medians == sorted(medians)
    assert {row["method"] for row in numbers["methods"]} == {"width-4", "width-8"}
    assert numbers["best"] in shown
    lowest = min(row["best_validation"]["low"] for row in numbers["methods"])
    rows = (Path(numbers["best"]) / "metrics.csv").read_text()
    assert str(lowest) in rows
    assert (folder / "sweep.png").stat().st_size > 1000

    (folder / "width-8_seed-0" / "summary.json").unlink()  # as if it had been interrupted
    assert main([*call, "--json"]) == 0
    assert started[4:] == ["width-8_seed-0"]
    again = json.loads(capsys.readouterr().out)
    assert [row["best_validation"] for row in again["methods"]] == [
        row["best_validation"] for row in numbers["methods"]
    ]


def test_a_dry_run_writes_nothing_and_tells_of_other_settings(experiment, monkeypatch, capsys):
    sweep_here(monkeypatch)
    call = ["sweep", str(experiment), "--set", "model.width=4,8"]
    assert main(call) == 0
    folder = Path("results/tiny-sweep")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    capsys.readouterr()
    assert main([*call, "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert "0: width-4, finished" in shown.err
    assert "best: results/tiny-sweep/width-" in shown.out
    assert "sweep.json" not in shown.out
    assert main([*call, "--dry-run", "schedule.batch_size=4"]) == 0
    shown = capsys.readouterr()
    assert (
        "1: width-8, there with other settings, these keys differ: schedule.batch_size\n"
        in shown.err
    )
    assert shown.out == ""
    told = (
        "results/tiny-sweep/width-4: was trained with other settings; these keys differ: "
        "schedule.batch_size; use another name=... for the sweep, or remove this folder"
    )
    for more in ([], ["--task", "0"]):
        assert main([*call, "schedule.batch_size=4", *more]) == 2
        assert told in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_task_of_an_array_trains_one_run(experiment, capsys):
    call = ["sweep", str(experiment), "--set", "model.width=4,8", "--seeds", "2", "--task"]
    assert main([*call, "3"]) == 0
    config = yaml.safe_load(Path("results/tiny-sweep/width-8_seed-1/config.yaml").read_text())
    assert (config["model"]["width"], config["seed"]) == (8, 1)
    assert main([*call, "4"]) == 2
    assert "--task: 4 is not from 0 to 3" in capsys.readouterr().err


def test_the_others_are_trained_if_one_fails(experiment, capsys):
    """In real processes."""
    sets = ["--set", "checkpoints.load=null,gone.pt", "--set", "levels=[8]"]
    assert main(["sweep", str(experiment), *sets, "--jobs", "2"]) == 2
    shown = capsys.readouterr()
    assert "best: results/tiny-sweep/load-None_levels-8" in shown.out
    assert "1 of 2 runs failed" in shown.err
    assert "load-gone.pt_levels-8: checkpoints.load: no such file: gone.pt" in shown.err


def test_a_signal_reaches_all_runs(experiment, monkeypatch, capsys):
    started = []

    def start(trial, experiment, jobs):
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[-1], None

    monkeypatch.setattr(sweep, "start", start)

    def stop():
        while len(started) < 2:
            time.sleep(0.05)
        signal.raise_signal(signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    assert main(["sweep", str(experiment), "--seeds", "3", "--jobs", "2"]) == 75
    thread.join()
    assert "stopped by SIGTERM; the same command continues from here" in capsys.readouterr().err
    assert [process.returncode for process in started] == [-signal.SIGTERM] * 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "model.width"], "must have the form section.key=value,value"),
        (["--set", "model.width=4,4"], "one value or several different ones"),
        (["--set", "model.width="], "one value or several different ones"),
        (["--set", "model.width=[4"], "the values are not valid YAML"),
        (["--set", "model.widht=4,8"], "did you mean 'width'?"),
        (["--set", "model.width=4,-8"], "model.width"),
        (["--set", "name=a,b"], "'name' follows from the other settings"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(experiment, capsys, arguments, sentence):
    assert main(["sweep", str(experiment), *arguments]) == 2
    shown = capsys.readouterr().err
    assert sentence in shown
    assert shown.count("\n") == 1
    assert not Path("results").exists()


def test_settings_twice_are_refused(experiment):
    with pytest.raises(UserError, match=r"--set: 'model\.width' is given twice"):
        sweep.plan(experiment, [], ["model.width=4", "model.width=8"], None)
