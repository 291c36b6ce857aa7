"""``multigrid <command>``: finds the command and runs it."""

import sys
from collections.abc import Sequence
from importlib import import_module

from multigrid import __version__
from multigrid.cli import COMMANDS, Command, until_the_reader_leaves
from multigrid.errors import nearest, printable

HELP = """usage: multigrid <command> [arguments]

Trains PDE surrogates from a coarse grid to a fine one.

commands:
{commands}

'multigrid <command> --help' shows arguments and examples."""


def find(name: str) -> Command:
    """Returns a command by its name."""
    command = getattr(import_module(f"multigrid.{COMMANDS[name][0]}"), name)
    assert isinstance(command, Command)
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    return until_the_reader_leaves(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or [""]
    if name in ("", "-h", "--help"):
        summaries = (f"  {command:<11}{summary}" for command, (_, summary) in COMMANDS.items())
        print(HELP.format(commands="\n".join(summaries)))
        return 0 if name else 2
    if name == "--version":
        print(f"multigrid {__version__}")
        return 0
    if name not in COMMANDS:
        hint = f"there are {', '.join(COMMANDS)}{nearest(name, COMMANDS)}"
        print(f"error: '{printable(name)}' is not a command; {hint}", file=sys.stderr)
        return 2
    return find(name).main(rest)


if __name__ == "__main__":
    sys.exit(main())
