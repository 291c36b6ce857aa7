"""``multigrid floors`` and ``multigrid settings``: what to know before anything is trained."""

import argparse
from dataclasses import asdict

from multigrid.cli.command import Command, add_experiment, add_json, add_plugins, print_json
from multigrid.config import load_config
from multigrid.config.experiment import settings as all_settings
from multigrid.tables import table


def add_floors(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``floors``."""
    add_experiment(parser)
    add_json(parser)


def floors(options: argparse.Namespace) -> None:
    """Prints the floors of the levels."""
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


def add_section(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``settings``."""
    parser.add_argument(
        "section", nargs="?", help="a section, such as schedule or problem.darcy; all by default"
    )
    add_plugins(parser)
    add_json(parser)


def settings(options: argparse.Namespace) -> None:
    """Prints keys, defaults and what is allowed."""
    rows = all_settings(options.section)
    if options.json:
        print_json([row._asdict() for row in rows])
    else:
        print(table(("key", "default", "it must be"), rows))


FLOORS = Command(
    "floors",
    "Measures on a few samples what the grid of each level cannot know of the finest fields.",
    ("experiments/poisson.yaml", 'experiments/poisson.yaml "levels=[8,16]" schedule.epochs=1'),
    add_floors,
    floors,
)

SETTINGS = Command(
    "settings",
    "Lists the keys of an experiment file with their defaults and what is allowed.",
    ("schedule", "problem.darcy", "--json"),
    add_section,
    settings,
)
