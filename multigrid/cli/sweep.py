"""``multigrid sweep``: a run for each combination of settings and seeds, and their table."""

import argparse
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from multigrid.cli import (
    EXPERIMENT,
    JSON,
    argument,
    command,
    flag,
    go_on,
    one_of,
    positive,
    print_json,
)
from multigrid.config import Config, load_config
from multigrid.config.yaml_file import parse_values
from multigrid.data.generation import num_cores
from multigrid.errors import UserError
from multigrid.files import write_json
from multigrid.records.run_folder import RunFolder
from multigrid.tables import table


@dataclass(frozen=True)
class Trial:
    """One run of a sweep: what it sets, the overrides that say so, and what follows from them."""

    settings: Mapping[str, Any]
    overrides: Sequence[str]
    config: Config

    @property
    def folder(self) -> RunFolder:
        """Where its results go."""
        return RunFolder(Path(self.config.output.folder) / self.config.name)

    @property
    def changed(self) -> str:
        """In which keys a run that is there already differs."""
        return ", ".join(self.folder.changed_keys(self.config))

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.folder.summary.exists()


@command(
    *EXPERIMENT,
    argument(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="values of a setting, in YAML; all combinations of several --set are trained",
    ),
    argument(
        "--seeds", type=positive, metavar="N", help="train with so many seeds, from 'seed' on"
    ),
    argument("--jobs", type=positive, default=1, metavar="N", help="runs at the same time (1)"),
    one_of(
        argument("--task", type=int, metavar="I", help="only run number I, from 0: for arrays"),
        flag("--dry-run", "list the runs, and what is there so far, then stop"),
    ),
    JSON,
    examples=(
        "experiments/poisson.yaml --set model.width=4,8 --seeds 2 --jobs 2",
        'experiments/poisson.yaml --set "schedule.epochs=[2,1,1,1],[1,1,1,1]" --dry-run',
        "experiments/poisson.yaml --set model.width=4,8 --seeds 2 --task 3",
    ),
    on_signal=go_on,
)
def sweep(options: argparse.Namespace) -> None:
    """Trains an experiment with all combinations of some settings and seeds, and compares them.

    Finished runs are left as they are, interrupted ones are continued.
    """
    trials = plan(options.experiment, options.overrides, options.sets, options.seeds)
    if options.dry_run:
        for number, trial in enumerate(trials):
            there = "finished" if trial.is_finished else "to train"
            if trial.changed:
                there = f"there with other settings, these keys differ: {trial.changed}"
            print(f"{number}: {trial.config.name}, {there}", file=sys.stderr)
        finished = [trial for trial in trials if trial.is_finished and not trial.changed]
        if finished:
            show(finished, options.json, write=False)
        return
    if options.task is not None and not 0 <= options.task < len(trials):
        raise UserError(f"--task: {options.task} is not from 0 to {len(trials) - 1}")
    chosen = trials if options.task is None else [trials[options.task]]
    for trial in chosen:
        if trial.changed:
            raise UserError(
                f"{trial.folder.path}: was trained with other settings; these keys differ: "
                f"{trial.changed}; use another name=... for the sweep, or remove this folder"
            )
    if options.task is not None:
        from multigrid.run import train_ladder

        train_ladder(chosen[0].config, resume=True)
        return
    failures = train_all(trials, options.experiment, options.jobs)
    finished = [trial for trial in trials if trial.is_finished]
    if finished:
        show(finished, options.json)
    if failures:
        name, sentence = next(iter(failures.items()))
        raise UserError(
            f"{len(failures)} of {len(trials)} runs failed, which the same command tries again; "
            f"{name}: {sentence}"
        )


def plan(
    experiment: Path, overrides: Sequence[str], sets: Sequence[str], seeds: int | None
) -> list[Trial]:
    """Returns all runs, of seeds next to each other, with settings that have been checked.

    Raises:
        UserError: For the first setting that is wrong.
    """
    base = load_config(experiment, overrides)
    axes: dict[str, list[Any]] = {}
    for text in sets:
        key, values = _axis(text)
        if key in axes:
            raise UserError(f"--set: '{key}' is given twice")
        axes[key] = values
    if seeds is not None:
        axes["seed"] = [base.seed + number for number in range(seeds)]
    folder = Path(base.output.folder) / f"{base.name}-sweep"
    choices = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    names = [_name(base.name, settings) for settings in choices]
    trials = []
    for name, settings in zip(names, choices, strict=True):
        if names.count(name) > 1:
            name = f"{name[:80]}-{_hash(json.dumps(settings))}"
        place = {"name": name, "output.folder": str(folder)}
        changes = [f"{key}={json.dumps(value)}" for key, value in {**settings, **place}.items()]
        changes = [*overrides, *changes]
        trials.append(Trial(settings, changes, load_config(experiment, changes)))
    return trials


