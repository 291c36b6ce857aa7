"""What the runs of a suite say: time and work to an error, errors at equal time."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from multigrid.records.history import Row

FACTORS = (1.0, 1.1, 2.0)


@dataclass(frozen=True)
class CostRecord:
    """What one run has cost, epoch by epoch.

    Attributes:
        method: Name of the method.
        seed: Seed of the run.
        rows: Its history.
    """

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
            if finest_only and row.level != finest:
                continue
            if row.val_finest_rel_l2 <= error:
                return float(getattr(row, quantity))
        return math.inf

    def error_at(self, seconds: float) -> float:
        """Returns the lowest error within a training time."""
        return min(
            (row.val_finest_rel_l2 for row in self.rows if row.seconds <= seconds), default=math.inf
        )


@dataclass(frozen=True)
class SpeedUp:
    """Cost of direct training over that of the ladder, to the same error.

    Attributes:
        factor: The error, over the best one of direct training.
        error: The error, median over seeds.
        seconds: Ratio of training times, median over seeds.
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
    def ratio(quantity: str, finest_only: bool) -> float:
        ratios = []
        for ladder, direct in pairs:
            error = factor * direct.best
            cost = ladder.cost_to(error, quantity, finest_only)
            ratios.append(direct.cost_to(error, quantity, finest_only) / cost if cost else math.inf)
        return statistics.median(ratios)

    return SpeedUp(
        factor=factor,
        error=statistics.median(factor * direct.best for _, direct in pairs),
        seconds=ratio("seconds", False),
        flops=ratio("flops", False),
        seconds_finest=ratio("seconds", True),
        flops_finest=ratio("flops", True),
        num_reached=sum(ladder.best <= factor * direct.best for ladder, direct in pairs),
        num_seeds=len(pairs),
    )
