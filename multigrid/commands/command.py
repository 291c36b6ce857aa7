"""What all commands share: the parser's style, errors and exit statuses."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from multigrid.errors import UserError

SUCCESS, USER_ERROR, INTERRUPTED = 0, 2, 130


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: Its name behind ``multigrid``.
        description: What it does, in a sentence or two.
        examples: Arguments of some calls, shown by ``--help``.
        add_arguments: Adds the arguments to a parser.
        execute: Does the work; raises UserError for a user's mistake.
        interrupted: What to say on Ctrl-C.
    """

    name: str
    description: str
    examples: tuple[str, ...]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    execute: Callable[[argparse.Namespace], None]
    interrupted: str = "interrupted"

    def parser(self, program: str | None = None) -> argparse.ArgumentParser:
        """Returns the parser of the arguments.

        Args:
            program: How the command was called, by default ``multigrid <name>``.
        """
        program = program or f"multigrid {self.name}"
        lines = [f"  {program} {example}" for example in self.examples]
        parser = argparse.ArgumentParser(
            prog=program,
            description=self.description,
            epilog="\n".join(["examples:", *lines]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_arguments(parser)
        return parser

    def main(self, arguments: Sequence[str] | None = None, program: str | None = None) -> int:
        """Runs the command.

        Returns:
            The exit status: 0, 2 for a user's mistake, 130 on Ctrl-C.
        """
        options = self.parser(program).parse_intermixed_args(arguments)
        try:
            self.execute(options)
            sys.stdout.flush()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return USER_ERROR
        except KeyboardInterrupt:
            print(self.interrupted, file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:  # whoever reads the output, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SUCCESS


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that all commands have that answer with numbers."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def print_json(value: Any) -> None:
    """Prints plain containers as JSON."""
    print(json.dumps(value, indent=2))


def positive(text: str) -> int:
    """Reads a positive whole number."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no positive whole number")
    return int(text)
