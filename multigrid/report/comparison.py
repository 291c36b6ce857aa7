"""Runs of several methods, grouped by their settings and compared. Imports no torch."""

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multigrid.errors import UserError, nearest
from multigrid.files import path_of
from multigrid.records.history import Row
from multigrid.report.record import RunRecord
from multigrid.tables import si, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Groups = dict[str, list[RunRecord]]

# What should be equal in a comparison, and what it says if it is not.
TERMS = {
    "data_fingerprint": "errors are for different samples, so there is no speed-up between them",
    "machine": "times are from different machines ({})",
    "threads": "times are for different numbers of threads ({})",
    "precision": "times are for different precisions ({})",
}
QUANTITIES = ("seconds", "work_units", "flops")
HEADER = ("Runs", "Best validation", "Test", "Seconds", "Work", "FLOPs")
INDIFFERENT: Any = {"name": True, "seed": True, "output": True, "data": {"folder"}}


@dataclass(frozen=True)
class Comparison:
    """Several methods side by side; ``print`` shows a table.

    Attributes:
        baseline: The method that speed-ups refer to.
        target: The baseline's best validation error; of several runs the one that at least half of
            them reach.
        rows: One mapping for each method: ``method``, ``runs``, ``seeds``; the median, lowest
            and highest ``best_validation``, ``test``, ``seconds``, ``work_units`` and ``flops``
            over its seeds; the same of ``test_by_field``, by name of the output field; and
            ``speed_up``, the baseline's cost to the target over its cost.
        notes: What is not the same for all of them.
        histories: The rows of ``metrics.csv`` of each method's runs.
    """

    baseline: str
    target: float
    rows: list[dict[str, Any]]
    notes: list[str]
    histories: Mapping[str, Sequence[Sequence[Row]]]

    def to_json(self) -> dict[str, Any]:
        """Returns plain containers."""
        return {"baseline": self.baseline, "methods": self.rows, "notes": self.notes}

    def to_pandas(self) -> Any:
        """Returns a row for each method, with the medians; needs the package ``pandas``."""
        import pandas  # type: ignore[import-not-found,import-untyped,unused-ignore]

        return pandas.json_normalize(self.rows).set_index("method")

    def figure(self, against: str | None = None) -> "Figure":
        """Draws the lowest error so far against time, work and operations.

        ``against``: one panel alone, against ``seconds``, ``work_units`` or ``flops``.
        """
        from multigrid.plots.curves import plot_comparison

        return plot_comparison(self.histories, self.target, f"dashed: {self._target}", against)

    @property
    def _target(self) -> str:
        if len(self.histories[self.baseline]) == 1:
            return f"{self.target:.4g}, the best validation error of {self.baseline}"
        return f"{self.target:.4g}, which at least half of the runs of {self.baseline} reach"

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Returns header and rows of the table, the last columns with speed-ups."""
        rows = []
        for row in self.rows:
            ups = ("-" if up is None else f"{up:.1f}x" for up in row["speed_up"].values())
            rows.append([row["method"], *cells(row), *ups])
        return ["Method", *HEADER, "Time", "Work", "FLOPs"], rows

    def __str__(self) -> str:
        text = (
            "relative L2 errors, median (range over seeds); last columns: speed-up to "
            f"{self._target}\n" + table(*self.table())
        )
        names = list(dict.fromkeys(name for row in self.rows for name in row["test_by_field"]))
        if len(names) < 2:
            return text
        by_field = [
            [row["method"], *(_range(row["test_by_field"].get(name)) for name in names)]
            for row in self.rows
        ]
        return f"{text}\n\ntest error by output field\n{table(['Method', *names], by_field)}"


def cells(row: Mapping[str, Any]) -> list[str]:
    """Returns what tables show of a method's runs, below :data:`HEADER`."""
    return [
        str(len(row["runs"])),
        _range(row["best_validation"]),
        _range(row["test"]),
        f"{row['seconds']['median']:.1f}",
        f"{row['work_units']['median']:.2f}",
        si(row["flops"]["median"]),
    ]


def compare(runs: Iterable[str | Path], baseline: str | None = None) -> Comparison:
    """Compares the runs of some folders; those that differ in name and seed only are one method.

    Speed-ups refer to the method ``baseline``, by default that of the first run.

    Raises:
        UserError: If a folder holds no run, or one that has trained nothing yet, or there is no
            such baseline.
    """
    folders = map(path_of, runs)
    records = [RunRecord.open(path) for path in {path.resolve(): path for path in folders}.values()]
    if not records:
        raise UserError("compare: there are no runs to compare")
    for record in records:
        if all(row.flops == 0 for row in record.rows):
            raise UserError(f"{record.folder.path}: has trained no epoch yet")
    groups = _groups(records)
    baseline = next(iter(groups)) if baseline is None else baseline
    if baseline not in groups:
        raise UserError(
            f"--baseline: '{baseline}' is not one of the methods {', '.join(groups)}"
            f"{nearest(baseline, groups)}"
        )
    base = groups[baseline]
    # the median over seeds, which at least half of them reach
    target = statistics.median_high(map(best_error, base))
    rows = [_summarise(name, members, base, target) for name, members in groups.items()]
    histories = {name: [record.rows for record in members] for name, members in groups.items()}
    return Comparison(baseline, target, rows, _differences(records, groups), histories)