def _axis(text: str) -> tuple[str, list[Any]]:
    """Returns the key of ``key=value,value`` and its values."""
    key, equals, values = text.partition("=")
    if not equals:
        raise UserError(f"--set '{text}' must have the form section.key=value,value")
    if key in ("name", "output.folder"):
        raise UserError(f"--set: '{key}' follows from the other settings of each run")
    return key, parse_values(f"--set '{text}'", values)


def _name(experiment: str, settings: Mapping[str, Any]) -> str:
    """Returns the name of a run: what it sets, or a hash where that is long."""
    parts = [experiment] if settings.keys() <= {"seed"} else []
    for key, value in settings.items():
        text = re.sub(r"[^A-Za-z0-9.-]+", "-", re.sub(r"[\[\]{}' ]", "", str(value)))
        parts.append(f"{key.rpartition('.')[2]}-{text}")
    name = "_".join(parts)
    return name if len(name) <= 100 else _hash(name)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def train_all(trials: Sequence[Trial], experiment: Path, jobs: int) -> dict[str, str]:
    """Trains what is not finished, some at a time, each in a process of its own.

    Returns:
        What the runs that have failed say, by name.
    """
    waiting = [trial for trial in trials if not trial.is_finished]
    if jobs > 1:  # which would generate the same samples at the same time
        from multigrid.ladder.components import make_samples

        for trial in waiting:
            if trial.config.files is None:
                make_samples(trial.config)
    running: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
    failures, done = {}, len(trials) - len(waiting)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                trial = waiting.pop(0)
                running[trial.config.name] = start(trial, experiment, jobs)
            time.sleep(0.1)
            for name, (process, errors) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                done += 1
                if process.returncode:
                    errors.seek(0)
                    text = errors.read().decode(errors="replace").strip()
                    last = (text or f"exit status {process.returncode}").splitlines()[-1]
                    failures[name] = last.removeprefix("error: ")
                outcome = failures.get(name, "finished")
                print(f"[{done}/{len(trials)}] {name}: {outcome}", file=sys.stderr)
    finally:
        for process, _ in running.values():  # they save what they have, and can be resumed
            process.terminate()
        for process, _ in running.values():
            process.wait()
    return failures


def start(trial: Trial, experiment: Path, jobs: int) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Starts a run that signals to this process do not reach; also returns the file of errors."""
    threads = max(1, num_cores() // jobs)
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (read once the run has ended)
    process = subprocess.Popen(  # noqa: S603 (what the user has given, without a shell)
        [sys.executable, "-m", "multigrid.run", str(experiment), *trial.overrides, "--resume"],
        env={"OMP_NUM_THREADS": str(threads), **os.environ},
        stdout=subprocess.DEVNULL,  # run.log has it
        stderr=errors,
        start_new_session=True,
    )
    return process, errors


def show(trials: Sequence[Trial], as_json: bool, write: bool = True) -> None:
    """Prints the table of finished runs, best first; also writes it and draws their errors."""
    from multigrid.plots.style import save_figure
    from multigrid.report.comparison import HEADER, best_error, cells, compare
    from multigrid.report.record import RunRecord

    comparison = compare([trial.folder.path for trial in trials])
    settings = {str(trial.folder.path): dict(trial.settings) for trial in trials}
    keys = [key for key in trials[0].settings if key != "seed"]
    varied = [key for key in keys if len({str(s[key]) for s in settings.values()}) > 1]
    rows = sorted(comparison.rows, key=lambda row: row["best_validation"]["median"])
    for row in rows:
        row["settings"] = {key: settings[row["runs"][0]][key] for key in varied}
    lines = [[*map(str, row["settings"].values()), *cells(row)] for row in rows]
    best = str(min(settings, key=lambda path: best_error(RunRecord.open(path))))
    folder = trials[0].folder.path.parent
    figure, numbers = folder / "sweep.png", folder / "sweep.json"
    content = {**comparison.to_json(), "methods": rows, "best": best}
    if write:
        save_figure(comparison.figure(), figure)
        write_json(numbers, content)
    if as_json:
        print_json(content)
        return
    for note in comparison.notes:
        print(f"note: {note}", file=sys.stderr)
    print("relative L2 errors, median (range over seeds)")
    print(f"{table([*varied, *HEADER], lines)}\n\nbest: {best}")
    if write:
        print(f"figure: {figure}; numbers: {numbers}")
