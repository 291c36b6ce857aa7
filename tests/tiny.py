"""Runs of the command that are over in a second."""

import json
from contextlib import ExitStack, redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import yaml

from multigrid import report
from multigrid.run import main

SECTIONS: dict[str, Any] = {
    "name": "tiny",
    "levels": [8, 16],
    "data": {"train": 32, "validation": 8, "test": 8},
    "model": {"width": 8},
    "schedule": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-2},
    "compute": {"precision": "float32"},
}


def write_experiment(path: Path, **sections: Any) -> Path:
    """Writes an experiment file; sections that are mappings add to the tiny ones."""
    merged = dict(SECTIONS)
    for name, value in sections.items():
        merged[name] = {**merged.get(name, {}), **value} if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(merged))
    return path


def run(experiment: Path, folder: Path, *overrides: str, pictures: bool = False) -> int:
    """Runs the command and returns its status; results and data go to ``folder``."""
    folders = [f"output.folder={folder / 'results'}", f"data.folder={folder / 'data'}"]
    with ExitStack() as stack:
        if not pictures:  # which take longer than such a training
            stack.enter_context(patch.object(report, "write_report", lambda *args: []))
        return main([str(experiment), *folders, *overrides])


def train(experiment: Path, folder: Path, *overrides: str, pictures: bool = False) -> Any:
    """Runs the command, which must succeed, and returns the summary."""
    assert run(experiment, folder, *overrides, pictures=pictures) == 0
    (path,) = (folder / "results").glob("*/summary.json")
    return json.loads(path.read_text())


def sweep_here(monkeypatch: Any) -> list[str]:
    """Has ``multigrid sweep`` train in this process; returns the names of the runs it starts."""
    names: list[str] = []

    def start(trial: Any, experiment: Path, jobs: int) -> tuple[Any, BytesIO]:
        names.append(trial.config.name)
        with redirect_stdout(StringIO()):
            status = main([str(experiment), *trial.overrides, "--resume"])
        return SimpleNamespace(poll=lambda: status, returncode=status), BytesIO()

    monkeypatch.setattr("multigrid.report.write_report", lambda *args: [])
    monkeypatch.setattr("multigrid.cli.sweep.start", start)
    return names
