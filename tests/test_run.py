"""The command, from the experiment file to the results folder, on tiny grids."""

import errno
import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

import multigrid
from multigrid import files
from multigrid import run as run_module
from multigrid.distributed import Processes
from multigrid.ladder import ladder
from multigrid.ladder.recorder import Recorder
from multigrid.records.history import read_history
from multigrid.records.run_folder import RunFolder
from multigrid.run import _logging, main
from multigrid.training.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[1]
POISSON = ROOT / "experiments" / "poisson.yaml"

EXPERIMENT = {
    "name": "tiny",
    "problem": {"kind": "poisson", "num_modes": 8},
    "data": {"train": 32, "validation": 8, "test": 8, "noise": 0.01},
    "levels": [8, 16],
    "model": {"width": 8},
    "schedule": {"epochs": [8, 4], "batch_size": 8, "learning_rate": 1e-2},
    "compute": {"precision": "float32"},
    "checkpoints": {"interval": 3},
}
FILES = [
    "config.yaml",
    "convergence.png",
    "journal.jsonl",
    "ladder.png",
    "level_0_8x8/best.pt",
    "level_0_8x8/last.previous.pt",
    "level_0_8x8/last.pt",
    "level_0_8x8/transfer.json",
    "level_1_16x16/best.pt",
    "level_1_16x16/last.previous.pt",
    "level_1_16x16/last.pt",
    "level_1_16x16/transfer.json",
    "metrics.csv",
    "predictions.npz",
    "predictions.png",
    "report.html",
    "run.log",
    "spectra.json",
    "spectra.png",
    "summary.json",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with the experiment file; data are generated there once."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    return folder


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures take longer than such a training; other tests draw them."""
    monkeypatch.setattr("multigrid.report.write_report", lambda *args: [])


def arguments(base, results, *more):
    folders = [f"output.folder={results}", f"data.folder={base / 'data'}"]
    return [str(base / "tiny.yaml"), *folders, *map(str, more)]


@pytest.fixture(scope="module")
def finished(base):
    """A finished run that tests only look at."""
    assert main(arguments(base, base / "results")) == 0
    return base / "results" / "tiny"


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text())


def snapshot(folder):
    return {
        path.relative_to(folder): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def timeless(rows):
    return [
        {k: v for k, v in asdict(row).items() if k not in ("seconds", "evaluation_seconds")}
        for row in rows
    ]


def assert_same_training(folder, expected):
    """Bit-identical weights and the same history, times apart."""
    rows, expected_rows = (read_history(f / "metrics.csv") for f in (folder, expected))
    assert timeless(rows) == timeless(expected_rows)
    for path in sorted(expected.glob("level_*/*.pt")):
        network = load_checkpoint(folder / path.relative_to(expected))["network"]
        for key, tensor in load_checkpoint(path)["network"].items():
            assert torch.equal(network[key], tensor), (path, key)
    assert read_summary(folder)["test"] == read_summary(expected)["test"]


def test_all_promised_files_exist_and_no_other(finished):
    assert [str(path) for path in snapshot(finished)] == FILES
    for name in ("convergence.png", "ladder.png", "predictions.png", "spectra.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")


def test_summary(finished):
    summary = read_summary(finished)
    assert summary["name"] == "tiny"
    assert {"rel_l2", "rel_h1", "max"} <= summary["test"].keys()
    for key in ("seconds", "work_units", "flops", "data_preparation_seconds"):
        assert summary[key] > 0, key
    coarse, fine = summary["levels"]
    assert [(v["level"], v["grid"], v["epochs"]) for v in summary["levels"]] == [
        (0, [8, 8], 8),
        (1, [16, 16], 4),
    ]
    assert (coarse["transferred"], coarse["new"]) == (0, coarse["parameters"])
    assert fine["transferred"] == coarse["parameters"]
    assert fine["transferred"] + fine["new"] == fine["parameters"]
    assert fine["work_units"] == 4
    for key in ("seconds", "work_units", "flops"):
        assert summary[key] == pytest.approx(coarse[key] + fine[key])
    assert fine["flops"] == pytest.approx(4 * summary["flops"] / summary["work_units"])


def test_it_learns(finished):
    summary = read_summary(finished)
    coarse, fine = summary["levels"]
    assert coarse["rel_l2_at_start"] > 0.8
    assert coarse["rel_l2"] < 0.25
    assert fine["rel_l2"] < fine["rel_l2_at_start"]
    assert summary["test"]["rel_l2"] < 0.2


def test_entering_a_level_costs_no_more_than_the_interpolation_error(finished):
    coarse, fine = read_summary(finished)["levels"]
    bound = coarse["rel_l2"] + coarse["interpolation_error"]
    assert fine["rel_l2_at_start"] <= 1.1 * bound
    assert fine["interpolation_error"] is None


def test_history_has_a_row_for_every_epoch_and_one_for_each_start(finished):
    rows = read_history(finished / "metrics.csv")
    epochs = [(0, epoch) for epoch in range(9)] + [(1, epoch) for epoch in range(5)]
    assert [(row.stage, row.epoch) for row in rows] == epochs
    for key in ("seconds", "work_units", "flops"):
        values = [getattr(row, key) for row in rows]
        assert values == sorted(values)
    summary = read_summary(finished)
    assert min(row.val_rel_l2 for row in rows[:9]) == summary["levels"][0]["rel_l2"]
    assert rows[-1].val_rel_l2 == rows[-1].val_finest_rel_l2


def test_transfer_record(finished):
    record = json.loads((finished / "level_1_16x16" / "transfer.json").read_text())
    assert record["totals"]["unused"]["tensors"] == record["totals"]["mismatched"]["tensors"] == 0
    coarse = load_checkpoint(finished / "level_0_8x8" / "best.pt")["network"]
    assert record["totals"]["transferred"]["tensors"] == len(coarse)


def test_log_holds_what_the_user_saw(finished):
    log = (finished / "run.log").read_text()
    assert "New layer scales.3: not in the network before" in log
    assert "Skipping layer" not in log
    assert ", 1 thread," in log
    for part in ("[level 0/1 | 8x8] epoch 8/8", "transferred ", "Work units", "test: "):
        assert part in log
    assert len(log.splitlines()) > 30


@pytest.mark.usefixtures("no_pictures")
def test_logging_ends_with_the_run(base, tmp_path, monkeypatch):
    log = logging.getLogger("multigrid")
    before = log.level, list(log.handlers)
    opened = []
    emit = logging.StreamHandler.emit

    def noted(handler, record):
        opened.append(handler.stream)
        emit(handler, record)

    monkeypatch.setattr(logging.StreamHandler, "emit", noted)
    assert main(arguments(base, tmp_path, "schedule.epochs=[1,1]")) == 0
    assert (log.level, log.handlers) == before
    files = [stream for stream in opened if str(getattr(stream, "name", "")).endswith("run.log")]
    assert files
    assert all(stream.closed for stream in files)


class Lines(logging.Handler):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", ["multigrid", ""])
def test_handlers_of_the_callers_get_every_line_once(tmp_path, capsys, name):
    logger, kept, folder = logging.getLogger(name), Lines(), tmp_path / "results"
    screen = logging.StreamHandler(sys.stdout)
    places = f"output.folder={folder}", f"data.folder={tmp_path / 'data'}"
    logger.addHandler(kept)
    try:
        multigrid.train(EXPERIMENT, *places, "levels=[8]", "schedule.epochs=1")
        printed = capsys.readouterr().out
        logger.addHandler(screen)
        multigrid.train(EXPERIMENT, *places, "levels=[8]", "schedule.epochs=1", overwrite=True)
    finally:
        logger.removeHandler(kept)
        logger.removeHandler(screen)
    line = f"results in {folder / 'tiny'}"
    assert kept.messages.count(line) == 2
    assert printed.count(line) == capsys.readouterr().out.count(line) == 1


def test_other_processes_are_silent_while_they_train_alone(monkeypatch):
    log, levels, second = logging.getLogger("multigrid"), [], Processes()
    second.rank, before = 1, log.level
    monkeypatch.setattr(run_module, "joined", lambda *how: nullcontext(second))
    monkeypatch.setattr(run_module, "_train_in_folder", lambda *what: levels.append(log.level))
    run_module.train_ladder(multigrid.configure(EXPERIMENT))
    assert (levels, log.level) == ([logging.CRITICAL], before)


def test_checkpoint_predicts_what_the_summary_says(finished):
    best = load_checkpoint(finished / "level_1_16x16" / "best.pt")
    assert best["trainer"]["progress"]["best"] == read_summary(finished)["levels"][1]["rel_l2"]
    assert best["scaling"]["kind"] == "homogeneous"


@pytest.mark.usefixtures("no_pictures")
def test_the_same_command_gives_the_same_result(base, finished, tmp_path):
    assert main(arguments(base, tmp_path)) == 0
    assert_same_training(tmp_path / "tiny", finished)


@pytest.mark.usefixtures("no_pictures")
def test_another_seed_gives_another_result(base, finished, tmp_path):
    assert main(arguments(base, tmp_path, "seed=1")) == 0
    assert read_summary(tmp_path / "tiny")["test"] != read_summary(finished)["test"]


def test_a_finished_run_is_not_overwritten(base, finished, capsys):
    before = snapshot(finished)
    assert main(arguments(base, base / "results")) == 2
    assert "already holds a finished run; use --resume" in capsys.readouterr().err
    assert snapshot(finished) == before


@pytest.mark.usefixtures("no_pictures")
def test_overwrite_replaces_the_run_and_leaves_other_files(base, tmp_path):
    short = ["schedule.epochs=[1,1]"]
    assert main(arguments(base, tmp_path, *short)) == 0
    notes = tmp_path / "tiny" / "notes.txt"
    notes.write_text("mine")
    (tmp_path / "tiny" / "level_0_8x8" / "debris").write_text("old")
    assert main(arguments(base, tmp_path, "levels=[16]", "schedule.epochs=1", "--overwrite")) == 0
    names = [str(path) for path in snapshot(tmp_path / "tiny")]
    assert not any("8x8" in name for name in names)
    assert "level_0_16x16/best.pt" in names
    assert notes.read_text() == "mine"
    assert len(read_summary(tmp_path / "tiny")["levels"]) == 1


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_overwrite_that_cannot_start_keeps_the_old_run(base, tmp_path):
    assert main(arguments(base, tmp_path, "schedule.epochs=[1,1]")) == 0
    before = snapshot(tmp_path / "tiny")
    assert main(arguments(base, tmp_path, "compute.device=cuda", "--overwrite")) == 2
    assert snapshot(tmp_path / "tiny") == before


def test_dry_run_prints_and_leaves_nothing(base, tmp_path, capsys):
    assert main(arguments(base, tmp_path / "results", "--dry-run", "data.folder=elsewhere")) == 0
    shown = capsys.readouterr().out
    for part in ("Level", "FLOPs/sample", "Stage", "Work units", "memory about"):
        assert part in shown
    assert list(tmp_path.iterdir()) == []
    assert not Path("elsewhere").exists()


class Interruption:
    """Raises KeyboardInterrupt after a number of calls of a recorder's method."""

    def __init__(self, monkeypatch, method, num_calls):
        self.left = num_calls
        original = getattr(Recorder, method)

        def counted(recorder, *args):
            result = original(recorder, *args)
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr(Recorder, method, counted)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("method", "num_calls"),
    [
        ("on_level_start", 1),  # before the first epoch
        ("on_epoch", 2),  # before the first checkpoint
        ("on_epoch", 5),  # after one
        ("on_step", 4 * 6 + 2),  # within an epoch
        ("on_level_end", 1),  # between two levels
        ("on_level_start", 2),  # on entering the second level
        ("on_epoch", 8 + 1),  # there, before its first checkpoint
        ("on_epoch", 8 + 4),  # after the last epoch
        ("on_level_end", 2),  # after the last level
    ],
)
def test_resume_ends_as_if_never_interrupted(
    base, finished, tmp_path, monkeypatch, capsys, method, num_calls
):
    with monkeypatch.context() as patch:
        Interruption(patch, method, num_calls)
        assert main(arguments(base, tmp_path)) == 130
    assert "interrupted; continue with: " in capsys.readouterr().err
    assert not (tmp_path / "tiny" / "summary.json").exists()
    assert main(arguments(base, tmp_path, "--resume")) == 0
    assert_same_training(tmp_path / "tiny", finished)


