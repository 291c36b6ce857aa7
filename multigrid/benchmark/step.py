"""How fast training steps are: next to a matrix product, a plain loop and the finest grid's."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from multigrid.benchmark.plain import PlainUNet, plain_step
from multigrid.config import Config
from multigrid.experiment import Experiment
from multigrid.hardware import PrecisionName
from multigrid.tables import si, table
from multigrid.timing import seconds, training_step

NUM_ROUNDS = 9
MATRIX_SIZE = 4096
MIN_SECONDS = 0.2
"""How long steps are repeated for one measurement, as they follow one another in a training."""


@dataclass
class LevelSteps:
    """The training steps of one level and their times.

    Attributes:
        name: The grid.
        batch_size: Samples in a step.
        flops: Floating-point operations of a step.
        ours: A step of this project.
        plain: One of the plain loop, if the network is of the kind that it knows.
        times: Seconds of a step of ours, by round.
        plain_times: The same of the plain loop.
    """

    name: str
    batch_size: int
    flops: float
    ours: Callable[[], None]
    plain: Callable[[], None] | None
    times: list[float] = field(default_factory=list)
    plain_times: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, experiment: Experiment, level: int, batch_size: int) -> "LevelSteps":
        """Returns the steps of a level of an experiment."""
        grid = experiment.hierarchy.levels[level]
        num_samples = experiment.config.samples()[level]
        shape = (batch_size, experiment.family.in_channels, *grid.shape)
        network = experiment.family.build(level).to(experiment.device)
        plain = None
        if PlainUNet.matches(network):
            plain = plain_step(PlainUNet(network), shape)
        return cls(
            str(grid),
            batch_size,
            experiment.epoch_flops[level] / num_samples * batch_size,
            training_step(network, shape, experiment.options.optimizer, experiment.precision),
            plain,
        )

    def measure(self) -> None:
        """Takes the time of both steps."""
        self.times.append(repeated(self.ours))
        if self.plain is not None:
            self.plain_times.append(repeated(self.plain))

    def row(self, products: list[float], finest: "LevelSteps") -> list[str]:
        """Returns a row of the table: medians of the rounds, and of the ratios within each.

        Args:
            products: Operations a second of the matrix product, by round.
            finest: The steps on the finest grid.
        """
        ratio = statistics.median(
            self.flops / t / p for t, p in zip(self.times, products, strict=True)
        )
        cost, dearest = self.flops, finest.flops
        dearness = statistics.median(
            (t / cost) / (f / dearest) for t, f in zip(self.times, finest.times, strict=True)
        )
        faster = "-"
        if self.plain_times:
            pairs = zip(self.plain_times, self.times, strict=True)
            faster = f"{statistics.median(plain / ours for plain, ours in pairs):.2f}"
        seconds_each = statistics.median(self.times)
        return [
            self.name,
            str(self.batch_size),
            f"{seconds_each:.4f}",
            f"{self.batch_size / seconds_each:.4g}",
            si(self.flops / seconds_each),
            f"{ratio:.2f}",
            f"{dearness:.2f}",
            faster,
        ]


def measure_steps(config: Config) -> str:
    """Times a training step of every level, a plain loop's and a matrix product, in turn.

    The step is forward, loss, backward and optimiser, without data and validation. The plain
    loop trains the same network on the same batch, see :mod:`multigrid.benchmark.plain`.

    Returns:
        A table.
    """
    experiment = Experiment(config)
    multiply = _matrix_product(experiment.device, experiment.precision)
    sizes = {stage.level: stage.batch_size for stage in experiment.stages}
    levels = [LevelSteps.of(experiment, level, sizes[level]) for level in sorted(sizes)]
    products = []
    for number in range(1 + NUM_ROUNDS):
        rate = 2 * MATRIX_SIZE**3 / repeated(multiply)
        for level in levels:
            level.measure()
        if number:
            products.append(rate)
    for level in levels:
        del level.times[:1], level.plain_times[:1]
    header = ["Grid", "Batch", "s/step", "Samples/s", "FLOP/s", "of product", "s/FLOP", "of plain"]
    rows = [level.row(products, levels[-1]) for level in levels]
    return (
        f"{experiment.precision} on {experiment.device}, {torch.get_num_threads()} threads, "
        f"medians of {NUM_ROUNDS} rounds, matrix product {si(statistics.median(products))}FLOP/s\n"
        f"{table(header, rows)}\n"
        "of product: FLOP/s over those of the matrix product; s/FLOP: time per operation over that "
        f"on {levels[-1].name}; of plain: samples/s over those of a plain PyTorch loop (float32, "
        "contiguous, AdamW) with the same network and batch"
    )


def repeated(call: Callable[[], object]) -> float:
    """Returns the time of a call among others like it."""
    first = seconds(call)
    count = math.ceil(MIN_SECONDS / first) - 1
    if count < 1:
        return first
    return seconds(lambda: [call() for _ in range(count)]) / count


def _matrix_product(device: torch.device, precision: PrecisionName) -> Callable[[], object]:
    dtype = getattr(torch, precision)
    a, b = (torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b
