"""What the runs of a suite say: time and work to an error, errors at equal time, and a figure."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from multigrid.plots.curves import plot_comparison
from multigrid.records.history import Row

FACTORS = (1.0, 1.1, 2.0)
COSTS = ("seconds", "flops")


@dataclass(frozen=True)
class CostRecord:
    """What one run of a method has cost, epoch by epoch."""

    method: str
    seed: int
    rows: Sequence[Row]

    @property
    def best(self) -> float:
        """Lowest validation error on the finest grid."""
        return min(row.val_finest_rel_l2 for row in self.rows)

    def cost_to(self, error: float, quantity: str, finest_only: bool = False) -> float:
        """Returns the cost at which an error was first reached; infinite if it never was.

        Args:
            error: Validation error on the finest grid.
            quantity: ``seconds``, ``flops`` or ``work_units``.
            finest_only: Count only states of the finest level's network; otherwise predictions of
                coarser levels, prolonged to the finest grid, count as well.
        """
        finest = max(row.level for row in self.rows)
        for row in self.rows:
            if row.val_finest_rel_l2 <= error and (row.level == finest or not finest_only):
                return float(getattr(row, quantity))
        return math.inf

    def error_at(self, seconds: float) -> float:
        """Returns the lowest error within a training time."""
        errors = (row.val_finest_rel_l2 for row in self.rows if row.seconds <= seconds)
        return min(errors, default=math.inf)


@dataclass(frozen=True)
class SpeedUp:
    """Cost of direct training over that of the ladder, to the same error; medians over seeds.

    Attributes:
        factor: The error, over the best one of direct training.
        error: The error.
        seconds: Ratio of training times.
        flops: Ratio of floating-point operations.
        seconds_finest: Ratio of times if only the finest level's network counts.
        flops_finest: Ratio of operations likewise.
        num_reached: In how many of the pairs the ladder reached the error; where it did not, its
            ratios count as 0.
        num_seeds: Number of pairs.
    """

    factor: float
    error: float
    seconds: float
    flops: float
    seconds_finest: float
    flops_finest: float
    num_reached: int
    num_seeds: int


def speed_ups(ladders: Sequence[CostRecord], directs: Sequence[CostRecord]) -> list[SpeedUp]:
    """Compares runs of equal seed at direct training's best error and multiples of it."""
    by_seed = {run.seed: run for run in directs}
    pairs = [(run, by_seed[run.seed]) for run in ladders if run.seed in by_seed]
    return [_speed_up(factor, pairs) for factor in FACTORS]


def _speed_up(factor: float, pairs: Sequence[tuple[CostRecord, CostRecord]]) -> SpeedUp:
    def ratio(quantity: str, finest_only: bool = False) -> float:
        ratios = []
        for ladder, direct in pairs:
            error = factor * direct.best
            cost = ladder.cost_to(error, quantity, finest_only)
            ratios.append(direct.cost_to(error, quantity, finest_only) / cost if cost else math.inf)
        return statistics.median(ratios)

    return SpeedUp(
        factor=factor,
        error=statistics.median(factor * direct.best for _, direct in pairs),
        seconds=ratio("seconds"),
        flops=ratio("flops"),
        seconds_finest=ratio("seconds", finest_only=True),
        flops_finest=ratio("flops", finest_only=True),
        num_reached=sum(ladder.best <= factor * direct.best for ladder, direct in pairs),
        num_seeds=len(pairs),
    )


def plot_speed_up(
    by_label: Mapping[str, Sequence[CostRecord]], speed_up: SpeedUp | None, heading: str
) -> Figure:
    """Draws the lowest error so far of every method against time and operations.

    Where there is a speed-up, an arrow along its error marks the distance between the first
    method, the ladder, and the second, direct training.
    """
    histories = {
        label: [[row for row in run.rows if row.flops] for run in runs]
        for label, runs in by_label.items()
    }
    error = None if speed_up is None else speed_up.error
    figure = plot_comparison(histories, error, heading, COSTS)
    if speed_up is None:
        return figure
    ladders, directs = list(by_label.values())[:2]
    errors = {run.seed: speed_up.factor * run.best for run in directs}
    for axis, quantity in zip(figure.axes, COSTS, strict=True):
        ladder, direct = (
            statistics.median(run.cost_to(errors[run.seed], quantity) for run in runs)
            for runs in (ladders, directs)
        )
        if math.isfinite(ladder) and math.isfinite(direct):
            arrow = {"arrowstyle": "<->", "color": "black"}
            axis.annotate("", (ladder, error), (direct, error), arrowprops=arrow)
            place = (math.sqrt(ladder * direct), 1.1 * speed_up.error)
            ratio = f"{getattr(speed_up, quantity):.0f}x"
            axis.annotate(ratio, place, ha="center", fontsize=12)
    return figure