@pytest.mark.usefixtures("no_pictures")
def test_resume_of_resume(base, finished, tmp_path, monkeypatch):
    interruptions = [("on_epoch", 4), ("on_epoch", 3), ("on_step", 2), ("on_epoch", 2)]
    for attempt, (method, num_calls) in enumerate(interruptions):
        with monkeypatch.context() as patch:
            Interruption(patch, method, num_calls)
            assert main(arguments(base, tmp_path, *["--resume"] * bool(attempt))) == 130
    assert main(arguments(base, tmp_path, "--resume")) == 0
    assert_same_training(tmp_path / "tiny", finished)


@pytest.mark.usefixtures("no_pictures")
def test_resume_within_a_level_that_is_visited_again(base, tmp_path, monkeypatch):
    cycle = ["schedule.cycle=v", "schedule.epochs=[3,2]", "checkpoints.interval=1"]
    cycle += ["data.mode_shifts=0.5"]
    assert main(arguments(base, tmp_path / "whole", *cycle)) == 0
    with monkeypatch.context() as patch:
        Interruption(patch, "on_epoch", 2 + 3 + 1)
        assert main(arguments(base, tmp_path / "cut", *cycle)) == 130
    assert main(arguments(base, tmp_path / "cut", *cycle, "--resume")) == 0
    assert_same_training(tmp_path / "cut" / "tiny", tmp_path / "whole" / "tiny")


