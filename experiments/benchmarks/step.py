"""How fast training steps are: next to a matrix product, a plain loop and the finest grid's."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from experiments.benchmarks.plain import PlainUNet, plain_step
from multigrid.config import Config
from multigrid.hardware import PrecisionName
from multigrid.ladder.experiment import Experiment
from multigrid.tables import si, table
from multigrid.training.speed import compiled, seconds, training_step

NUM_ROUNDS = 9
MATRIX_SIZE = 4096
MIN_SECONDS = 0.2
"""How long steps are repeated for one measurement, as they follow one another in a training."""
FACTORS = (1, 2, 4, 8, 16)
"""How many times larger the batches of coarse grids are made."""

OURS, PLAIN, COMPILED = "ours", "plain", "compiled"


@dataclass
class LevelSteps:
    """The training steps of one level with one size of batch, and their times.

    Attributes:
        name: The grid of its features.
        batch_size: Samples in a step.
        flops: Floating-point operations of a step.
        steps: The steps by kind: this project's; a plain loop's, if the network is of the kind that
            it knows; and this project's with a compiled network, if that is wanted.
        times: Seconds of a step of each kind, by round.
    """

    name: str
    batch_size: int
    flops: float
    steps: dict[str, Callable[[], None]]
    times: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, experiment: Experiment, level: int, batch_size: int, alone: bool = False
    ) -> "LevelSteps":
        """Returns the steps of a level of an experiment; ``alone`` leaves out all but ours."""
        grid = experiment.family.input_grid(level)
        num_samples = experiment.config.samples()[level]
        shape = (batch_size, experiment.family.in_channels, *grid.shape)
        options = experiment.options
        network = experiment.family.build(level).to(experiment.device)
        steps = {OURS: training_step(network, shape, options.optimizer, experiment.precision)}
        if PlainUNet.matches(network) and not alone:
            steps[PLAIN] = plain_step(PlainUNet(network), shape)
        if options.compile and not alone:
            steps[OURS]()  # what is computed once is not to be traced
            forward = compiled(network, shape, experiment.precision)
            steps[COMPILED] = training_step(
                network, shape, options.optimizer, experiment.precision, forward
            )
        for step in steps.values():
            repeated(step)  # the first ones are slower
        flops = experiment.plan.epoch_flops[level] / num_samples * batch_size
        return cls(str(experiment.hierarchy.levels[level]), batch_size, flops, steps)

    def measure(self) -> None:
        """Takes the time of each step."""
        for kind, step in self.steps.items():
            self.times.setdefault(kind, []).append(repeated(step))

    def dearness(self, finest: "LevelSteps") -> float:
        """Returns the time per operation over that of the finest grid, median over the rounds."""
        pairs = zip(self.times[OURS], finest.times[OURS], strict=True)
        return statistics.median((t / self.flops) / (f / finest.flops) for t, f in pairs)

    def row(self, products: list[float], finest: "LevelSteps") -> list[str]:
        """Returns a row of the table: medians of the rounds, and of the ratios within each.

        Args:
            products: Operations a second of the matrix product, by round.
            finest: The steps on the finest grid.
        """
        ours = self.times[OURS]
        ratio = statistics.median(self.flops / t / p for t, p in zip(ours, products, strict=True))
        seconds_each = statistics.median(ours)
        return [
            self.name,
            str(self.batch_size),
            f"{seconds_each:.4f}",
            f"{self.batch_size / seconds_each:.4g}",
            si(self.flops / seconds_each),
            f"{ratio:.2f}",
            f"{self.dearness(finest):.2f}",
            self._times_ours(PLAIN),
            self._times_ours(COMPILED),
        ]

    def _times_ours(self, kind: str) -> str:
        """Returns the time of a step of another kind over that of ours, if there is one."""
        if kind not in self.times:
            return "-"
        pairs = zip(self.times[kind], self.times[OURS], strict=True)
        return f"{statistics.median(other / ours for other, ours in pairs):.2f}"


def measure(config: Config) -> str:
    """Times a training step of every level, a plain loop's and a matrix product, in turn.

    The step is forward, loss, backward and optimizer, without data and validation. The plain
    loop trains the same network on the same batch, see ``plain.py``. Steps on the coarser grids
    are also timed with batches that are larger than that of the finest one, up to as many
    operations a step: a second table.
    """
    experiment = Experiment(config)
    multiply = _matrix_product(experiment.device, experiment.precision)
    sizes = {stage.level: stage.batch_size for stage in experiment.plan.stages}
    levels = [LevelSteps.of(experiment, level, sizes[level]) for level in sorted(sizes)]
    larger = _larger_batches(experiment, sorted(sizes)[:-1], levels[-1])
    products = []
    for _ in range(NUM_ROUNDS):
        products.append(2 * MATRIX_SIZE**3 / repeated(multiply))
        for steps in (*levels, *larger):
            steps.measure()
    header = ["Grid", "Batch", "s/step", "Samples/s", "FLOP/s", "of product", "s/FLOP"]
    header += ["plain", "compiled"]
    rows = [level.row(products, levels[-1]) for level in levels]
    text = (
        f"{experiment.precision} on {experiment.device}, {torch.get_num_threads()} threads, "
        f"medians of {NUM_ROUNDS} rounds, matrix product {si(statistics.median(products))}FLOP/s\n"
        f"{table(header, rows)}\n"
        "of product: FLOP/s over those of the matrix product; s/FLOP: time per operation over that "
        f"on {levels[-1].name}; plain: time of a plain PyTorch loop (float32, contiguous, AdamW) "
        "with the same network and batch over ours; compiled: of ours with compute.compile=true"
    )
    return f"{text}\n\n{_dearness_table(larger, levels[-1])}" if larger else text


def _larger_batches(
    experiment: Experiment, levels: Sequence[int], finest: LevelSteps
) -> list[LevelSteps]:
    """Returns steps on coarser grids, up to the operations of a step on the finest one."""
    found = []
    for level in levels:
        for factor in FACTORS:
            steps = LevelSteps.of(experiment, level, factor * finest.batch_size, alone=True)
            if factor == 1 or steps.flops <= 1.1 * finest.flops:
                found.append(steps)
    return found


def _dearness_table(larger: Sequence[LevelSteps], finest: LevelSteps) -> str:
    """Returns the time per operation by grid and batch."""
    names = dict.fromkeys(steps.name for steps in larger)
    batches = sorted({steps.batch_size for steps in larger})
    cells = {(s.name, s.batch_size): f"{s.dearness(finest):.2f}" for s in larger}
    rows = [[name, *(cells.get((name, batch), "-") for batch in batches)] for name in names]
    return (
        f"time per operation over that on {finest.name} with batches of {finest.batch_size}, by "
        f"batch\n{table(['Grid', *map(str, batches)], rows)}"
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
