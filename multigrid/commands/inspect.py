"""``multigrid inspect``: says what is in a data file."""

import argparse
import sys
from pathlib import Path

from multigrid.commands.command import Command, add_json, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("file", type=Path, help="data file")
    add_json(parser)
    add_reader_arguments(parser)


def add_reader_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what a user may have to say about a data file."""
    parser.add_argument(
        "--reader",
        default="auto",
        help="auto (the default), store, well, pdebench, cno, hdf5, npz, npy or neuraloperator",
    )
    parser.add_argument("--input", help="name of the input array")
    parser.add_argument(
        "--output", help="name of the output array, or of the second file of a .npy pair"
    )
    parser.add_argument("--ndim", type=int, choices=(2, 3), help="number of space dimensions")
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


def execute(options: argparse.Namespace) -> None:
    """Reads the whole file and prints a report."""
    from multigrid.data.inspect import inspect_file
    from multigrid.data.readers import ReaderOptions, open_fields

    said = ReaderOptions(
        options.input,
        options.output,
        options.ndim,
        options.reduced_resolution,
        tuple(options.fields) if options.fields else None,
    )
    file = open_fields(options.file, options.reader, said)
    report = inspect_file(file, progress=sys.stderr.isatty())
    print(report.to_json() if options.json else report.to_text())


COMMAND = Command(
    "inspect",
    "Says what is in a data file and prints the sections of an experiment file for it.",
    (
        "2D_DarcyFlow_beta1.0_Train.hdf5",
        "darcy_train_16.pt --json",
        "mine.h5 --input coefficient --output solution",
    ),
    add_arguments,
    execute,
)