@pytest.mark.usefixtures("no_pictures")
def test_resume_after_the_process_was_killed(base, finished, tmp_path):
    command = [sys.executable, "-m", "multigrid.run", *arguments(base, tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    checkpoint = tmp_path / "tiny" / "level_0_8x8" / "last.pt"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert main(arguments(base, tmp_path, "--resume")) == 0
    assert_same_training(tmp_path / "tiny", finished)


@pytest.mark.usefixtures("no_pictures")
def test_resume_of_a_finished_run_changes_no_weights(base, tmp_path):
    short = ["schedule.epochs=[1,1]"]
    assert main(arguments(base, tmp_path, *short)) == 0
    before = {p: v for p, v in snapshot(tmp_path / "tiny").items() if p.suffix == ".pt"}
    assert main(arguments(base, tmp_path, *short, "--resume")) == 0
    after = {p: v for p, v in snapshot(tmp_path / "tiny").items() if p.suffix == ".pt"}
    assert after == before


def test_resume_with_a_changed_configuration_names_the_keys(base, finished, capsys):
    before = snapshot(finished)
    changed = ["model.width=16", "schedule.epochs=[9,4]", "--resume"]
    assert main(arguments(base, base / "results", *changed)) == 2
    error = capsys.readouterr().err
    assert "keys differ: model.width, schedule.epochs; use another name=... or, instead" in error
    assert snapshot(finished) == before


@pytest.mark.usefixtures("no_pictures")
def test_resume_starts_what_was_killed_before_it_began(base, finished, tmp_path):
    assert main(arguments(base, tmp_path, "--resume")) == 0
    assert_same_training(tmp_path / "tiny", finished)


@pytest.fixture
def broken(base, tmp_path, monkeypatch):
    """A run that was interrupted, ready for something worse."""
    with monkeypatch.context() as patch:
        Interruption(patch, "on_epoch", 5)
        assert main(arguments(base, tmp_path)) == 130
    return tmp_path


@pytest.mark.usefixtures("no_pictures")
def test_resume_with_no_sound_checkpoint_starts_anew_and_says_so(base, finished, broken, capsys):
    path = broken / "tiny" / "level_0_8x8" / "last.pt"
    path.write_bytes(path.read_bytes()[:1000])
    path.with_name("best.pt").unlink()  # with which it is refused
    capsys.readouterr()
    assert main(arguments(base, broken, "--resume")) == 0
    shown = capsys.readouterr().out
    assert "last.pt: unreadable" in shown
    assert "no sound checkpoint is left: starting from the beginning" in shown
    assert path.with_name("last.pt.damaged").stat().st_size == 1000
    assert_same_training(broken / "tiny", finished)


@pytest.mark.usefixtures("no_pictures")
def test_resume_of_a_run_that_did_not_know_all_settings_of_today(base, finished, broken):
    path = broken / "tiny" / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    del settings["parallel"], settings["recovery"]["factor"]
    path.write_text(yaml.safe_dump(settings))
    assert main(arguments(base, broken, "--resume")) == 0
    assert_same_training(broken / "tiny", finished)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("content", ["", "- 1", None])
def test_resume_restores_a_damaged_or_missing_configuration(
    base, finished, broken, capsys, content
):
    path = broken / "tiny" / "config.yaml"
    before = path.read_text()
    path.write_text(content) if content is not None else path.unlink()
    assert main(arguments(base, broken, "--resume")) == 0
    assert "config.yaml" in capsys.readouterr().err
    assert path.read_text() == before
    assert_same_training(broken / "tiny", finished)


def test_overwrite_removes_nothing_beside_a_link(base, broken, tmp_path, capsys):
    (broken / "tiny" / "level_7_9x9").symlink_to(tmp_path)
    files = sorted(path.name for path in (broken / "tiny").rglob("*"))
    assert main(arguments(base, broken, "--overwrite")) == 2
    assert "level_7_9x9: is a symbolic link" in capsys.readouterr().err
    assert sorted(path.name for path in (broken / "tiny").rglob("*")) == files


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("modle.width=3", "modle: unknown key"),
        ("model.width=0", "model.width: 0 is not allowed"),
        ("levels=[16,8]", "levels[1]: 8x8 must be finer"),
        ("levels=[8,20]", "the nearest size that can is 16x16"),
        ("schedule.epochs=[1,2,3]", "the list has 3 entries"),
        ("nonsense", "must have the form section.key=value"),
    ],
)
def test_user_errors_end_in_one_sentence(base, tmp_path, capsys, override, sentence):
    assert main(arguments(base, tmp_path, override)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentence in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_user_errors_in_a_process_of_their_own(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "multigrid.run", str(tmp_path / "nowhere.yaml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == (
        f"error: {tmp_path}/nowhere.yaml: cannot be read: No such file or directory\n"
    )


@pytest.mark.usefixtures("no_pictures")
def test_damaged_data_are_told(base, tmp_path, capsys):
    data = tmp_path / "data"
    command = arguments(base, tmp_path / "results", f"data.folder={data}", "schedule.epochs=[1,1]")
    assert main(command) == 0
    (path,) = data.glob("*.h5")
    path.write_bytes(path.read_bytes()[:5000])
    capsys.readouterr()
    assert main([*command, "name=again"]) == 2
    assert "unreadable or half-written HDF5 file" in capsys.readouterr().err


def test_results_folder_that_is_a_file(base, tmp_path, capsys):
    (tmp_path / "results").write_text("in the way")
    assert main(arguments(base, tmp_path / "results")) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "level_0_8x8/best.pt",
        "level_0_8x8/last.pt",
        "metrics.csv",
        "level_1_16x16/transfer.json",
        "summary.json",
    ],
)
def test_no_space_to_write(base, tmp_path, capsys, monkeypatch, name):
    original = files.write

    def write(file, content):
        if str(file.name).endswith(f"{name}.part"):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(file, content)

    monkeypatch.setattr(files, "write", write)
    assert main(arguments(base, tmp_path, "schedule.epochs=[1,1]")) == 2
    assert Path(name).name in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
