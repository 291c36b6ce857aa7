"""``python -m experiments.benchmarks step``: the benchmark command."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.benchmarks.suites import SUITES
from multigrid.cli import command, go_on, start_again
from multigrid.config import Config, load_config
from multigrid.errors import UserError
from multigrid.hardware import keep_large_buffers

MEASUREMENTS = ("step", "processes", "streaming", "features", "memory")
UNCOMPILED = ("features", "memory")
EXPERIMENT = Path("experiments/poisson.yaml")
MEMORY = Path("results/benchmarks/memory")
TABLES = Path("results/benchmarks/tables")
ROLLOUTS = Path("results/benchmarks/rollout_training")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "suite",
        choices=[*MEASUREMENTS, "tables", "rollout_training", "poisson_to_darcy", *SUITES],
        help="step: rate of a training step against a matrix product, a plain loop and the finest "
        "grid, with larger batches on coarser grids, and compiled with compute.compile=true; "
        "processes: two processes of one thread against one process of two; streaming: training "
        "with samples from disk against samples in memory; features: epochs on features of "
        "frozen layers against epochs on fields; memory: peak of a training step with and without "
        f"activation checkpointing, drawn in {MEMORY}; tables: published tables beside what trains "
        f"here, in {TABLES}; "
        "rollout_training: ways of training for roll-outs with equal work, in "
        f"{ROLLOUTS}; poisson_to_darcy: ways of finetuning side by side; "
        "otherwise methods side by side, written to results/benchmarks/SUITE; an interrupted suite "
        "goes on where it stopped",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help=f"settings to replace ({', '.join(MEASUREMENTS)}, rollout_training), or cases "
        "and methods of tables (default: all)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=20.0,
        help="minutes of training of each method of tables and rollout_training (default: 20)",
    )
    parser.add_argument(
        "--experiment",
        type=Path,
        help=f"experiment file ({', '.join(MEASUREMENTS)} only; default: {EXPERIMENT})",
    )


def _when_stopped(call: str, options: argparse.Namespace) -> str:
    return (start_again if options.suite in MEASUREMENTS else go_on)(call, options)


@command(
    add_arguments,
    examples=(
        "poisson_128",
        "step",
        "streaming",
        "step --experiment experiments/poisson.yaml model.width=64",
        "tables wave darcy --minutes 3",
    ),
    on_signal=_when_stopped,
)
def benchmark(options: argparse.Namespace) -> None:
    """Measures, in a way that anyone can rerun."""
    keep_large_buffers()
    if options.suite in MEASUREMENTS:
        config = load_config(options.experiment or EXPERIMENT, options.overrides)
        print(_measure(options.suite, config))
        return
    if options.suite == "tables":
        from experiments.benchmarks.tables import run_tables

        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
        print(run_tables(options.overrides, options.minutes, TABLES))
        return
    if options.suite == "rollout_training":
        from experiments.benchmarks.rollout_training import compare_methods

        print(compare_methods(options.overrides, options.minutes, ROLLOUTS))
        return
    if options.overrides or options.experiment:
        raise UserError(
            f"the suite '{options.suite}' has settings of its own, which cannot be replaced; that "
            f"is for {', '.join(MEASUREMENTS)}"
        )
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    print(_compare(options.suite))


def _measure(name: str, config: Config) -> str:
    if config.compute.compile and name in UNCOMPILED:
        raise UserError(f"compute.compile: true has no effect on '{name}'; it must be false")
    if name == "processes":
        from experiments.benchmarks.processes import measure_processes

        return measure_processes(config)
    if name == "step":
        from experiments.benchmarks.step import measure_steps

        return measure_steps(config)
    if name == "streaming":
        from experiments.benchmarks.streaming import measure_streaming

        return measure_streaming(config)
    if name == "memory":
        from experiments.benchmarks.memory import measure_memory

        return measure_memory(config, MEMORY)
    from experiments.benchmarks.features import measure_features

    return measure_features(config)


def _compare(name: str) -> str:
    folder = Path("results/benchmarks") / name
    if name == "poisson_to_darcy":
        from experiments.benchmarks.finetuning import FinetuningComparison

        return FinetuningComparison(folder).run()
    from experiments.benchmarks.speedup import SuiteRun

    return SuiteRun(SUITES[name], folder).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status, as :meth:`Command.main` does."""
    return benchmark.main(arguments, "python -m experiments.benchmarks")


if __name__ == "__main__":
    sys.exit(main())
