"""``multigrid compare``: several runs in one table and one figure."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multigrid.cli.arguments import add_json, add_runs
from multigrid.cli.command import Command, print_json
from multigrid.errors import UserError, nearest
from multigrid.report.comparison import (
    QUANTITIES,
    Groups,
    best_error,
    differing_terms,
    gather,
    summarise,
)
from multigrid.report.record import RunRecord
from multigrid.tables import si, table


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
    target = best_error(groups[baseline])
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


def _baseline(groups: Groups, name: str | None) -> str:
    if name is None:
        return next(iter(groups))
    if name not in groups:
        raise UserError(
            f"--baseline: '{name}' is none of the methods {', '.join(groups)}"
            f"{nearest(name, groups)}"
        )
    return name


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
