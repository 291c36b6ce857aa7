"""``python -m multigrid.data inspect FILE``: says what is in a data file."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from multigrid.data.inspect import inspect_file
from multigrid.data.readers import NAMES, ReaderOptions, open_fields
from multigrid.errors import UserError

EXAMPLES = """examples:
  python -m multigrid.data inspect 2D_DarcyFlow_beta1.0_Train.hdf5
  python -m multigrid.data inspect darcy_train_16.pt --json
  python -m multigrid.data inspect mine.h5 --input coefficient --output solution
"""


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m multigrid.data",
        description="Looks into data files.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser(
        "inspect",
        help="say what is in a file and print the sections of an experiment file for it",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inspect.add_argument("file", type=Path, help="data file")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.add_argument("--reader", default="auto", help=f"auto (the default), {', '.join(NAMES)}")
    inspect.add_argument("--input", help="name of the input array")
    inspect.add_argument(
        "--output", help="name of the output array, or of the second file of a .npy pair"
    )
    inspect.add_argument("--ndim", type=int, choices=(2, 3), help="number of space dimensions")
    inspect.add_argument(
        "--reduced-resolution",
        type=_positive,
        default=1,
        metavar="N",
        help="keep every N-th point along each axis",
    )
    inspect.add_argument(
        "--fields", nargs="+", metavar="NAME", help="the time-dependent fields to take"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 2 for a user's mistake, 130 on Ctrl-C."""
    given = build_parser().parse_args(arguments)
    options = ReaderOptions(
        given.input,
        given.output,
        given.ndim,
        given.reduced_resolution,
        tuple(given.fields) if given.fields else None,
    )
    try:
        file = open_fields(given.file, given.reader, options)
        report = inspect_file(file, progress=sys.stderr.isatty())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(report.to_json() if given.json else report.to_text())
    return 0


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no positive whole number")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
