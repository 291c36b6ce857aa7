"""``multigrid evaluate``: measures a run on its samples or on any file."""

import argparse
from pathlib import Path
from typing import Any

from multigrid.cli.arguments import (
    add_json,
    add_reader,
    add_trained,
    given_reader_arguments,
    positive,
)
from multigrid.cli.command import Command, print_json
from multigrid.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_trained(parser)
    parser.add_argument(
        "file", type=Path, nargs="?", help="data file; by default the run's test samples"
    )
    parser.add_argument(
        "--split", choices=("train", "validation", "test"), help="of the run's samples (test)"
    )
    parser.add_argument("--samples", type=positive, metavar="N", help="only the first N samples")
    parser.add_argument(
        "--level", type=int, action="append", metavar="K", help="only this level; may be repeated"
    )
    parser.add_argument(
        "--worst", type=positive, default=5, metavar="N", help="number of worst samples shown (5)"
    )
    add_json(parser)
    add_reader(parser)


def execute(options: argparse.Namespace) -> None:
    """Measures every level and prints tables by level, by wavelength and of the worst samples."""
    if options.file is not None and options.split is not None:
        raise UserError("--split: is for the run's samples; all samples of a file are used")
    given = given_reader_arguments(options)
    if options.file is None and given:
        raise UserError(f"{given[0]}: says how to read a data file, but none is given")
    from multigrid.surrogate import load

    surrogate = load(options.run, options.device)
    settings: dict[str, Any] = {}
    if given:
        from multigrid.data.formats import ReaderOptions

        settings = {"reader": options.reader, "options": ReaderOptions.of(options)}
    evaluation = surrogate.evaluate(
        options.file,
        split=options.split or "test",
        samples=options.samples,
        levels=options.level or (),
        batch_size=options.batch_size,
        **settings,
    )
    if options.json:
        print_json({"run": str(options.run), **evaluation.to_json(options.worst)})
    else:
        print(evaluation.to_text(options.worst))


COMMAND = Command(
    "evaluate",
    "Measures a run on its test samples or on the samples of any file whose grid is one of "
    "the ladder's or finer: per level, per wavelength, and the worst samples.",
    (
        "results/poisson",
        "results/poisson --split validation --level 3 --json",
        "results/darcy 2D_DarcyFlow_beta1.0_Train.hdf5 --samples 100 --worst 10",
    ),
    add_arguments,
    execute,
)
