"""A run as described by its result files. Imports no torch."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from multigrid.config import Config, read_saved
from multigrid.errors import UserError
from multigrid.files import path_of, read_json, require_run
from multigrid.records.examples import Examples
from multigrid.records.history import LevelParts, Row, read_history
from multigrid.records.run_folder import RunFolder, runs_nearby
from multigrid.tables import counted, si, table

# What pages, figures and comparisons read from the result files; they may hold more.
SUMMARY = ("levels", "test", "extra_tests", "rollout", "seconds", "work_units", "flops")
STAGE = ("level", "grid", "epochs", "seconds", "work_units", "parameters", "transferred", "new",
         "rel_l2_at_start", "rel_l2")  # fmt: skip
TENSOR = ("key", "status", "shape", "source_shape")
EVENTS = {
    "resumed": "resumed",
    "interrupted": "interrupted by a signal",
    "damaged checkpoint": "went back to an older checkpoint, as one was damaged,",
    "unreadable": "a line of the journal was damaged",
}


@dataclass(frozen=True)
class RunRecord:
    """The result files of one run, read when they are asked for.

    Attributes:
        folder: The run's folder.
    """

    folder: RunFolder

    @classmethod
    def open(cls, path: str | Path) -> "RunRecord":
        """Opens the folder of a run."""
        folder = RunFolder(path_of(path))
        if not folder.config.is_file():
            raise UserError(f"{folder.path}: holds no run{runs_nearby(folder.path)}")
        return cls(folder)

    @cached_property
    def config(self) -> Config:
        """The run's configuration."""
        return read_saved(self.folder.config)

    @cached_property
    def rows(self) -> list[Row]:
        """The history."""
        path = self.folder.metrics
        rows = read_history(path, self.folder.identity)
        if not rows:
            raise UserError(f"{path}: holds no epoch")
        counts = Counter(row.stage for row in rows)
        for number, stage in enumerate(self.summary["levels"] if self.is_finished else ()):
            expected = stage["epochs"] + 1  # with the state on entering it
            if counts[number] != expected:
                raise UserError(
                    f"{path}: has {counts[number]} rows of stage {number}, not the {expected} that "
                    "summary.json tells of; --resume writes them again"
                )
        return rows

    @property
    def is_finished(self) -> bool:
        """Whether the run is finished."""
        return self.folder.summary.is_file()

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The summary."""
        if not self.is_finished:
            raise UserError(
                f"{self.folder.path}: the run is unfinished; continue it with --resume first"
            )
        summary = self._read(self.folder.summary, SUMMARY, levels=STAGE)
        _require(self.folder.summary, summary["test"], ("rel_l2",))
        return summary

    @cached_property
    def direct(self) -> "RunRecord | None":
        """The run on the finest grid alone that ``--with-direct`` has trained, if it is there."""
        folder = RunFolder(self.folder.direct)
        return RunRecord(folder) if folder.summary.is_file() else None

    @property
    def remarks(self) -> list[str]:
        """What a reader must know about how the run went; empty for an unfinished one."""
        return remarks(self.summary) if self.is_finished else []

    @cached_property
    def examples(self) -> Examples | None:
        """Some predictions; None if the run is unfinished."""
        path = self.folder.examples
        return Examples.read(path, self.folder.identity) if path.is_file() else None

    @cached_property
    def spectra(self) -> dict[str, Any] | None:
        """The spectra of the truth and of every level's error; None if the run is unfinished."""
        path = self.folder.spectra
        if not path.is_file():
            return None
        return self._read(path, ("truth", "levels"), levels=("level", "grid", "error"))

    @cached_property
    def levels(self) -> list[LevelParts]:
        """The networks of the levels entered so far, and what was transferred into them."""
        hierarchy = self.config.hierarchy()
        levels = []
        for level, (grid, top) in enumerate(zip(hierarchy.levels, hierarchy.tops, strict=True)):
            path = self.folder.path / f"level_{level}_{grid}" / "transfer.json"
            if path.is_file():
                bottom = 0 if self.config.model.growth else top - hierarchy.tops[0]
                grids = [str(scale) for scale in hierarchy.scales[bottom : top + 1]]
                report = self._read(path, ("tensors",), tensors=TENSOR)
                if report.get("level", level) != level:
                    raise UserError(f"{path}: is of level {report['level']}, not of this folder's")
                levels.append(LevelParts(level, str(grid), grids, report["tensors"]))
        return levels

    def _read(self, path: Path, keys: Iterable[str], **lists: Iterable[str]) -> dict[str, Any]:
        """Returns the content of a JSON file, which must be of this run and have some keys.

        So must the entries of its ``lists``.
        """
        value = read_json(path)
        _require(path, value, keys)
        require_run(path, value.get("run", ""), self.folder.identity)
        for name, inner in lists.items():
            for entry in value[name]:
                _require(path, entry, inner)
        return dict(value)


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Returns what a reader must know about how a run went, also in an earlier version."""
    sentences = []
    events = summary.get("events", ())
    for event, phrase in EVENTS.items():
        if count := sum(record["event"] == event for record in events):
            sentences.append(f"{phrase} {counted(count, 'time')}")
    if changed := {key for record in events for key in record.get("changed", ())}:
        sentences.append(f"resumed with a different {', '.join(sorted(changed))}")
    for key in ("loss", "network", "optimizer"):
        if place := summary.get("handed_in", {}).get(key):
            sentences.append(f"{key}: {place}, handed in from Python")
    for number, stage in enumerate(summary["levels"]):
        where = f"stage {number} on level {stage['level']}"
        if count := len(stage.get("went_back", ())):
            sentences.append(f"{where} rolled back {counted(count, 'time')}")
        if stage.get("outcome") == "never improved":
            sentences.append(f"{where}: the validation error never improved")
    if summary["levels"][-1].get("outcome") == "still improving":
        sentences.append("unconverged: the validation error was still falling at the end")
    return sentences


def stage_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of the finished stages."""
    header = ["Level", "Grid", "Epochs", "Seconds", "Work units", "Transferred", "Frozen"]
    rows = [
        [
            str(stage["level"]),
            "x".join(map(str, stage["grid"])),
            str(stage["epochs"]),
            f"{stage['seconds']:.1f}",
            f"{stage['work_units']:.2f}",
            f"{stage['transferred']:,}/{stage['parameters']:,}",
            f"{stage.get('frozen', 0):,}",
            *(number(stage[key]) for key in ("rel_l2_at_start", "rel_l2")),
        ]
        for stage in summary["levels"]
    ]
    return [*header, "Start", "End"], rows


