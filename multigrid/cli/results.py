"""``multigrid compare`` and ``multigrid plot``: what result files show, without torch."""

import argparse
import sys

from multigrid.cli.command import Command, add_json, add_plugins, file_path, print_json
from multigrid.errors import UserError

FORMATS = ("png", "pdf", "svg")


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Adds the folders of one or several runs."""
    add_plugins(parser)
    parser.add_argument("runs", nargs="+", type=file_path, metavar="run", help="folder of a run")


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``compare``."""
    add_runs(parser)
    parser.add_argument(
        "--baseline", metavar="NAME", help="what the speed-ups refer to, by default the first"
    )
    names = "figure to write: .png, .pdf or .svg; none by default"
    parser.add_argument("--figure", type=file_path, metavar="FILE", help=names)
    parser.add_argument("--overwrite", action="store_true", help="replace the figure's file")
    add_json(parser)


def compare(options: argparse.Namespace) -> None:
    """Compares the runs, prints the table and draws them if that is wanted."""
    from multigrid.plots.style import save_figure
    from multigrid.report.comparison import compare

    figure = options.figure
    if figure is not None and figure.suffix[1:] not in FORMATS:
        raise UserError(f"{figure}: the name must end in .{', .'.join(FORMATS)}")
    if figure is not None and figure.exists() and not options.overwrite:
        raise UserError(f"{figure}: exists already; use --overwrite to replace it")
    comparison = compare(options.runs, options.baseline)
    if figure is not None:
        save_figure(comparison.figure(), figure)
    if options.json:
        print_json(comparison.to_json())
        return
    for note in comparison.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{comparison}" + f"\n\nfigure: {figure}" * (figure is not None))


def add_figures(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``plot``."""
    add_runs(parser)
    several = "png (the default), pdf or svg; may be given several times"
    parser.add_argument("--format", choices=FORMATS, action="append", help=several)
    parser.add_argument(
        "--output", type=file_path, metavar="FOLDER", help="where to write, by default into the run"
    )


def plot(options: argparse.Namespace) -> None:
    """Draws the figures and the page, and says which files were written."""
    from multigrid.report import write_report

    for path in options.runs:
        folder = options.output
        if folder is not None and len(options.runs) > 1:
            folder = folder / path.resolve().name
        print(*write_report(path, True, folder, options.format or ("png",)), sep="\n")


COMPARE = Command(
    "compare",
    "Puts several runs into one table and, if that is wanted, one figure. Runs that differ in name "
    "and seed only are one method: its median and its spread are shown.",
    (
        "results/poisson results/direct",
        "results/poisson_seed0 results/poisson_seed1 results/direct --baseline direct",
        "results/poisson results/direct --figure comparison.pdf --json",
    ),
    add_comparison,
    compare,
)

PLOT = Command(
    "plot",
    "Draws convergence, ladder, predictions, roll-out and spectra of a run and its report again, "
    "from the result files alone; for an unfinished run, with what is there so far.",
    (
        "results/poisson",
        "results/poisson --format pdf --format svg --output figures",
        "results/poisson results/darcy --output figures",
    ),
    add_figures,
    plot,
)
