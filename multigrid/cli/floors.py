"""``multigrid floors``: what coarse grids cannot know, before anything is trained."""

import argparse
from dataclasses import asdict

from multigrid.cli.arguments import add_experiment, add_json
from multigrid.cli.command import Command, print_json
from multigrid.config import load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_experiment(parser)
    add_json(parser)


def execute(options: argparse.Namespace) -> None:
    """Prints the floors of the levels."""
    config = load_config(options.experiment, options.overrides)
    from multigrid.ladder.components import problem_and_source, settle
    from multigrid.ladder.floors import advice, floors, floors_table, some_samples

    problem, source = problem_and_source(config)
    config = settle(config, problem, source)
    samples = some_samples(config, problem, source)
    periodic = config.model.padding == "periodic"
    levels = config.hierarchy().levels
    measured = floors(samples, levels, config.model.prolongation, periodic)
    if options.json:
        rows = [{**asdict(floor), "grid": list(floor.grid.shape)} for floor in measured]
        print_json({"floors": rows, "advice": advice(measured)})
    else:
        print(f"{floors_table(measured)}\n\n{advice(measured)}")


COMMAND = Command(
    "floors",
    "Measures on a few samples what the grid of each level cannot know of the finest fields.",
    ("experiments/poisson.yaml", 'experiments/poisson.yaml "levels=[8,16]" schedule.epochs=1'),
    add_arguments,
    execute,
)