Errors = Mapping[str, float]


def errors_by_test(summary: Mapping[str, Any]) -> dict[str, tuple[Errors, Errors]]:
    """Returns every metric and the relative L2 errors of baselines, by what was tested.

    That is the test samples, each of several fields of them, and further tests.
    """
    by_field, guesses = summary.get("test_by_field", {}), summary.get("baselines", {})
    tests = {"test": (summary["test"], guesses.get("test", {}))}
    fields = list(by_field.get("rel_l2", ()))
    for field in fields if len(fields) > 1 else ():
        tests[f"test, {field}"] = {metric: row[field] for metric, row in by_field.items()}, {}
    for name, errors in summary["extra_tests"].items():
        tests[f"test '{name}'"] = errors, guesses.get(name, {})
    return tests


def rollout_table(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of a roll-out's errors: mean (lowest to highest) after some steps."""
    header = ["Metric", *(counted(step, "step") for step in metrics["steps"])]
    rows = [[name, *map(_spread, spreads)] for name, spreads in metrics["errors"].items()]
    more = {
        "steps to correlation 0.8": _spread(metrics["correlation_steps"]),
        "part of the trajectories that blow up": number(metrics["blow_up"]),
    }
    rows += [[label, text, *[""] * (len(header) - 2)] for label, text in more.items()]
    return header, rows


def _spread(value: Mapping[str, Any]) -> str:
    return f"{number(value['mean'])} ({number(value['low'])} to {number(value['high'])})"


def number(value: Any) -> str:
    """Returns a value of a result file as text; None stands for what JSON cannot hold."""
    if value is None:
        return "not finite"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def describe(summary: Mapping[str, Any]) -> str:
    """Returns the table of the finished stages, test errors and remarks as text."""
    lines = [table(*stage_table(summary)), ""]
    for name, (errors, guesses) in errors_by_test(summary).items():
        lines.append(f"{name}: {_pairs(errors)}")
        if guesses:
            lines.append(f"  rel_l2 of baselines: {_pairs(guesses)}")
    after = "roll-out, relative L2 error after each step"
    for name, key in ((after, "rollout"), ("persistence", "rollout_persistence")):
        if steps := summary.get(key):
            lines.append(f"{name}: {'  '.join(map(number, steps))}")
    lines += [f"note: {remark}" for remark in remarks(summary)]
    lines.append(
        f"{summary['seconds']:.1f} s of training, {summary['work_units']:.2f} work units, "
        f"{si(summary['flops'])}FLOPs; {100 * summary['saving_share']:.2f} % of the time to save "
        "checkpoints"
    )
    return "\n".join(lines)


def _pairs(values: Mapping[str, Any]) -> str:
    return "  ".join(f"{key}={number(value)}" for key, value in values.items())


def _require(path: Path, record: Any, keys: Iterable[str]) -> None:
    for key in keys:
        if not isinstance(record, Mapping) or key not in record:
            raise UserError(f"{path}: lacks '{key}'; it is of another version")
