"""What a run tells while it goes on."""

import json
import re
import sys
from functools import partialmethod
from types import SimpleNamespace

import pytest
from tiny import run, train, write_experiment

from multigrid.grid import Grid
from multigrid.training import callbacks
from multigrid.training.callbacks import ProgressBar
from multigrid.training.progress import Progress


def test_time_left(monkeypatch):
    now = 0.0
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: now)
    bar = ProgressBar([Grid((4, 4)), Grid((8, 8)), Grid((16, 16))])
    run = SimpleNamespace(stage_costs=[2.0, 4.0, 6.0])
    stage, progress = SimpleNamespace(level=1, index=1, epochs=2), Progress(epoch=1)
    bar.on_level_start(run, SimpleNamespace(stage=stage, progress=progress, num_steps=8))
    now = 10.0  # for four steps of sixteen after a resume
    assert bar.time_left(12) == ("00:10", "01:10")
    now = 20.0
    assert bar.time_left(16) == ("00:00", "01:00")


def test_lines_can_be_searched(tmp_path):
    train(write_experiment(tmp_path / "e.yaml", problem={"kind": "poisson", "num_modes": 4}),
          tmp_path, "schedule.epochs=[2,1]")  # fmt: skip
    text = (tmp_path / "results/tiny/run.log").read_text()
    pattern = (
        r"\[level (\d)/1 \| \d+x\d+\] epoch (\d)/(\d)  .* val_rel_l2=\S+ .* left=\S+  total_left"
    )
    assert re.findall(pattern, text) == [("0", "1", "2"), ("0", "2", "2"), ("1", "1", "1")]
    assert "\r" not in text


def test_a_terminal_gets_a_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = type("Bar", (callbacks.tqdm,), {})
    bar.__init__ = partialmethod(callbacks.tqdm.__init__, mininterval=0)
    monkeypatch.setattr(callbacks, "tqdm", bar)
    train(write_experiment(tmp_path / "e.yaml", problem={"kind": "poisson", "num_modes": 4}),
          tmp_path, "schedule.epochs=[2,1]")  # fmt: skip
    shown = capsys.readouterr().err
    assert "[level 0/1 | 8x8] epoch 1/2" in shown
    assert re.search(r"[1-8]/8 steps, \d+:\d+ left, all levels \d+:\d+", shown), shown


def test_tensorboard_events(tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from torch.utils.tensorboard import SummaryWriter

    experiment = write_experiment(tmp_path / "e.yaml", problem={"kind": "poisson", "num_modes": 4})
    closed, close = [], SummaryWriter.close
    monkeypatch.setattr(SummaryWriter, "close", lambda writer: closed.append(close(writer)))
    train(experiment, tmp_path, "schedule.epochs=[2,1]", "output.tensorboard=true")
    assert len(closed) == 1
    folder = tmp_path / "results" / "tiny"
    events = accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    errors = events.Scalars("val_rel_l2/level_1")
    summary = json.loads((folder / "summary.json").read_text())
    assert [event.step for event in errors] == [3, 4]
    assert min(e.value for e in errors) == pytest.approx(summary["levels"][1]["rel_l2"], rel=1e-6)


def test_without_tensorboard_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    experiment = write_experiment(tmp_path / "e.yaml", problem={"kind": "poisson", "num_modes": 4})
    assert run(experiment, tmp_path, "output.tensorboard=true") == 2
    assert "the package 'tensorboard' is not installed" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
