"""``multigrid compare``: several runs in one table and one figure."""

import argparse
import sys
from pathlib import Path

from multigrid.cli.arguments import add_json, add_runs
from multigrid.cli.command import Command, print_json
from multigrid.errors import UserError


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
    """Compares the runs, draws them and prints the table."""
    from multigrid.plots.style import FORMATS, save_figure
    from multigrid.report.comparison import compare

    if options.figure.suffix[1:] not in FORMATS:
        raise UserError(f"{options.figure}: the name must end in .{', .'.join(FORMATS)}")
    comparison = compare(options.runs, options.baseline)
    save_figure(comparison.figure(), options.figure)
    if options.json:
        print_json(comparison.to_json())
        return
    for note in comparison.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{comparison}\n\nfigure: {options.figure}")


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
