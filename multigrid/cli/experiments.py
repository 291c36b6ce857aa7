"""``generate``, ``inspect``, ``floors`` and ``settings``: what comes before a training."""

import argparse
import re
import time
from dataclasses import asdict
from pathlib import Path

from multigrid.cli import (
    EXPERIMENT,
    JSON,
    PLUGINS,
    add_reader,
    argument,
    command,
    file_path,
    go_on,
    print_json,
)
from multigrid.config import load_config
from multigrid.config.experiment import settings as all_settings
from multigrid.errors import UserError
from multigrid.files import write_text
from multigrid.tables import table


@command(
    *EXPERIMENT,
    JSON,
    examples=(
        "experiments/darcy.yaml",
        "experiments/darcy.yaml data.train=4096 data.folder=samples",
        "experiments/poisson.yaml --json",
    ),
    on_signal=go_on,
)
def generate(options: argparse.Namespace) -> None:
    """Generates the samples of an experiment, as the run would.

    Samples already there are kept; an interrupted generation continues where it stopped.
    """
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


@command(
    argument("file", help="data file, folder, pattern or URL"),
    argument(
        "--write", type=file_path, metavar="FILE", help="write an experiment file to begin with"
    ),
    JSON,
    add_reader,
    examples=(
        "2D_DarcyFlow_beta1.0_Train.hdf5",
        "darcy_train_16.pt --json",
        "mine.h5 --input coefficient --output solution --write mine.yaml",
    ),
)
def inspect(options: argparse.Namespace) -> None:
    """Says what is in a data file and prints the sections of an experiment file for it."""
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


@command(
    *EXPERIMENT,
    JSON,
    examples=(
        "experiments/poisson.yaml",
        'experiments/poisson.yaml "levels=[8,16]" schedule.epochs=1',
    ),
)
def floors(options: argparse.Namespace) -> None:
    """Measures on a few samples what the grid of each level cannot know of the finest fields."""
    config = load_config(options.experiment, options.overrides)
    from multigrid.ladder.components import problem_and_source, settle, some_samples
    from multigrid.ladder.prospects import advice, choose_cycle, floors_table, measure_floors

    _, source = problem_and_source(config)
    config, _ = settle(config, source)
    samples = some_samples(config, source)
    measured = measure_floors(config, samples)
    _, cycle = choose_cycle(measured, samples)
    if options.json:
        rows = [{**asdict(floor), "grid": list(floor.grid.shape)} for floor in measured]
        print_json({"floors": rows, "advice": advice(measured), "cycle": cycle})
    else:
        print(f"{floors_table(measured)}\n\n{advice(measured)}\nschedule.cycle auto: {cycle}")


@command(
    argument(
        "section", nargs="?", help="a section, such as schedule or problem.darcy; all by default"
    ),
    PLUGINS,
    JSON,
    examples=("schedule", "problem.darcy", "--json"),
)
def settings(options: argparse.Namespace) -> None:
    """Lists the keys of an experiment file with their defaults and what is allowed."""
    rows = all_settings(options.section)
    if options.json:
        print_json([row._asdict() for row in rows])
    else:
        print(table(("key", "default", "it must be"), rows))