def test_what_the_report_lacks_is_made_on_resuming(base, tmp_path, monkeypatch, capsys):
    short = ["schedule.epochs=[1,1]"]

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ladder, "spectra", fail)
        assert main(arguments(base, tmp_path, *short)) == 2
    assert "No space left on device" in capsys.readouterr().err
    before = read_summary(tmp_path / "tiny")["test"]
    assert main(arguments(base, tmp_path, *short, "--resume")) == 0
    assert read_summary(tmp_path / "tiny")["test"] == before
    assert (tmp_path / "tiny" / "predictions.npz").exists()


def test_too_large_a_learning_rate_is_told(base, tmp_path, capsys):
    diverging = ["schedule.learning_rate=1e30", "optimizer.clip=null"]
    assert main(arguments(base, tmp_path, *diverging)) == 2
    assert "try a smaller schedule.learning_rate than 1e+30" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    "variant",
    [
        ["model.form=classic"],
        ["data.centering=node"],
        ["data.centering=node", "levels=[9,17]"],
        ["problem.ndim=3", "levels=[4,8]", "problem.num_modes=4"],
        ["levels=[[8,12],[16,24]]"],
        ["levels=[8,32]"],
        ["levels=[{grid: 8, samples: 16},16]"],
        ["schedule.cycle=single"],
        ["schedule.cycle=w", "levels=[4,8,16]", "schedule.epochs=1"],
        ["schedule.cycle=f"],
        ["schedule.epochs=[1,0]"],
        ["schedule.patience=1"],
        ["optimizer.name=adamw"],
        ["optimizer.carry_moments=false", "optimizer.clip=null"],
        ["loss.name=rel_h1"],
        ["loss.name=mse", "data.normalization=gaussian"],
        ["data.augmentation=none", "data.normalization=none"],
        ["data.normalization=min-max", "data.memory=stream"],
        ["model.normalization=group", "model.num_blocks=2"],
        ["model.padding=periodic", "model.prolongation=1"],
        ["model.width={outer: 4, max: 16}", "model.depth=2"],
        ["compute.precision=bfloat16"],
    ],
    ids=" ".join,
)
def test_every_setting_runs(base, tmp_path, variant):
    assert main(arguments(base, tmp_path, "schedule.epochs=[2,1]", *variant)) == 0
    summary = read_summary(tmp_path / "tiny")
    assert 0 < summary["test"]["rel_l2"] < 4
    stages = summary["levels"]
    assert all(0 < stage["rel_l2"] <= stage["rel_l2_at_start"] for stage in stages)


