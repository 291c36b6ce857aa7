"""What all commands share: the parser's style, errors and exit statuses."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from multigrid import signals
from multigrid.errors import UserError
from multigrid.files import to_json
from multigrid.registry import import_plugin

SUCCESS, USER_ERROR, STOPPED, INTERRUPTED = 0, 2, signals.STATUS, 130


def start_again(call: str, options: argparse.Namespace) -> str:
    """Says that a stopped command has left nothing half-written, and nothing to continue from."""
    return "nothing was left half-written; the same command starts over"


def go_on(call: str, options: argparse.Namespace) -> str:
    """Says that a stopped command can be continued."""
    return "the same command continues from here"


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: Its name after ``multigrid``.
        description: What it does, in a sentence or two.
        examples: Arguments of example calls, shown by ``--help``.
        add_arguments: Adds the arguments to a parser.
        execute: Does the work; raises UserError for a user's mistake.
        on_signal: Given how the command was called and its arguments, what to say of a signal that
            has stopped it.
    """

    name: str
    description: str
    examples: tuple[str, ...]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    execute: Callable[[argparse.Namespace], None]
    on_signal: Callable[[str, argparse.Namespace], str] = start_again

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
            The exit status: 0, 2 for a user's mistake, 75 if a signal has stopped it, 130 on a
            second Ctrl-C.
        """
        return until_the_reader_leaves(lambda: self._main(arguments, program))

    def _main(self, arguments: Sequence[str] | None, program: str | None) -> int:
        parser = self.parser(program)
        options = parser.parse_intermixed_args(arguments)
        try:
            with signals.watched():
                for plugin in getattr(options, "plugins", ()):
                    import_plugin(plugin)
                self.execute(options)
        except UserError as error:
            _say(f"error: {error}")
            return USER_ERROR
        except signals.Interrupted as signal:
            _say(f"stopped by {signal}; {self.on_signal(parser.prog, options)}")
            return STOPPED
        except KeyboardInterrupt:
            _say(f"interrupted; {self.on_signal(parser.prog, options)}")
            return INTERRUPTED
        return SUCCESS


def until_the_reader_leaves(call: Callable[[], int]) -> int:
    """Returns the exit status of a command; 0 if its reader, such as ``head``, has seen enough."""
    try:
        try:
            return call()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SUCCESS


def _say(sentence: str) -> None:
    """Prints to standard error, once for each machine where several processes do the same."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(sentence, file=sys.stderr)


def print_json(value: Any) -> None:
    """Prints plain containers as JSON."""
    print(to_json(value, indent=2))
