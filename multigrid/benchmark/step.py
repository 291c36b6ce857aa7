"""How much of the machine a training step uses: its rate over that of a large matrix product."""

import statistics
from collections.abc import Callable

import torch

from multigrid.config import Config
from multigrid.experiment import Experiment
from multigrid.hardware import PrecisionName
from multigrid.tables import si, table
from multigrid.timing import seconds, training_step

NUM_ROUNDS = 9
MATRIX_SIZE = 4096


def measure_steps(config: Config) -> str:
    """Times a training step of every level next to a matrix product, in turn, in one run.

    The step is forward, loss, backward and optimiser, without data and validation. Medians of
    the rounds, and of the ratios within each.

    Returns:
        A table.
    """
    experiment = Experiment(config)
    multiply = _matrix_product(experiment.device, experiment.precision)
    rows = []
    for stage in experiment.stages:
        grid = experiment.hierarchy.levels[stage.level]
        num_samples = config.samples()[stage.level]
        flops = experiment.epoch_flops[stage.level] / num_samples * stage.batch_size
        step = _training_step(experiment, stage.level, stage.batch_size)
        step(), multiply()
        rates = [
            (flops / seconds(step), 2 * MATRIX_SIZE**3 / seconds(multiply))
            for _ in range(NUM_ROUNDS)
        ]
        steps, products = ([rate[i] for rate in rates] for i in (0, 1))
        ratio = statistics.median(a / b for a, b in rates)
        rows.append(
            [
                str(grid),
                str(stage.batch_size),
                f"{flops / statistics.median(steps):.4f}",
                si(statistics.median(steps)),
                si(statistics.median(products)),
                f"{ratio:.2f}",
            ]
        )
    header = ["Grid", "Batch", "s/step", "Step FLOP/s", "Product FLOP/s", "Ratio"]
    return (
        f"{experiment.precision} on {experiment.device}, {torch.get_num_threads()} threads, "
        f"medians of {NUM_ROUNDS} rounds\n{table(header, rows)}"
    )


def _matrix_product(device: torch.device, precision: PrecisionName) -> Callable[[], object]:
    dtype = getattr(torch, precision)
    a, b = (torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b


def _training_step(experiment: Experiment, level: int, batch_size: int) -> Callable[[], object]:
    family = experiment.family
    shape = (batch_size, family.in_channels, *experiment.hierarchy.levels[level].shape)
    network = family.build(level).to(experiment.device)
    return training_step(network, shape, experiment.options.optimizer, experiment.precision)
