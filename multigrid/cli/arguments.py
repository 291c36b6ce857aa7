"""Arguments shared by several commands."""

import argparse
from pathlib import Path


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """Adds an experiment file and settings that replace some of it."""
    parser.add_argument("experiment", type=Path, help="experiment file (YAML)")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that replace those of the file"
    )


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Adds the user's Python files that a run has used; see Command.main."""
    parser.add_argument(
        "--plugin",
        dest="plugins",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file or module that registers a PDE or another part that the run has used",
    )


def add_trained(parser: argparse.ArgumentParser) -> None:
    """Adds what was trained, and how to apply it."""
    add_plugins(parser)
    parser.add_argument("run", type=Path, help="folder of a run, or a file of a trained network")
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="samples at once (32)"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Adds the folders of one or several runs."""
    add_plugins(parser)
    parser.add_argument("runs", nargs="+", type=Path, metavar="run", help="folder of a run")


def add_reader(parser: argparse.ArgumentParser) -> None:
    """Adds what may have to be said about a data file."""
    parser.add_argument("--reader", default="auto", help="name of a reader; auto is the default")
    parser.add_argument("--input", nargs="+", metavar="NAME", help="names of the input arrays")
    parser.add_argument(
        "--output",
        nargs="+",
        metavar="NAME",
        help="names of the output arrays (those of the input for trajectories), or the second "
        "file of a .npy pair",
    )
    parser.add_argument("--ndim", type=int, choices=(1, 2, 3), help="number of space dimensions")
    parser.add_argument(
        "--axes",
        nargs="+",
        type=_axes,
        metavar="AXES",
        help="what the axes of arrays are, as in NTCXY, or u=NTXY mask=XY for each array",
    )
    parser.add_argument(
        "--parameters",
        nargs="+",
        metavar="NAME",
        help="scalars of a trajectory or file that become constant input channels",
    )
    parser.add_argument(
        "--reduced-resolution",
        type=positive,
        default=1,
        metavar="N",
        help="keep every N-th point along each axis",
    )
    parser.add_argument(
        "--fields", nargs="+", metavar="NAME", help="the time-dependent fields to take"
    )
    parser.add_argument(
        "--noncartesian", action="store_true", help="take other grids as if they were Cartesian"
    )


def _axes(text: str) -> tuple[str, str]:
    """Reads ``NTCXY`` or ``name=NTCXY``."""
    name, _, axes = text.rpartition("=")
    return name, axes


def given_reader_arguments(options: argparse.Namespace) -> list[str]:
    """Returns those of the flags of :func:`add_reader` that differ from the defaults."""
    parser = argparse.ArgumentParser()
    add_reader(parser)
    defaults = vars(parser.parse_args([]))
    given = [name for name, value in defaults.items() if getattr(options, name) != value]
    return [f"--{name.replace('_', '-')}" for name in given]


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds the flag of all commands that report numbers."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def positive(text: str) -> int:
    """Reads a positive whole number."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive whole number")
    return int(text)
