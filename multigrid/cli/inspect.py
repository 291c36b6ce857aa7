"""``multigrid inspect``: says what is in a data file."""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multigrid.cli.command import Command, add_json, add_reader
from multigrid.errors import UserError
from multigrid.files import to_json, write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("file", type=Path, help="data file, folder or pattern")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write an experiment file to begin with"
    )
    add_json(parser)
    add_reader(parser)


def execute(options: argparse.Namespace) -> None:
    """Reads the whole file and prints a report."""
    from multigrid.data.formats import ReaderOptions
    from multigrid.data.inspect import inspect_path, to_text, yaml_sections

    if options.write is not None and options.write.exists():
        raise UserError(f"{options.write}: exists already; remove it or choose another name")
    reading, progress = ReaderOptions.of(options), sys.stderr.isatty()
    report = inspect_path(options.file, options.reader, reading, progress)
    if options.write is not None:
        suggestion = report["suggestion"]
        if not suggestion:
            raise UserError(f"{options.file}: too few samples for training, validation and test")
        more = _name_and_schedule(options.file, suggestion)
        schedule = {**more["schedule"], **suggestion.get("schedule", {})}
        sections = {**more, **suggestion, "schedule": schedule}
        write_text(options.write, yaml_sections(sections) + "\n")
    print(to_json(report, indent=2) if options.json else to_text(report))
    if options.write is not None and not options.json:
        print(f"\nwritten to {options.write}; train with: multigrid run {options.write}")


def _name_and_schedule(path: Path, suggestion: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the sections that a file of data says nothing of: most epochs on coarse grids."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).lstrip("._-")[:100] or "mine"
    below = range(len(suggestion["levels"]) - 1, -1, -1)
    schedule = {
        "epochs": [min(40, 4 * 3**k) for k in below],
        "learning_rate": [1e-3 * 2**k for k in below],
    }
    return {"name": name, "schedule": schedule}


INSPECT = Command(
    "inspect",
    "Says what is in a data file and prints the sections of an experiment file for it.",
    (
        "2D_DarcyFlow_beta1.0_Train.hdf5",
        "darcy_train_16.pt --json",
        "mine.h5 --input coefficient --output solution --write mine.yaml",
    ),
    add_arguments,
    execute,
)