def _groups(runs: Sequence[RunRecord]) -> Groups:
    """Groups runs of equal networks whose settings differ in name, seed and output only."""
    by_settings: dict[str, list[RunRecord]] = {}
    for run in runs:
        settings = run.config.model_dump(exclude=INDIFFERENT)
        # a configuration does not describe a user's network; its tensors do, from epoch 1 on
        tensors = run.levels[0].tensors if run.levels else ()
        network = [(t["key"], t["shape"]) for t in tensors if t["status"] != "UNUSED"]
        key = json.dumps([settings, network], sort_keys=True, default=str)
        by_settings.setdefault(key, []).append(run)
    groups: Groups = {}
    for members in by_settings.values():
        name = _method(members)  # which others may have as well
        groups[str(members[0].folder.path) if name in groups else name] = members
    return groups


def _method(runs: Sequence[RunRecord]) -> str:
    """Returns the name of runs without their seed: ``a`` of ``a-seed3``, or of ``a-3`` and ``a-4``.

    A single run's number, as in ``width-40``, is its seed only where the name says so.
    """
    word = "(seed|s)" + "?" * (len(runs) > 1)
    names = {
        re.sub(rf"[-_.]?{word}[-_.]?0*{run.config.seed}$", "", run.config.name) for run in runs
    }
    name = names.pop()
    return name if name and not names else runs[0].config.name


def _summarise(
    name: str, runs: Sequence[RunRecord], baseline: Sequence[RunRecord], target: float
) -> dict[str, Any]:
    """Returns median and spread over the runs of a method, and its speed-up.

    The speed-up is the baseline's cost to the target over this method's, each the median over
    seeds; None if fewer than half of the runs reach it, or the samples differ.
    """
    finished = [run.summary for run in runs if run.is_finished]
    tests = [summary["test"]["rel_l2"] for summary in finished]
    by_field = [summary.get("test_by_field", {}).get("rel_l2", {}) for summary in finished]
    speed_up: dict[str, float | None] = {}
    comparable = _same_samples([*runs, *baseline])
    for quantity in QUANTITIES:
        cost, base_cost = (
            statistics.median(_cost_to(run.rows, target, quantity) for run in group)
            for group in (runs, baseline)
        )
        reached = 0 < cost < math.inf and base_cost < math.inf
        speed_up[quantity] = base_cost / cost if reached and comparable else None
    return {
        "method": name,
        "runs": [str(run.folder.path) for run in runs],
        "seeds": [run.config.seed for run in runs],
        "best_validation": _spread([best_error(run) for run in runs]),
        "test": _spread(tests) if tests else None,
        "test_by_field": {
            name: _spread([errors[name] for errors in by_field if name in errors])
            for name in next(iter(by_field), ())
        },
        **{key: _spread([getattr(run.rows[-1], key) for run in runs]) for key in QUANTITIES},
        "speed_up": speed_up,
    }


def _same_samples(runs: Sequence[RunRecord]) -> bool:
    """Whether all runs are validated on the same samples."""
    prints = {run.summary.get("data_fingerprint") for run in runs if run.is_finished}
    counts = {(run.config.data.validation, str(run.config.hierarchy().finest)) for run in runs}
    return len(prints) <= 1 and len(counts) == 1


def _differences(runs: Sequence[RunRecord], groups: Groups) -> list[str]:
    """Returns a sentence for each thing that makes finished runs hard to compare."""
    summaries = [run.summary for run in runs if run.is_finished]
    notes = []
    for key, sentence in TERMS.items():
        values = sorted({str(summary.get(key)) for summary in summaries})
        if len(values) > 1:
            notes.append(sentence.format(", ".join(values)))
    if unfinished := [str(run.folder.path) for run in runs if not run.is_finished]:
        notes.append(f"unfinished, so without a test: {', '.join(unfinished)}")
    for name, members in groups.items():
        seeds = [run.config.seed for run in members]
        if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            listed = ", ".join(map(str, twice))
            notes.append(f"{name}: several runs have the same seed ({listed}), so ranges are small")
    return notes


def best_error(run: RunRecord) -> float:
    """Returns the lowest validation error of a run, on the finest grid."""
    return min(row.val_finest_rel_l2 for row in run.rows)


def _cost_to(rows: Sequence[Row], error: float, quantity: str) -> float:
    """Returns the cost at which a validation error was first reached; infinite if never."""
    reached = (row for row in rows if row.val_finest_rel_l2 <= error)
    return next((float(getattr(row, quantity)) for row in reached), math.inf)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _range(spread: Mapping[str, float] | None) -> str:
    if spread is None:
        return "-"
    low, high = f"{spread['low']:.4g}", f"{spread['high']:.4g}"
    return f"{spread['median']:.4g}" + f" ({low} to {high})" * (spread["low"] < spread["high"])
