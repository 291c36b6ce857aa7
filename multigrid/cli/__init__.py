"""The commands, and what they share: the parser's style, arguments, errors and exit statuses."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Any, NoReturn

from multigrid import signals
from multigrid.errors import UserError, printable
from multigrid.files import path_of, to_json
from multigrid.registry import import_plugin

# Module of each command, and its summary: read without importing any.
COMMANDS = {
    "run": ("run", "train a ladder of networks from an experiment file"),
    "sweep": ("cli.sweep", "train an experiment with all combinations of some settings and seeds"),
    "generate": ("cli.experiments", "make the samples of an experiment, without training"),
    "inspect": ("cli.experiments", "show what is in a data file, and how to train from it"),
    "floors": ("cli.experiments", "measure what the coarse grids of a ladder cannot know"),
    "evaluate": ("cli.runs", "measure a run on its test samples or on any file"),
    "predict": ("cli.runs", "apply a trained surrogate to a file"),
    "compare": ("cli.runs", "put several runs into one table and one figure"),
    "plot": ("cli.runs", "draw the figures of runs again, from their result files"),
    "doctor": ("cli.doctor", "check this machine by a short training on every device"),
    "settings": ("cli.experiments", "list the keys of an experiment file with defaults"),
}

SUCCESS, USER_ERROR, STOPPED, INTERRUPTED = 0, 2, signals.STATUS, 130


def start_again(call: str, options: argparse.Namespace) -> str:
    """Says that a stopped command has left nothing half-written, and nothing to continue from."""
    return "nothing was left half-written; the same command starts over"


def go_on(call: str, options: argparse.Namespace) -> str:
    """Says that a stopped command can be continued."""
    return "the same command continues from here"


class Parser(argparse.ArgumentParser):
    """A parser whose errors escape control characters, which arguments may have."""

    def error(self, message: str) -> NoReturn:
        """Prints how to call the command and what is wrong, and exits with status 2."""
        super().error(printable(message))


Argument = Callable[[Any], Any]
"""Adds an argument, or several, to a parser or a group of one."""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        execute: Does the work; raises UserError for a user's mistake. Its name is the command's
            after ``multigrid``, and its docstring what ``--help`` says.
        arguments: Its arguments.
        examples: Arguments of example calls, shown by ``--help``.
        on_signal: Given how the command was called and its arguments, what to say of a signal that
            has stopped it.
    """

    execute: Callable[[argparse.Namespace], None]
    arguments: Sequence[Argument]
    examples: Sequence[str]
    on_signal: Callable[[str, argparse.Namespace], str]

    def main(self, arguments: Sequence[str] | None = None, program: str | None = None) -> int:
        """Runs the command, called ``program``, by default ``multigrid <name>``.

        Returns:
            The exit status: 0, 2 for a user's mistake, 75 if a signal has stopped it, 130 on a
            second Ctrl-C.
        """
        program = program or f"multigrid {self.execute.__name__}"
        return until_the_reader_leaves(lambda: self._main(arguments, program))

    def _main(self, arguments: Sequence[str] | None, program: str) -> int:
        parser = Parser(
            prog=program,
            description=cleandoc(self.execute.__doc__ or ""),
            epilog="\n".join(["examples:", *(f"  {program} {line}" for line in self.examples)]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for add in self.arguments:
            add(parser)
        options = parser.parse_intermixed_args(arguments)
        try:
            with signals.watched():
                for plugin in getattr(options, "plugins", ()):
                    import_plugin(plugin)
                self.execute(options)
        except BrokenPipeError:
            raise
        except UserError as error:
            status, told = USER_ERROR, f"error: {error}"
        except OSError as error:  # a name that is too long, say
            name = printable(str(error.filename or ""))
            status, told = USER_ERROR, f"error: {name}: {error.strerror or error}"
        except signals.Interrupted as signal:
            status, told = STOPPED, f"stopped by {signal}; {self.on_signal(program, options)}"
        except KeyboardInterrupt:
            status, told = INTERRUPTED, f"interrupted; {self.on_signal(program, options)}"
        else:
            return SUCCESS
        if os.environ.get("LOCAL_RANK", "0") == "0":  # once a machine, whatever its processes
            print(told, file=sys.stderr)
        return status


def command(
    *arguments: Argument,
    examples: Sequence[str],
    on_signal: Callable[[str, argparse.Namespace], str] = start_again,
) -> Callable[[Callable[[argparse.Namespace], None]], Command]:
    """Returns a decorator that makes a command of a function, see :class:`Command`."""
    return lambda execute: Command(execute, arguments, examples, on_signal)


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


def print_json(value: Any) -> None:
    """Prints plain containers as JSON."""
    print(to_json(value, indent=2))


def file_path(text: str) -> Path:
    """Reads the name of a file or folder, which quotes may have kept from the shell."""
    try:
        return path_of(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def argument(*names: str, **form: Any) -> Argument:
    """Returns an argument, as argparse's ``add_argument`` describes it."""
    return lambda parser: parser.add_argument(*names, **form)


def flag(name: str, what: str) -> Argument:
    """Returns a flag, which is off unless it is given."""
    return argument(name, action="store_true", help=what)


def one_of(*flags: Argument) -> Argument:
    """Returns flags of which one at most may be given."""

    def add(parser: argparse.ArgumentParser) -> None:
        group = parser.add_mutually_exclusive_group()
        for each in flags:
            each(group)

    return add


JSON = flag("--json", "print JSON instead of tables")
EXPERIMENT = (
    argument("experiment", type=file_path, help="experiment file (YAML)"),
    argument(
        "overrides", nargs="*", metavar="key=value", help="settings that replace those of the file"
    ),
)
PLUGINS = argument(
    "--plugin",
    action="append",
    default=[],
    dest="plugins",
    metavar="FILE",
    help="a Python file or module that registers a PDE or another part that the run has used",
)


class _Axes(argparse.Action):
    """Reads the axes of all arrays, or those of each, as ``name=axes``, as a dictionary."""

    def __call__(self, parser: Any, options: Any, values: Any, flag: Any = None) -> None:
        by_array: dict[str, str] = {}
        name = ""
        for word in values:
            start, equals, letters = word.rpartition("=")
            name = start if equals else name
            by_array[name] = f"{by_array.get(name, '')} {letters}".strip()
        if "" in by_array and len(by_array) > 1:
            raise argparse.ArgumentError(self, "must be of all arrays, or NAME=AXES for each")
        setattr(options, self.dest, by_array.get("", by_array))


def add_reader(parser: argparse.ArgumentParser) -> None:
    """Adds what may have to be said about a data file."""
    from multigrid.config.data import ReaderOptions  # half a second that 'multigrid --help' saves
    from multigrid.config.section import allowed

    forms: dict[str, dict[str, Any]] = {
        "reader": {},
        "mask": {},
        "ndim": {"type": int, "choices": (1, 2, 3)},
        "axes": {"nargs": "+", "action": _Axes},
        "noncartesian": {"action": "store_true"},
        "reduced_resolution": {"type": positive},
    }
    for name, field in ReaderOptions.model_fields.items():
        form = forms.get(name, {"nargs": "+", "metavar": "NAME"})
        parser.add_argument(f"--{name.replace('_', '-')}", help=allowed(field), **form)


def positive(text: str) -> int:
    """Reads a positive whole number."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive whole number")
    return int(text)
