"""``multigrid generate``: makes the samples of an experiment, without training."""

import argparse
import time

from multigrid.cli.command import Command, add_experiment, add_json, go_on, print_json
from multigrid.config import load_config
from multigrid.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_experiment(parser)
    add_json(parser)


def execute(options: argparse.Namespace) -> None:
    """Generates what is missing and says where it is."""
    config = load_config(options.experiment, options.overrides)
    if config.files is not None:
        raise UserError(
            f"{options.experiment}: the samples come from files; there is nothing to generate"
        )
    from multigrid.data import SPLITS
    from multigrid.ladder.components import generated_source

    source = generated_source(config, config.pde(), config.labelled)
    store = source.store
    counts = source.wanted({split: getattr(config.data, split) for split in SPLITS})
    started = time.perf_counter()
    generated = source.prepare(counts)
    seconds = time.perf_counter() - started
    if options.json:
        print_json(
            {
                "file": str(store.path),
                "grid": list(store.grid.shape),
                "samples": counts,
                "generated": generated,
                "seconds": seconds,
            }
        )
    else:
        held = ", ".join(f"{count} {split}" for split, count in counts.items())
        print(f"{store.path}: {held} samples on {store.grid}; {generated} made in {seconds:.1f} s")


GENERATE = Command(
    "generate",
    "Generates the samples of an experiment, as the run would. Samples already there are kept; an "
    "interrupted generation continues where it stopped.",
    (
        "experiments/darcy.yaml",
        "experiments/darcy.yaml data.train=4096 data.folder=samples",
        "experiments/poisson.yaml --json",
    ),
    add_arguments,
    execute,
    on_signal=go_on,
)
