"""How much of the machine a training step uses: its rate over that of a large matrix product."""

import statistics
import time
from collections.abc import Callable

import torch

from multigrid.config import Config
from multigrid.data.samples import Samples
from multigrid.experiment import Experiment
from multigrid.hardware import PrecisionName, autocast
from multigrid.losses import build_loss
from multigrid.models.surrogate import FieldScaling, Surrogate
from multigrid.optimizers import NamedOptimizer
from multigrid.tables import si, table

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
            (flops / _seconds(step), 2 * MATRIX_SIZE**3 / _seconds(multiply))
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


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _matrix_product(device: torch.device, precision: PrecisionName) -> Callable[[], object]:
    dtype = getattr(torch, precision)
    a, b = (torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b


def _training_step(experiment: Experiment, level: int, batch_size: int) -> Callable[[], object]:
    grid = experiment.hierarchy.levels[level]
    family, device = experiment.family, experiment.device
    inputs = torch.randn(batch_size, family.in_channels, *grid.shape, device=device)
    outputs = torch.randn(batch_size, family.out_channels, *grid.shape, device=device)
    scaling = FieldScaling.identity(family.in_channels, family.out_channels)
    surrogate = Surrogate(family.build(level).to(device), scaling)
    optimizer = NamedOptimizer(surrogate.network, experiment.options.optimizer)
    optimizer.set_learning_rate(1e-4)
    loss = build_loss("rel_l2", grid, experiment.problem)
    batch = Samples(inputs, outputs, grid)

    def step() -> None:
        with autocast(device, experiment.precision):
            prediction = surrogate(inputs)
        optimizer.zero_grad()
        loss(prediction, batch).backward()
        optimizer.step()

    return step
