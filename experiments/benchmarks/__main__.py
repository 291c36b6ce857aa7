"""``python -m experiments.benchmarks step``: the benchmark command."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from experiments.benchmarks.suites import SUITES
from multigrid.cli import command, go_on, start_again
from multigrid.config import load_config
from multigrid.errors import UserError
from multigrid.hardware import keep_large_buffers

MEASUREMENTS = ("step", "processes", "features", "memory")
UNCOMPILED = ("features", "memory")
WHERE = {
    "minutes": ("tables", "rollout_training"),
    "seeds": ("tables",),
    "experiment": MEASUREMENTS,
}
"""Options and what they have an effect on."""
EXPERIMENT = Path("experiments/poisson.yaml")
RECORDS = Path("results/benchmarks")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "suite",
        choices=[*MEASUREMENTS, "tables", "rollout_training", "poisson_to_darcy", *SUITES],
        help="step: rate of a training step against a matrix product, a plain loop and the finest "
        "grid, with larger batches on coarser grids, and compiled with compute.compile=true; "
        "processes: two processes of one thread against one process of two; features: epochs on "
        "features of frozen layers against epochs on fields; memory: peak of a training step with "
        "and without activation checkpointing, drawn; tables: published tables beside what trains "
        "here; rollout_training: ways of training for roll-outs with equal work; "
        "poisson_to_darcy: ways of finetuning side by side; otherwise methods side by side. "
        f"Records are in {RECORDS}/SUITE; an interrupted suite goes on where it stopped",
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
        help="minutes of training of each method of tables and rollout_training (default: 20)",
    )
    parser.add_argument(
        "--seeds", type=int, help="how often tables trains each method (default: once)"
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
        "step --experiment experiments/poisson.yaml model.width=64",
        "tables wave darcy --minutes 3",
    ),
    on_signal=_when_stopped,
)
def benchmark(options: argparse.Namespace) -> None:
    """Measures, in a way that anyone can rerun."""
    keep_large_buffers()
    name, overrides, folder = options.suite, options.overrides, RECORDS / options.suite
    for option, suites in WHERE.items():
        if getattr(options, option) is not None and name not in suites:
            raise UserError(f"--{option}: has no effect on '{name}', only on {', '.join(suites)}")
    minutes = 20.0 if options.minutes is None else options.minutes
    if name in MEASUREMENTS:
        config = load_config(options.experiment or EXPERIMENT, overrides)
        if config.compute.compile and name in UNCOMPILED:
            raise UserError(f"compute.compile: true has no effect on '{name}'; it must be false")
        text = import_module(f"experiments.benchmarks.{name}").measure(config)
    elif name == "tables":
        from experiments.benchmarks import tables

        text = tables.run(overrides, minutes, folder, 1 if options.seeds is None else options.seeds)
    elif name == "rollout_training":
        from experiments.benchmarks import rollout_training

        text = rollout_training.run(overrides, minutes, folder)
    elif overrides:
        raise UserError(
            f"the suite '{name}' has settings of its own, which cannot be replaced; that is for "
            f"{', '.join(MEASUREMENTS)}"
        )
    elif name == "poisson_to_darcy":
        from experiments.benchmarks.finetuning import compare

        text = compare(folder)
    else:
        from experiments.benchmarks.speedup import SuiteRun

        text = SuiteRun(SUITES[name], folder).run()
    print(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status, as :meth:`Command.main` does."""
    return benchmark.main(arguments, "python -m experiments.benchmarks")


if __name__ == "__main__":
    sys.exit(main())
