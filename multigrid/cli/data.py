"""``multigrid generate`` and ``multigrid inspect``: samples made, and data files looked into."""

import argparse
import re
import time
from pathlib import Path

from multigrid.cli.command import (
    Command,
    add_experiment,
    add_json,
    add_reader,
    file_path,
    go_on,
    print_json,
)
from multigrid.config import load_config
from multigrid.errors import UserError
from multigrid.files import write_text


def add_generation(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``generate``."""
    add_experiment(parser)
    add_json(parser)


def generate(options: argparse.Namespace) -> None:
    """Generates what is missing and says where it is."""
    config = load_config(options.experiment, options.overrides)
    if config.files is not None:
        raise UserError(
            f"{options.experiment}: the samples come from files; there is nothing to generate"
        )
    from multigrid.ladder.components import make_samples

    started = time.perf_counter()
    source, counts, generated = make_samples(config)
    store, seconds = source.store, time.perf_counter() - started
    if options.json:
        place = {"file": str(store.path), "grid": list(store.grid.shape)}
        print_json({**place, "samples": counts, "generated": generated, "seconds": seconds})
    else:
        held = ", ".join(f"{count} {split}" for split, count in counts.items())
        print(f"{store.path}: {held} samples on {store.grid}; {generated} made in {seconds:.1f} s")


def add_inspection(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``inspect``."""
    parser.add_argument("file", help="data file, folder, pattern or URL")
    parser.add_argument(
        "--write", type=file_path, metavar="FILE", help="write an experiment file to begin with"
    )
    add_json(parser)
    add_reader(parser)


def inspect(options: argparse.Namespace) -> None:
    """Reads the whole file and prints a report."""
    from multigrid.config.data import ReaderOptions
    from multigrid.data.inspect import inspect_path, to_text, yaml_sections

    if options.write is not None and options.write.exists():
        raise UserError(f"{options.write}: exists already; remove it or choose another name")
    report = inspect_path(options.file, ReaderOptions.of(vars(options)))
    if options.write is not None:
        suggestion = report["suggestion"]
        if not suggestion:
            raise UserError(f"{options.file}: too few samples for training, validation and test")
        sections = {"name": _name(Path(options.file)), **suggestion}
        write_text(options.write, yaml_sections(sections) + "\n")
    if options.json:
        print_json(report)
        return
    print(to_text(report))
    if options.write is not None:
        print(f"\nwritten to {options.write}; train with: multigrid run {options.write}")


def _name(path: Path) -> str:
    """Returns a name of a run for a file of data."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).lstrip("._-")[:100] or "mine"


GENERATE = Command(
    "generate",
    "Generates the samples of an experiment, as the run would. Samples already there are kept; an "
    "interrupted generation continues where it stopped.",
    (
        "experiments/darcy.yaml",
        "experiments/darcy.yaml data.train=4096 data.folder=samples",
        "experiments/poisson.yaml --json",
    ),
    add_generation,
    generate,
    on_signal=go_on,
)

INSPECT = Command(
    "inspect",
    "Says what is in a data file and prints the sections of an experiment file for it.",
    (
        "2D_DarcyFlow_beta1.0_Train.hdf5",
        "darcy_train_16.pt --json",
        "mine.h5 --input coefficient --output solution --write mine.yaml",
    ),
    add_inspection,
    inspect,
)
