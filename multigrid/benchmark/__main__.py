"""``python -m multigrid.benchmark step``: the benchmark command."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from multigrid.allocator import keep_large_buffers
from multigrid.benchmark.suites import SUITES
from multigrid.commands.command import Command, go_on
from multigrid.config import load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "suite",
        choices=["step", "streaming", "features", "poisson_to_darcy", *SUITES],
        help="step: rate of a training step against a matrix product; streaming: training with "
        "samples from disk against samples in memory; features: epochs on features of frozen "
        "layers against epochs on fields; poisson_to_darcy: fine-tuning regimes side by side; "
        "otherwise methods side by side, written to results/benchmarks/SUITE; an interrupted suite "
        "goes on where it stopped",
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


def execute(options: argparse.Namespace) -> None:
    """Measures and prints a table."""
    keep_large_buffers()
    if options.suite == "step":
        from multigrid.benchmark.step import measure_steps

        print(measure_steps(load_config(options.experiment, options.overrides)))
    elif options.suite == "streaming":
        from multigrid.benchmark.streaming import measure_streaming

        print(measure_streaming(load_config(options.experiment, options.overrides)))
    elif options.suite == "features":
        from multigrid.benchmark.features import measure_features

        print(measure_features(load_config(options.experiment, options.overrides)))
    elif options.suite == "poisson_to_darcy":
        from multigrid.benchmark.regimes import RegimeComparison

        _log_to_screen()
        print(RegimeComparison(Path("results/benchmarks") / options.suite).run())
    else:
        print(_compare(options.suite))


def _compare(name: str) -> str:
    from multigrid.benchmark.speedup import SuiteRun

    _log_to_screen()
    return SuiteRun(SUITES[name], Path("results/benchmarks") / name).run()


def _log_to_screen() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)


COMMAND = Command(
    "benchmark",
    "Measures, in a way that anyone can rerun.",
    (
        "poisson_128",
        "step",
        "streaming",
        "step --experiment experiments/poisson.yaml model.width=64",
    ),
    add_arguments,
    execute,
    on_signal=go_on,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status, as :meth:`Command.main` does."""
    return COMMAND.main(arguments, "python -m multigrid.benchmark")


if __name__ == "__main__":
    sys.exit(main())
