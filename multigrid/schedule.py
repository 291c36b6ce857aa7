"""The schedule: a plain list of stages, and the learning-rate curve within one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from multigrid.distributed import Processes
from multigrid.errors import UserError
from multigrid.tables import table

Cycle = Literal["half-v", "v", "w", "f", "single"]
Decay = Literal["cosine", "one-cycle"]


@dataclass(frozen=True)
class Stage:
    """Training on one level for a while.

    Attributes:
        index: Position in the schedule.
        level: Level of the ladder, 0 being the coarsest.
        epochs: Number of epochs at most.
        batch_size: Samples per step.
        learning_rate: Highest learning rate, of new weights.
        transferred_ratio: Learning rate of transferred weights over that of new ones.
        warmup: Fraction of the steps with a rising learning rate.
        accumulate: Number of microbatches in which each process takes its share of a batch.
        checkpoint_activations: Whether the backward pass recomputes activations instead of
            keeping them.
    """

    index: int
    level: int
    epochs: int
    batch_size: int
    learning_rate: float
    transferred_ratio: float
    warmup: float
    accumulate: int = 1
    checkpoint_activations: bool = False

    def part_size(self, processes: Processes) -> int:
        """Returns how many samples each process takes at once."""
        return math.ceil(processes.largest_share(self.batch_size) / self.accumulate)


def level_sequence(cycle: Cycle, num_levels: int) -> list[int]:
    """Returns the levels in the order in which a cycle visits them.

    ``half-v`` goes from coarse to fine, ``single`` trains the finest level only. ``v``, ``w`` and
    ``f`` start at the finest level and return to it (Balu et al., SC'21, arXiv:2104.14538): a
    V visits every level once on the way down and once on the way up; a W replaces the coarse
    part of a V by two of itself; an F goes down once and comes up in V cycles of growing height.
    """
    top = num_levels - 1
    if cycle == "single":
        return [top]
    if cycle == "half-v":
        return list(range(num_levels))
    down = {"v": _v, "w": _w, "f": _f}[cycle]
    return down(top)


def _v(top: int) -> list[int]:
    return [*range(top, 0, -1), *range(top + 1)]


def _w(top: int) -> list[int]:
    if top <= 1:
        return _v(top)
    inner = _w(top - 1)
    return [top, *inner, *inner[1:], top]


def _f(top: int) -> list[int]:
    if top <= 1:
        return _v(top)
    return [top, *_f(top - 1), *_v(top - 1)[1:], top]


def build_schedule(
    cycle: Cycle,
    epochs: Sequence[int],
    batch_size: Sequence[int],
    learning_rate: Sequence[float],
    transferred_ratio: Sequence[float],
    warmup: Sequence[float],
    accumulate: Sequence[int],
    checkpoint_activations: Sequence[bool],
) -> list[Stage]:
    """Returns the stages of a cycle; each argument has one value for every level.

    A level that is visited several times gets its number of epochs at each visit.
    """
    return [
        Stage(
            index=index,
            level=level,
            epochs=epochs[level],
            batch_size=batch_size[level],
            learning_rate=learning_rate[level],
            transferred_ratio=transferred_ratio[level],
            warmup=warmup[level],
            accumulate=accumulate[level],
            checkpoint_activations=checkpoint_activations[level],
        )
        for index, level in enumerate(level_sequence(cycle, len(epochs)))
    ]


def check_shares(stages: Sequence[Stage], processes: Processes) -> None:
    """Checks that the processes can share the batches of all stages.

    Raises:
        UserError: If there are too few samples for the processes, or for the parts of their shares.
    """
    for stage in stages:
        if stage.batch_size < processes.size:
            raise UserError(
                f"schedule.batch_size: {stage.batch_size} on level {stage.level} is less than "
                f"the number of processes that share it; it must be at least {processes.size}"
            )
        share = processes.largest_share(stage.batch_size)
        if stage.accumulate > share:
            raise UserError(
                f"parallel.accumulate: {stage.accumulate} parts on level {stage.level} are "
                f"more than the {share} samples that each of {processes.size} processes "
                f"takes of a batch"
            )


def spread_budget(budget: float, epoch_costs: Sequence[float], visits: Sequence[int]) -> list[int]:
    """Spreads a budget over levels: twice the share for the finest, equal shares for the others.

    What is left over of a share after whole epochs is spent on the finest level on which another
    epoch fits.

    Args:
        budget: Cost of all visits together at most, in any unit.
        epoch_costs: Cost of one epoch on each level, coarsest first, in the same unit.
        visits: How often the schedule visits each level; a level without a visit gets no epochs.

    Returns:
        Epochs of one visit to each level, at least one wherever there is a visit.

    Raises:
        UserError: If the budget is too small for that.
    """
    costs = [cost * count for cost, count in zip(epoch_costs, visits, strict=True)]
    spare = budget - sum(costs)
    if spare < 0:
        raise UserError(
            f"schedule.budget: {budget:g} is too little, as one epoch at each visit to a level "
            f"needs {sum(costs):.3g}"
        )
    visited = [level for level, cost in enumerate(costs) if cost]
    share = budget / (len(visited) + 1)
    epochs = [1 if cost else 0 for cost in costs]
    rounds = [(level, share * (1 + (level == visited[-1]))) for level in visited]
    rounds += [(level, budget) for level in reversed(visited)]
    for level, limit in rounds:
        more = int(max(0.0, min(limit - costs[level], spare)) / costs[level])
        epochs[level] += more
        spare -= more * costs[level]
    return epochs


def schedule_table(stages: Sequence[Stage], grids: Sequence[Any], work: Sequence[float]) -> str:
    """Returns the schedule as a table, with the work units of each stage."""
    rows = [
        [
            str(stage.index),
            str(stage.level),
            str(grids[stage.level]),
            str(stage.epochs),
            str(stage.batch_size),
            f"{stage.learning_rate:.1e}",
            f"{stage.transferred_ratio:g}",
            f"{units:.2f}",
        ]
        for stage, units in zip(stages, work, strict=True)
    ]
    header = ["Stage", "Level", "Grid", "Epochs", "Batch", "Rate", "Transferred", "Work units"]
    return table(header, rows)


def learning_rate_curve(
    decay: Decay, num_steps: int, warmup: float, final: float
) -> Callable[[int], float]:
    """Returns the learning rate, relative to its highest value, as a function of the step.

    A linear rise over the first ``warmup`` of the steps, then half a cosine down to ``final``
    (``cosine``); or a cosine rise over the first 30 %, then half a cosine down (``one-cycle``,
    Smith and Topin, arXiv:1708.07120).

    Args:
        decay: Shape of the curve.
        num_steps: Number of steps it stretches over.
        warmup: Fraction of the steps for the linear rise of ``cosine``.
        final: Value at the end.
    """
    rise = 0.3 if decay == "one-cycle" else warmup
    peak = max(1, round(rise * num_steps))

    def curve(step: int) -> float:
        if step < peak:
            part = (step + 1) / peak
            return part if decay == "cosine" else 0.5 * (1 - math.cos(math.pi * part))
        part = min(1.0, (step + 1 - peak) / max(1, num_steps - peak))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * part))

    return curve
