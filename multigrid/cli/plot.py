"""``multigrid plot``: draws the figures of runs again, from their result files, without torch."""

import argparse
from pathlib import Path

from multigrid.cli.arguments import add_runs
from multigrid.cli.command import Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_runs(parser)
    parser.add_argument(
        "--format",
        choices=("png", "pdf", "svg"),
        action="append",
        help="png (the default), pdf or svg; may be given several times",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where to write, by default into the run"
    )
    parser.add_argument("--no-report", action="store_true", help="do not write report.html again")


def execute(options: argparse.Namespace) -> None:
    """Draws the figures and says which files were written."""
    from multigrid.report import write_report

    for path in options.runs:
        folder = options.output
        if folder is not None and len(options.runs) > 1:
            folder = folder / path.resolve().name
        formats = options.format or ("png",)
        written = write_report(path, True, folder, formats, page=not options.no_report)
        print("\n".join(map(str, written)))


COMMAND = Command(
    "plot",
    "Draws convergence, ladder, predictions, roll-out and spectra of a run and its report again, "
    "from the result files alone; for an unfinished run, with what is there so far.",
    (
        "results/poisson",
        "results/poisson --format pdf --format svg --output figures",
        "results/poisson results/darcy --output figures --no-report",
    ),
    add_arguments,
    execute,
)
