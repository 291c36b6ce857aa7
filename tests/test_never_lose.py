"""Whatever happens to a run, nothing is lost and nothing wrong is told."""

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soak
import torch
from tiny import run, write_experiment

from multigrid import files
from multigrid.config import load_config
from multigrid.config.settings import RecoveryConfig
from multigrid.data.generation import Recipe
from multigrid.errors import UserError
from multigrid.ladder import recorder
from multigrid.ladder.ladder import LadderRun
from multigrid.ladder.recorder import Recorder
from multigrid.records.history import outcome, read_history
from multigrid.records.run_folder import FolderLock, Journal
from multigrid.report.record import remarks
from multigrid.signals import Interrupted, check, deferred, watched
from multigrid.training.checkpoint import load_checkpoint, save_checkpoint
from multigrid.training.evaluation import LevelValidator
from multigrid.training.progress import Divergence, DivergenceDetector
from multigrid.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
STOPPED, KILLED = 75, 130


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return write_experiment(
        tmp_path_factory.mktemp("experiment") / "tiny.yaml",
        problem={"kind": "poisson", "num_modes": 4},
        schedule={"epochs": 2},
        levels=[4, 8],
        model={"width": 4},
        checkpoints={"interval": 1},
    )


@pytest.fixture(scope="module")
def expected(experiment, tmp_path_factory):
    """What an uninterrupted run leaves, times apart."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(experiment, folder) == 0
    return soak.result(folder / "results" / "tiny")


def assert_resumes(experiment, folder, expected, *overrides):
    assert run(experiment, folder, *overrides, "--resume") == 0
    found = soak.result(folder / "results" / "tiny")
    for key in expected.keys() | found.keys():
        assert found.get(key) == expected.get(key), key


def events(folder):
    return [e["event"] for e in Journal(folder / "results" / "tiny" / "journal.jsonl").read()]


def at_call(monkeypatch, owner, name, number, action):
    """Calls ``action`` after the given call of a method, counted from 1."""
    original, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        result = original(*args, **kwargs)
        calls.append(1)
        if len(calls) == number:
            action()
        return result

    monkeypatch.setattr(owner, name, counted)


def send(*numbers):
    def action():
        for number in numbers:
            os.kill(os.getpid(), number)

    return action


def test_killed_anywhere():
    command = [sys.executable, "tests/soak.py", "--kills=5", "--flips=10", "--zeroed=5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [*command, "--faults=0", "--inputs=0", "--no-units", "--seed=1"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_within_a_step(experiment, expected, tmp_path, monkeypatch, capsys, number):
    with monkeypatch.context() as patch:
        at_call(patch, Trainer, "train_step", 4 + 2, send(number))
        assert run(experiment, tmp_path) == STOPPED
    error = capsys.readouterr().err
    assert (
        f"stopped by {signal.Signals(number).name}; continue with: python -m multigrid.run" in error
    )
    assert error.rstrip().endswith("--resume")
    saved = load_checkpoint(tmp_path / "results" / "tiny" / "level_0_4x4" / "last.pt")
    assert saved["trainer"]["progress"]["epoch"] == 1
    assert len(saved["trainer"]["progress"]["losses"]) == 2
    assert_resumes(experiment, tmp_path, expected)
    assert events(tmp_path) == ["started", "interrupted", "resumed"]
    summary = json.loads((tmp_path / "results" / "tiny" / "summary.json").read_text())
    assert remarks(summary)[:2] == ["resumed 1 time", "interrupted by a signal 1 time"]


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (Recipe, "make", 2),  # while samples are generated
        (LevelValidator, "__call__", 1),  # on entering the first level
        (LevelValidator, "__call__", 3),  # after the last step of an epoch
        (Recorder, "on_level_end", 1),  # between two levels
        (Recorder, "save", 2),
    ],
)
def test_a_signal_elsewhere(experiment, expected, tmp_path, monkeypatch, owner, name, call):
    with monkeypatch.context() as patch:
        at_call(patch, owner, name, call, send(signal.SIGTERM))
        assert run(experiment, tmp_path) == STOPPED
    assert not (tmp_path / "results" / "tiny" / "summary.json").exists()
    assert_resumes(experiment, tmp_path, expected)


def test_a_second_interrupt_stops_at_once(experiment, expected, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        at_call(patch, Trainer, "backward", 7, send(signal.SIGINT, signal.SIGINT))
        assert run(experiment, tmp_path) == KILLED
    assert "SIGINT: saving" not in capsys.readouterr().out
    assert_resumes(experiment, tmp_path, expected)


def test_signals_wait_where_they_are_deferred():
    before = signal.getsignal(signal.SIGTERM)
    with watched():
        with deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Interrupted, match="SIGTERM"):
                check()
        check_again = pytest.raises(Interrupted)
        with check_again:
            check()
    check()
    assert signal.getsignal(signal.SIGTERM) is before


def test_signals_are_left_alone_in_other_threads():
    def work():
        with watched():
            check()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.parametrize("at", [0, 3, 7, 21, 33, 50, 64])
def test_a_failing_disk_costs_no_more_than_the_interval(
    experiment, expected, tmp_path, monkeypatch, capsys, at
):
    with monkeypatch.context() as patch:
        for name in soak.WRAPPED:
            patch.setattr(files, name, getattr(files, name))
        soak.Sabotage(
            at, random.Random(at).choice(list(soak.ERRORS)), tmp_path / "results"
        ).install()
        status = run(experiment, tmp_path)
    error = capsys.readouterr().err
    assert status in (0, 2)
    assert (status == 2) == ("error: " in error)
    assert_resumes(experiment, tmp_path, expected)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    experiment, expected, tmp_path, monkeypatch, capsys, damage
):
    with monkeypatch.context() as patch:
        at_call(patch, Trainer, "train_step", 4 * 2 + 4 + 2, send(signal.SIGTERM))
        assert run(experiment, tmp_path) == STOPPED
    path = tmp_path / "results" / "tiny" / "level_1_8x8" / "last.pt"
    content = path.read_bytes()
    changed = {
        "flip": soak.flip(content, 1234, 5),
        "cut": content[:-1],
        "empty": b"",
    }
    path.write_bytes(changed[damage])
    capsys.readouterr()
    assert run(experiment, tmp_path, "--resume") == 0
    shown = capsys.readouterr().out
    assert f"{path}: " in shown
    assert "resuming after epoch 1, step 0 of stage 1" in shown
    path.with_name("last.pt.damaged").unlink()
    assert soak.result(path.parents[1]) == expected
    summary = json.loads((path.parents[1] / "summary.json").read_text())
    assert "went back to an older checkpoint, as one was damaged, 1 time" in remarks(summary)


@pytest.mark.parametrize("name", ["last.pt", "last.previous.pt"])
@pytest.mark.parametrize("config", ["there", "missing"])
def test_a_checkpoint_of_another_run_or_level_is_refused_and_stays(
    experiment, expected, tmp_path, capsys, name, config
):
    assert run(experiment, tmp_path) == 0
    assert run(experiment, tmp_path, "name=oth", "seed=7") == 0
    ours, others = (tmp_path / "results" / run / "level_1_8x8" / name for run in ("tiny", "oth"))
    sound = ours.read_bytes()
    ours.write_bytes(others.read_bytes())
    folder = ours.parents[1]
    (folder / "summary.json").unlink()
    if config == "missing":  # which is then restored from a checkpoint of this run
        (folder / "config.yaml").unlink()
    capsys.readouterr()
    assert run(experiment, tmp_path, "--resume") == 2
    refusal = f"{ours}: is of another run, 'oth'; its configuration differs from that of 'tiny' in"
    assert f"{refusal} name, seed" in capsys.readouterr().err
    assert ours.read_bytes() == others.read_bytes()
    ours.write_bytes((folder / "level_0_4x4" / name).read_bytes())
    assert run(experiment, tmp_path, "--resume") == 2
    assert f"{ours}: is of level 0 on 4x4, not of this folder's" in capsys.readouterr().err
    ours.write_bytes(sound)
    assert_resumes(experiment, tmp_path, expected)


@pytest.mark.parametrize("config", ["there", "missing"])
@pytest.mark.parametrize("last", ["damaged", "missing"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_resume_never_starts_again_over_results(
    experiment, tmp_path, monkeypatch, capsys, config, last, finished
):
    if not finished:
        at_call(monkeypatch, Trainer, "train_step", 6, send(signal.SIGTERM))
    assert run(experiment, tmp_path) == (0 if finished else STOPPED)
    folder = tmp_path / "results" / "tiny"
    for path in folder.glob("level_*_*/last*.pt"):
        path.write_bytes(path.read_bytes()[:-1]) if last == "damaged" else path.unlink()
    if config == "missing":
        (folder / "config.yaml").unlink()
    before = {path: path.read_bytes() for path in folder.glob("**/*.*") if path.suffix != ".log"}
    results = [path for path in before if path.suffix in (".npz", ".json", ".csv")]
    results += folder.glob("level_*_*/best.pt")
    assert len(results) == (8 if finished else 3)
    lacking = {"there": "no sound last.pt", "missing": "neither config.yaml nor a sound last.pt"}
    for _ in range(2):
        capsys.readouterr()
        assert run(experiment, tmp_path, "--resume") == 2
        refusal = (
            f"error: {folder}: cannot be resumed, as it has {lacking[config]}, but holds level_0"
        )
        shown = capsys.readouterr().err
        assert shown.startswith(f"{refusal}_4x4/best.pt, ")
        assert shown.endswith("name=..., or --overwrite to replace what is there\n")
    assert run(experiment, tmp_path) == 2
    assert f"already holds {'a' if finished else 'an un'}" in capsys.readouterr().err
    for path in results:
        assert path.read_bytes() == before[path], path
    assert (folder / "config.yaml").exists() == (config == "there")
    assert run(experiment, tmp_path, "--overwrite") == 0


@pytest.mark.parametrize(
    "name", ["metrics.csv", "report.html", "run.log", "level_1_8x8", "direct", "tensorboard"]
)
def test_an_overwrite_that_cannot_write_removes_nothing(experiment, tmp_path, capsys, name):
    assert run(experiment, tmp_path) == 0
    path = tmp_path / "results" / "tiny" / name
    is_folder = path.suffix != ""
    path.rename(path.parent / "aside") if path.exists() else None
    path.mkdir() if is_folder else path.write_text("a note")
    before = {p: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()}
    sentence = (
        "is a folder, where the run writes a file" if is_folder
        else "is a file, where the run needs a folder"
    )  # fmt: skip
    for how in ("--overwrite", "--resume"):
        capsys.readouterr()
        assert run(experiment, tmp_path, how) == 2
        shown = capsys.readouterr().err
        assert shown == f"error: {path}: {sentence}; remove it, or use another name=...\n"
    assert {p: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()} == before


def test_an_overwrite_without_permission_removes_nothing(experiment, tmp_path, monkeypatch, capsys):
    assert run(experiment, tmp_path) == 0
    folder = tmp_path / "results" / "tiny"
    level = str(folder / "level_1_8x8")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: str(p) != level and access(p, mode))
    assert run(experiment, tmp_path, "--overwrite") == 2
    assert f"{level}: cannot be written: Permission denied" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"network": {"a": torch.arange(4.0)}, "epoch": 3})
    content = path.read_bytes()
    rng = random.Random(0)
    for offset in range(len(content)):
        path.write_bytes(soak.flip(content, offset, rng.randrange(8)))
        with pytest.raises(UserError):
            load_checkpoint(path)


def test_a_checkpoint_that_unpacks_to_more_than_itself_is_refused(tmp_path):
    import zipfile

    save_checkpoint(tmp_path / "a.pt", {"network": {"a": torch.zeros(100_000)}})
    bomb = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(UserError, match="unpack to more than the file holds"):
        load_checkpoint(bomb)


def test_the_previous_checkpoint_is_kept(tmp_path):
    path, previous = tmp_path / "last.pt", tmp_path / "last.previous.pt"
    for epoch in (1, 2, 3):
        save_checkpoint(path, {"epoch": epoch}, previous)
    assert (load_checkpoint(path)["epoch"], load_checkpoint(previous)["epoch"]) == (3, 2)
    assert torch.load(path, weights_only=True)["epoch"] == 3


def test_what_reads_back_differently_does_not_replace(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"epoch": 1})
    monkeypatch.setattr(files, "read_back", lambda path: b"something else")
    with pytest.raises(UserError, match="reads back differently"):
        save_checkpoint(path, {"epoch": 2})
    assert load_checkpoint(path)["epoch"] == 1


def test_a_file_keeps_its_name_where_the_new_one_cannot_have_it(tmp_path, monkeypatch):
    path, previous = tmp_path / "last.pt", tmp_path / "last.previous.pt"
    save_checkpoint(path, {"epoch": 1}, previous)
    original = files.rename

    def failing(source, target):
        if source.suffix == files.PART:
            raise OSError(5, "Input/output error")
        original(source, target)

    monkeypatch.setattr(files, "rename", failing)
    with pytest.raises(UserError, match="cannot be written"):
        save_checkpoint(path, {"epoch": 2}, previous)
    assert load_checkpoint(path)["epoch"] == 1


def test_a_checkpoint_that_cannot_be_read_just_now_is_not_put_aside(
    experiment, tmp_path, monkeypatch, capsys
):
    at_call(monkeypatch, Trainer, "train_step", 5, send(signal.SIGTERM))
    assert run(experiment, tmp_path) == STOPPED
    monkeypatch.undo()
    files = sorted(path.name for path in tmp_path.rglob("*.pt*"))

    def failing(path):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        assert run(experiment, tmp_path, "--resume") == 2
    assert "Input/output error" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*.pt*")) == files


def test_epochs_from_a_budget_in_seconds_are_kept_on_resume(experiment, tmp_path, monkeypatch):
    timed = ["schedule.epochs=auto", "schedule.budget={seconds: 60}", "schedule.cycle=v"]
    monkeypatch.setattr("multigrid.ladder.experiment.step_seconds", lambda *args: 5.0)
    at_call(monkeypatch, Trainer, "train_step", 3, send(signal.SIGTERM))
    assert run(experiment, tmp_path, *timed) == STOPPED
    monkeypatch.undo()
    monkeypatch.setattr("multigrid.ladder.experiment.step_seconds", lambda *args: 1e9)
    assert run(experiment, tmp_path, *timed, "--resume") == 0
    summary = json.loads((tmp_path / "results" / "tiny" / "summary.json").read_text())
    assert [level["epochs"] for level in summary["levels"]] == [1, 1, 1]  # as first timed


@pytest.mark.parametrize("stop_after", [3, 9, 30])
def test_a_schedule_by_measurement_resumes_as_if_it_had_not_stopped(
    experiment, tmp_path, monkeypatch, stop_after
):
    automatic = ["schedule.epochs=auto", "schedule.budget={work_units: 6}", "model.fields=folded"]
    assert run(experiment, tmp_path / "whole", *automatic) == 0
    whole = soak.result(tmp_path / "whole" / "results" / "tiny")
    with monkeypatch.context() as patch:
        at_call(patch, Trainer, "train_step", stop_after, send(signal.SIGTERM))
        assert run(experiment, tmp_path / "stopped", *automatic) == STOPPED
    assert_resumes(experiment, tmp_path / "stopped", whole, *automatic)
    levels = stages_of(tmp_path / "whole")
    assert len(levels) > 2
    assert all(level["reason"] for level in levels)


@pytest.mark.parametrize(
    "transfer",
    ["{mode: gradual, unfreeze: 2}", "{rules: [{pattern: 'scales.0.*', freeze: 2}]}"],
)
def test_a_schedule_by_measurement_may_unfreeze_weights_later(experiment, tmp_path, transfer):
    """Its stages have as many epochs as it takes, which is not known beforehand."""
    automatic = ["schedule.epochs=auto", "schedule.budget={work_units: 6}", "data.train=8"]
    automatic += ["checkpoints.interval=99"]
    assert run(experiment, tmp_path, *automatic, f"transfer={transfer}") == 0
    assert any(stage["frozen"] and stage["epochs"] for stage in stages_of(tmp_path))


@pytest.mark.parametrize(
    "transfer", ["{mode: features}", "{mode: gradual, unfreeze: [1]}"], ids=["features", "late"]
)
def test_a_schedule_by_measurement_needs_something_to_train_wherever_it_stays(
    experiment, tmp_path, capsys, transfer
):
    automatic = ["schedule.epochs=auto", "schedule.budget={work_units: 6}"]
    assert run(experiment, tmp_path, *automatic, f"transfer={transfer}") == 2
    assert re.search(
        r"all \d+ parameters of the network of level 0, on which a schedule by measurement may "
        "stay, are frozen, so nothing is left to train",
        capsys.readouterr().err,
    )


def test_a_schedule_goes_back_to_the_state_before_a_lost_stage(experiment, tmp_path, monkeypatch):
    """Also if the lost stage was on the same level, where its own error fell, and on resume."""
    automatic = ["schedule.epochs=auto", "schedule.budget={work_units: 6}"]
    summary, enter, best, starts = Recorder._summary, Recorder.on_level_start, {}, {}

    def lose_the_second(recorder):
        result = summary(recorder)
        best[result["stage"]] = recorder.trainer.best["network"]
        return {**result, "finest_rel_l2": 9.0} if result["stage"] == 1 else result

    def note(recorder, run, trainer):
        starts.setdefault(trainer.stage.index, {k: t.clone() for k, t in trainer.weights().items()})
        enter(recorder, run, trainer)

    def assert_went_back():
        first, second = (stages_of(tmp_path)[k] for k in (0, 1))
        assert (first["level"], second["level"]) == (0, 0)
        for key, tensor in best[0].items():
            assert torch.equal(starts[2][key], tensor)
        assert any(not torch.equal(starts[2][key], tensor) for key, tensor in best[1].items())

    monkeypatch.setattr(Recorder, "_summary", lose_the_second)
    monkeypatch.setattr(Recorder, "on_level_start", note)
    assert run(experiment, tmp_path, *automatic) == 0
    assert_went_back()
    starts.clear()
    with monkeypatch.context() as patch:
        at_call(patch, Recorder, "on_level_end", 2, send(signal.SIGTERM))
        assert run(experiment, tmp_path, *automatic, "--overwrite") == STOPPED
    starts.clear()
    assert run(experiment, tmp_path, *automatic, "--resume") == 0
    assert_went_back()


def test_the_result_is_not_the_network_of_a_lost_trial(experiment, tmp_path, monkeypatch):
    automatic = ["schedule.epochs=auto", "schedule.budget={work_units: 6}"]
    summary, best_surrogate, best, results = Recorder._summary, LadderRun.best_surrogate, {}, []

    def lose_the_finest(recorder):
        result = summary(recorder)
        best[result["stage"]] = recorder.trainer.best["network"]
        slow = 0.5 - 0.001 * result["stage"]  # so that a finer level is tried
        return {**result, "finest_rel_l2": 9.0 if result["level"] == 1 else slow}

    def note(ladder, level):
        results.append((level, best_surrogate(ladder, level).network.state_dict()))
        return best_surrogate(ladder, level)

    monkeypatch.setattr(Recorder, "_summary", lose_the_finest)
    monkeypatch.setattr(LadderRun, "best_surrogate", note)
    assert run(experiment, tmp_path, *automatic) == 0
    stages = stages_of(tmp_path)
    assert any(stage["level"] == 1 and stage["epochs"] for stage in stages)  # the trial
    assert (stages[-1]["level"], stages[-1]["epochs"]) == (1, 0)
    level, network = results[0]
    assert level == 1
    assert all(torch.equal(network[key], tensor) for key, tensor in best[len(stages) - 1].items())


def stages_of(folder):
    return json.loads((folder / "results" / "tiny" / "summary.json").read_text())["levels"]


def test_a_schedule_that_misses_its_target_error_says_so(experiment, tmp_path, caplog):
    automatic = ["schedule.epochs=auto", "schedule.budget={work_units: 2, error: 1e-9}"]
    assert run(experiment, tmp_path, *automatic) == 0
    assert "budget spent at an error of" in caplog.text
    summary = json.loads((tmp_path / "results" / "tiny" / "summary.json").read_text())
    assert summary["levels"][-1]["grid"] == [8, 8]  # the result is on the finest grid


@pytest.mark.parametrize(
    ("settings", "num_saved"),
    [
        ("checkpoints.interval=1", 6),  # after every epoch, and at the end of both levels
        ("checkpoints.interval=99", 2),
        ("checkpoints.steps=2", 14),  # within epochs too
        ("checkpoints.minutes=1e-9", 22),  # after every step and epoch
    ],
)
def test_intervals(experiment, tmp_path, monkeypatch, settings, num_saved):
    original, saved = recorder.save_checkpoint, []

    def save(path, *more):
        if path.name == "last.pt":
            saved.append(path)
        original(path, *more)

    monkeypatch.setattr(recorder, "save_checkpoint", save)
    assert run(experiment, tmp_path, settings) == 0
    assert len(saved) == num_saved


def spoil(monkeypatch, calls, value=math.nan):
    """Makes the loss of some steps, counted from 1, something that cannot be."""
    original, seen = Trainer.backward, []

    def backward(trainer, microbatches):
        seen.append(1)
        loss = original(trainer, microbatches)
        return value if len(seen) in calls else loss

    monkeypatch.setattr(Trainer, "backward", backward)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_sends_the_training_back(
    experiment, tmp_path, monkeypatch, capsys, value
):
    spoil(monkeypatch, {4 + 3}, value)
    assert run(experiment, tmp_path) == 0
    shown = capsys.readouterr().out
    assert f"the loss became {value} on the 4x4 grid in epoch 2, step 3, with the training" in shown
    assert "back to the state after epoch 1, learning rate times 0.3 from here on" in shown
    summary = json.loads((tmp_path / "results" / "tiny" / "summary.json").read_text())
    (fault,) = summary["levels"][0]["went_back"]
    assert (fault["epoch"], fault["step"], len(fault["samples"])) == (2, 3, 8)
    assert "stage 0 on level 0 rolled back 1 time" in remarks(summary)
    rates = [
        row["learning_rate"]
        for row in soak.result(tmp_path / "results" / "tiny")["metrics.csv"]
        if row["learning_rate"]
    ]
    assert len(rates) == 4
    assert rates[1] == pytest.approx(0.3 * 1e-4)


def test_giving_up_names_the_samples_and_leaves_a_sound_best(
    experiment, tmp_path, monkeypatch, capsys
):
    spoil(monkeypatch, range(6, 1000))
    assert run(experiment, tmp_path) == 2
    error = capsys.readouterr().err
    assert "with the training samples" in error
    assert "after going back 3 times with a lower rate; try a smaller" in error
    folder = tmp_path / "results" / "tiny"
    for path in folder.glob("level_*/*.pt"):
        checkpoint = load_checkpoint(path)
        assert all(torch.isfinite(t).all() for t in checkpoint["network"].values())
    assert events(tmp_path) == ["started", "failed"]


def test_a_validation_error_that_is_no_number_is_never_the_best(
    experiment, tmp_path, monkeypatch, capsys
):
    original, calls = LevelValidator.__call__, []

    def validate(validator, surrogate):
        calls.append(1)
        return (math.nan, math.nan) if len(calls) == 2 else original(validator, surrogate)

    monkeypatch.setattr(LevelValidator, "__call__", validate)
    assert run(experiment, tmp_path) == 0
    assert (
        "the validation error became nan on the 4x4 grid after epoch 1" in capsys.readouterr().out
    )


def test_a_start_that_is_no_number_is_told(experiment, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(LevelValidator, "__call__", lambda *args: (math.nan, math.nan))
    assert run(experiment, tmp_path) == 2
    assert "is nan before the first step" in capsys.readouterr().err


def test_explosions_are_divergence():
    detector = DivergenceDetector(RecoveryConfig(explosion=10.0))
    for loss in [1.0, 0.1, 2.0, 2.0, 0.5, *[3.0] * 4]:
        detector.check(loss, 1.0, 0, [])
    with pytest.raises(Divergence, match="exploded to 3, for 5 steps more than 10 times"):
        detector.check(3.0, 1.0, 0, [])
    with pytest.raises(Divergence, match="the gradient became inf"):
        detector.check(0.1, math.inf, 0, [])
    off = DivergenceDetector(RecoveryConfig(explosion=None))
    for loss in [1e-9, *[1e9] * 20]:
        off.check(loss, 1.0, 0, [])
    below_zero = DivergenceDetector(RecoveryConfig(explosion=10.0))
    for loss in [-1.0, *[50.0] * 20]:
        below_zero.check(loss, 1.0, 0, [])


def test_going_back_ends_after_its_tries():
    detector = DivergenceDetector(RecoveryConfig(tries=2, factor=0.5))
    divergence = Divergence("the loss became nan", 0, [3, 1])
    assert [detector.lower_rate(divergence, 1) for _ in range(3)] == [True, True, False]
    assert detector.rate_factor == 0.25
    other = DivergenceDetector(RecoveryConfig(tries=2, factor=0.5))
    other.load_state_dict(detector.state_dict())
    assert other == detector


def test_a_run_that_lacked_memory_goes_on_with_smaller_parts(
    experiment, tmp_path, monkeypatch, capsys
):
    backward = Trainer.backward
    assert run(experiment, tmp_path / "whole") == 0

    def greedy(trainer, microbatches):
        if trainer.stage.level == 1 and len(microbatches) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return backward(trainer, microbatches)

    monkeypatch.setattr(Trainer, "backward", greedy)
    assert run(experiment, tmp_path) == 2
    assert "error: out of memory; a larger parallel.accumulate or " in capsys.readouterr().err
    assert run(experiment, tmp_path, "--resume", "parallel.accumulate=2") == 0
    rows, whole = (
        read_history(folder / "results" / "tiny" / "metrics.csv")
        for folder in (tmp_path, tmp_path / "whole")
    )
    assert [row.level for row in rows] == [row.level for row in whole]
    assert rows[-1].val_rel_l2 == pytest.approx(whole[-1].val_rel_l2, rel=1e-3)


def test_two_runs_in_one_folder(experiment, expected, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        at_call(patch, Trainer, "train_step", 6, send(signal.SIGTERM))
        assert run(experiment, tmp_path) == STOPPED
    other = FolderLock(tmp_path / "results" / "tiny")
    other.acquire()
    before = sorted((tmp_path / "results").rglob("*"))
    for flag in ("--resume", "--overwrite"):
        assert run(experiment, tmp_path, flag) == 2
        assert f"another run is at work in this folder (process {os.getpid()} on" in (
            capsys.readouterr().err
        )
    assert sorted((tmp_path / "results").rglob("*")) == before
    other.release()
    assert_resumes(experiment, tmp_path, expected)


def test_the_lock_of_a_dead_process_is_taken_over_at_once(tmp_path):
    script = (
        "import os, pathlib; from multigrid.records.run_folder import FolderLock; "
        "FolderLock(pathlib.Path()).acquire(); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path)
    assert (tmp_path / "run.lock").exists()
    lock = FolderLock(tmp_path)
    lock.acquire()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def save_pairs(path, seed=0):
    x, y = np.random.default_rng(seed).standard_normal((2, 48, 8, 8), dtype=np.float32)
    np.savez(path, x=x, y=y)


@pytest.fixture
def from_file(tmp_path):
    save_pairs(tmp_path / "mine.npz")
    return write_experiment(
        tmp_path / "tiny.yaml",
        problem={"kind": "file", "file": str(tmp_path / "mine.npz")},
        levels=[8],
        model={"width": 4},
    )


def test_changed_data_under_the_same_name_are_refused(from_file, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        at_call(patch, Trainer, "train_step", 2, send(signal.SIGTERM))
        assert run(from_file, tmp_path) == STOPPED
    save_pairs(tmp_path / "mine.npz", seed=1)
    assert run(from_file, tmp_path, "--resume") == 2
    assert "the samples have changed since the run began" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["vanish", "rewrite"])
def test_data_that_change_while_they_are_read(
    experiment, expected, tmp_path, monkeypatch, capsys, change
):
    stream = "data.memory=stream"
    assert run(experiment, tmp_path / "whole", stream) == 0
    whole = soak.result(tmp_path / "whole" / "results" / "tiny")
    (path,) = (tmp_path / "whole" / "data").glob("*.h5")
    data = tmp_path / "data"
    data.mkdir()
    copy, aside = data / path.name, tmp_path / "aside.h5"
    copy.write_bytes(path.read_bytes())

    def act():
        copy.rename(aside)
        if change == "rewrite":
            copy.write_bytes(b"something else")

    with monkeypatch.context() as patch:
        at_call(patch, Trainer, "train_step", 6, act)
        assert run(experiment, tmp_path, stream) == 2
    assert copy.name in capsys.readouterr().err
    saved = load_checkpoint(tmp_path / "results" / "tiny" / "level_0_4x4" / "last.pt")
    assert len(saved["trainer"]["progress"]["losses"]) >= 2  # nothing that was done is lost
    aside.replace(copy)
    assert_resumes(experiment, tmp_path, whole, stream)


def test_another_version_on_resume_is_told_and_recorded(
    experiment, expected, tmp_path, monkeypatch, capsys
):
    from multigrid.ladder import experiment as module

    now = module.environment(torch.device("cpu"))
    with monkeypatch.context() as patch:
        patch.setattr(module, "environment", lambda *about: {**now, "torch": "1.0"})
        at_call(patch, Trainer, "train_step", 6, send(signal.SIGTERM))
        assert run(experiment, tmp_path) == STOPPED
    assert_resumes(experiment, tmp_path, expected)
    assert "resumed with a different torch: 1.0 before" in capsys.readouterr().out
    summary = json.loads((tmp_path / "results" / "tiny" / "summary.json").read_text())
    assert summary["events"][-1]["changed"] == {"torch": ["1.0", str(torch.__version__)]}
    assert "resumed with a different torch" in remarks(summary)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder(experiment, tmp_path, capsys):
    (tmp_path / "results").mkdir(mode=0o555)
    assert run(experiment, tmp_path) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("errors", "word"),
    [
        ([0.5], "not trained"),
        ([0.5, 0.5, 0.6], "never improved"),
        ([1.0, 0.5, 0.3, 0.2, 0.1, 0.05], "still improving"),
        ([1.0, 0.5, 0.3, 0.2, 0.1, 0.0999], "levelled off"),
        ([1.0, 0.5, 0.6], "levelled off"),
    ],
)
def test_outcomes(errors, word):
    assert outcome(errors) == word


def test_a_run_that_never_improved_says_so(experiment, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(LevelValidator, "__call__", lambda *args: (0.5, 0.5))
    assert run(experiment, tmp_path) == 0
    assert "stage 1 on level 1: the validation error never improved" in capsys.readouterr().out


def test_the_journal_outlives_a_torn_line(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.note("started")
    journal.note("resumed", stage=1)
    content = journal.path.read_bytes()
    journal.path.write_bytes(content[:-4])
    journal.note("resumed", stage=2)
    events = [(record["event"], record.get("stage")) for record in journal.read()]
    assert events == [("started", None), ("unreadable", None), ("resumed", 2)]


def test_bad_input_is_refused_in_one_sentence(tmp_path):
    import fuzz

    save_checkpoint(tmp_path / "last.pt", {"network": {"a": torch.randn(4, 4)}, "rows": [1]})
    (tmp_path / "fuzz").mkdir()
    rng = random.Random(0)
    for _, read, path in fuzz.bad_inputs(tmp_path / "fuzz", tmp_path / "last.pt", 150, rng):
        assert fuzz.try_one(read, path) is None, path


@pytest.mark.parametrize("name", ["../up", "a/b", "..", ".hidden", "a\n", "/abs", "a\x00b", ""])
def test_names_lead_nowhere_else(experiment, name):
    with pytest.raises(UserError, match="name: "):
        load_config(experiment, [f"name={json.dumps(name)}"])