def test_shipped_experiment_under_a_smoke_override(base, tmp_path):
    smoke = [
        "levels=[8,16,32]",
        "problem.num_modes=16",
        "data.train=64",
        "data.validation=16",
        "data.test=16",
        "model.width=12",
        "schedule.epochs=[14,6,4]",
        "schedule.batch_size=8",
        "schedule.learning_rate=5e-3",
        "compute.precision=float32",
        f"output.folder={tmp_path}",
        f"data.folder={tmp_path / 'data'}",
    ]
    assert main([str(POISSON), *smoke]) == 0
    summary = read_summary(tmp_path / "poisson")
    assert summary["test"]["rel_l2"] < 0.2
    for below, above in zip(summary["levels"], summary["levels"][1:], strict=False):
        bound = below["rel_l2"] + below["interpolation_error"]
        assert above["rel_l2_at_start"] <= 1.1 * bound


@pytest.mark.usefixtures("no_pictures")
def test_resume_mends_damaged_transfer_reports(base, finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        Interruption(patch, "on_epoch", 8 + 1)  # on the second level
        assert main(arguments(base, tmp_path)) == 130
    path = tmp_path / "tiny" / "level_0_8x8" / "transfer.json"
    path.write_text('{"broken')
    assert main(arguments(base, tmp_path, "--resume")) == 0
    mended, expected = (
        files.read_json(folder / "level_0_8x8" / "transfer.json")
        for folder in (tmp_path / "tiny", finished)
    )
    assert mended["run"] == RunFolder(tmp_path / "tiny").identity
    assert {k: v for k, v in mended.items() if k not in ("run", "checksum")} == {
        k: v for k, v in expected.items() if k not in ("run", "checksum")
    }


@pytest.mark.usefixtures("no_pictures")
def test_a_resumed_run_tells_the_time_left(base, broken, capsys):
    capsys.readouterr()
    assert main(arguments(base, broken, "--resume")) == 0
    assert "total_left=" in capsys.readouterr().out


def test_a_reader_of_the_screen_that_leaves_does_not_disturb_a_run(tmp_path, monkeypatch, capsys):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    with _logging(RunFolder(tmp_path)):
        logging.getLogger("multigrid").info("still there")
    assert (tmp_path / "run.log").read_text().endswith(" still there\n")
    assert capsys.readouterr().err == ""
