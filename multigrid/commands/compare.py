"""``multigrid compare``: several runs in one table and one figure."""

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multigrid.benchmark.analysis import CostRecord
from multigrid.commands.arguments import add_json, add_runs
from multigrid.commands.command import Command, print_json
from multigrid.errors import UserError, nearest
from multigrid.report.record import RunRecord
from multigrid.tables import si, table

Groups = dict[str, list[RunRecord]]

# What a comparison takes for granted, and what it says of if it differs.
TERMS = {
    "data_fingerprint": "errors are of different samples",
    "machine": "times are of different machines",
    "threads": "times are of different numbers of threads",
    "precision": "times are of different precisions",
}
QUANTITIES = ("seconds", "work_units", "flops")
INDIFFERENT = ("name", "seed", "output")
SEED = re.compile(r"[-_.]?(seed|s)\d+$")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_runs(parser)
    parser.add_argument(
        "--baseline", metavar="NAME", help="what the speed-ups refer to, by default the first"
    )
    parser.add_argument(
        "--figure",
        type=Path,
        default=Path("comparison.png"),
        metavar="FILE",
        help="figure to write: .png, .pdf or .svg (comparison.png)",
    )
    add_json(parser)


def execute(options: argparse.Namespace) -> None:
    """Gathers the runs by method, draws them and prints the table."""
    from multigrid.plots.comparison import plot_comparison
    from multigrid.plots.style import FORMATS, save_figure

    if options.figure.suffix[1:] not in FORMATS:
        raise UserError(f"{options.figure}: the name must end in .{', .'.join(FORMATS)}")
    paths: dict[Path, Path] = {}
    for path in options.runs:
        paths.setdefault(path.resolve(), path)
    runs = [RunRecord.open(path) for path in paths.values()]
    for run in runs:
        if all(row.flops == 0 for row in run.rows):
            raise UserError(f"{run.folder.path}: has trained no epoch yet")
    groups = gather(runs)
    baseline = _baseline(groups, options.baseline)
    results = [summarise(name, members, groups[baseline]) for name, members in groups.items()]
    notes = differing_terms(runs)
    target = _target(groups[baseline])
    histories = {name: [run.rows for run in members] for name, members in groups.items()}
    figure = plot_comparison(histories, target, f"dashed: the best error of {baseline}")
    save_figure(figure, options.figure)
    if options.json:
        print_json({"baseline": baseline, "methods": results, "notes": notes})
        return
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(_text(results, baseline, target))
    print(f"\nfigure: {options.figure}")


def gather(runs: Sequence[RunRecord]) -> Groups:
    """Gathers runs of equal networks whose configurations differ in name, seed and folder only."""
    by_settings: dict[str, list[RunRecord]] = {}
    for run in runs:
        settings = run.config.model_dump()
        kept = {key: value for key, value in settings.items() if key not in INDIFFERENT}
        key = json.dumps([kept, _network(run)], sort_keys=True)
        by_settings.setdefault(key, []).append(run)
    groups: Groups = {}
    for members in by_settings.values():
        name = SEED.sub("", members[0].config.name) or members[0].config.name
        if name in groups:  # other settings under the same name
            name = str(members[0].folder.path)
        groups[name] = members
    return groups


def summarise(
    name: str, runs: Sequence[RunRecord], baseline: Sequence[RunRecord]
) -> dict[str, Any]:
    """Returns median and spread over the runs of a method, and its speed-up.

    The speed-up is the baseline's cost to its own best error over this method's cost to the same
    error, each the median over seeds; None if fewer than half of the runs reach it.
    """
    costs, base = [_costs(run) for run in runs], [_costs(run) for run in baseline]
    target = _target(baseline)
    tests = [run.summary["test"]["rel_l2"] for run in runs if run.is_finished]
    speed_up = {}
    for quantity in QUANTITIES:
        mine, theirs = (
            statistics.median(run.cost_to(target, quantity) for run in group)
            for group in (costs, base)
        )
        reached = math.isfinite(mine) and mine > 0 and math.isfinite(theirs)
        speed_up[quantity] = theirs / mine if reached else None
    return {
        "method": name,
        "runs": [str(run.folder.path) for run in runs],
        "seeds": [run.config.seed for run in runs],
        "best_validation": _spread([run.best for run in costs]),
        "test": _spread(tests) if tests else None,
        **{key: _spread([getattr(r.rows[-1], key) for r in costs]) for key in QUANTITIES},
        "speed_up": speed_up,
    }


def differing_terms(runs: Sequence[RunRecord]) -> list[str]:
    """Returns a sentence for each thing that is not the same for all finished runs."""
    summaries = [run.summary for run in runs if run.is_finished]
    notes = []
    for key, sentence in TERMS.items():
        values = sorted({str(summary.get(key)) for summary in summaries})
        if len(values) > 1:
            shown = "" if key == "data_fingerprint" else f" ({', '.join(values)})"
            notes.append(sentence + shown)
    unfinished = [str(run.folder.path) for run in runs if not run.is_finished]
    if unfinished:
        notes.append(f"unfinished, so not tested: {', '.join(unfinished)}")
    return notes


def _network(run: RunRecord) -> list[tuple[str, Sequence[int]]]:
    """Returns names and shapes of the coarsest network's tensors.

    A configuration says nothing of a user's own network; this is known from the first epoch on.
    """
    tensors = run.levels[0].tensors if run.levels else ()
    return [(t["key"], t["shape"]) for t in tensors if t["status"] != "UNUSED"]


def _costs(run: RunRecord) -> CostRecord:
    return CostRecord(run.config.name, run.config.seed, run.rows)


def _target(baseline: Sequence[RunRecord]) -> float:
    """Returns the baseline's best error: the median over seeds, which at least half reach."""
    return statistics.median_high(_costs(run).best for run in baseline)


def _baseline(groups: Groups, name: str | None) -> str:
    if name is None:
        return next(iter(groups))
    if name not in groups:
        raise UserError(
            f"--baseline: '{name}' is none of the methods {', '.join(groups)}"
            f"{nearest(name, groups)}"
        )
    return name


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _text(results: Sequence[Mapping[str, Any]], baseline: str, target: float) -> str:
    rows = []
    for result in results:
        best, test, speed_up = result["best_validation"], result["test"], result["speed_up"]
        rows.append(
            [
                result["method"],
                str(len(result["runs"])),
                _range(best),
                _range(test) if test else "-",
                f"{result['seconds']['median']:.1f}",
                f"{result['work_units']['median']:.2f}",
                si(result["flops"]["median"]),
                *(f"{speed_up[key]:.1f}x" if speed_up[key] else "-" for key in QUANTITIES),
            ]
        )
    header = ["Method", "Runs", "Best validation", "Test", "Seconds", "Work", "FLOPs"]
    header += ["Time", "Work", "FLOPs"]
    return "\n".join(
        [
            "relative L2 errors, median (range over seeds); last columns: speed-up to "
            f"{target:.4g}, the best validation error of {baseline}",
            table(header, rows),
        ]
    )


def _range(spread: Mapping[str, float]) -> str:
    text = f"{spread['median']:.4g}"
    if spread["low"] < spread["high"]:
        text += f" ({spread['low']:.4g} to {spread['high']:.4g})"
    return text


COMMAND = Command(
    "compare",
    "Puts several runs into one table and one figure. Runs that differ in name and seed only are "
    "one method: its median and its spread are shown.",
    (
        "results/poisson results/direct",
        "results/poisson_seed0 results/poisson_seed1 results/direct --baseline direct",
        "results/poisson results/direct --figure comparison.pdf --json",
    ),
    add_arguments,
    execute,
)
