"""``multigrid settings``: every key of an experiment file, its default and what is allowed."""

import argparse

from multigrid.cli.arguments import add_json, add_plugins
from multigrid.cli.command import Command, print_json
from multigrid.config.reference import settings
from multigrid.tables import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "section", nargs="?", help="a section, such as schedule or problem.darcy; all by default"
    )
    add_plugins(parser)
    add_json(parser)


def execute(options: argparse.Namespace) -> None:
    """Prints the settings."""
    rows = settings(options.section)
    if options.json:
        print_json([row._asdict() for row in rows])
    else:
        print(table(("key", "default", "it must be"), rows))


COMMAND = Command(
    "settings",
    "Lists the keys of an experiment file with their defaults and what is allowed.",
    ("schedule", "problem.darcy", "--json"),
    add_arguments,
    execute,
)
