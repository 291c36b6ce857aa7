"""``python -m multigrid.benchmark step``: the benchmark command."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from multigrid import signals
from multigrid.allocator import keep_large_buffers
from multigrid.benchmark.suites import SUITES
from multigrid.config import load_config
from multigrid.errors import UserError

EXAMPLES = """examples:
  python -m multigrid.benchmark poisson_128
  python -m multigrid.benchmark step
  python -m multigrid.benchmark streaming
  python -m multigrid.benchmark step --experiment experiments/poisson.yaml model.width=64
"""


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m multigrid.benchmark",
        description="Measures, in a way that anyone can rerun.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "suite",
        choices=["step", "streaming", *SUITES],
        help="step: rate of a training step against a matrix product; streaming: training with "
        "samples from disk against samples in memory; otherwise methods side by side, written to "
        "results/benchmarks/SUITE; an interrupted suite goes on where it stopped",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings to replace (not for suites)"
    )
    parser.add_argument(
        "--experiment",
        type=Path,
        default=Path("experiments/poisson.yaml"),
        help="experiment file (not for suites)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 2 for a user's mistake, 75 on a signal."""
    options = build_parser().parse_intermixed_args(arguments)
    try:
        keep_large_buffers()
        with signals.watched():
            print(_measure(options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except signals.Interrupted as signal:
        print(f"stopped by {signal}; a suite goes on with the same command", file=sys.stderr)
        return signals.STATUS
    except KeyboardInterrupt:
        return 130
    return 0


def _measure(options: argparse.Namespace) -> str:
    if options.suite == "step":
        from multigrid.benchmark.step import measure_steps

        return measure_steps(load_config(options.experiment, options.overrides))
    if options.suite == "streaming":
        from multigrid.benchmark.streaming import measure_streaming

        return measure_streaming(load_config(options.experiment, options.overrides))
    return _compare(options.suite)


def _compare(name: str) -> str:
    from multigrid.benchmark.speedup import SuiteRun

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    return SuiteRun(SUITES[name], Path("results/benchmarks") / name).run()


if __name__ == "__main__":
    sys.exit(main())
