"""``multigrid <command>``: finds the command and runs it."""

import sys
from collections.abc import Sequence
from importlib import import_module

from multigrid.cli import COMMANDS
from multigrid.cli.command import Command, until_the_reader_leaves
from multigrid.errors import nearest, printable

USAGE = "usage: multigrid <command> [arguments]"


def help_text() -> str:
    """Returns the list of commands."""
    lines = [f"  {name:<11}{summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            USAGE,
            "",
            "Trains PDE surrogates from a coarse grid to a fine one.",
            "",
            "commands:",
            *lines,
            "",
            "'multigrid <command> --help' shows arguments and examples.",
        ]
    )


def find(name: str) -> Command:
    """Returns a command by its name."""
    command = getattr(import_module(f"multigrid.{COMMANDS[name][0]}"), name.upper())
    assert isinstance(command, Command)
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    return until_the_reader_leaves(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(help_text())
        return 0 if given else 2
    if given[0] == "--version":
        from multigrid import __version__

        print(f"multigrid {__version__}")
        return 0
    name, *rest = given
    if name not in COMMANDS:
        allowed = ", ".join(COMMANDS)
        hint = nearest(name, COMMANDS)
        told = f"error: '{printable(name)}' is not a command; there are {allowed}{hint}"
        print(told, file=sys.stderr)
        return 2
    return find(name).main(rest)


if __name__ == "__main__":
    sys.exit(main())
