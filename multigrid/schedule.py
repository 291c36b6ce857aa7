"""The schedule: a plain list of stages, and the learning-rate curve within one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from multigrid.distributed import Processes
from multigrid.errors import UserError
from multigrid.tables import table

Cycle = Literal["half-v", "v", "w", "f", "single"]

FIRST_SHARE = 0.125
"""Share of a budget that the first stage of an automatic schedule gets."""
SLOW = 0.3
"""Power of the cost by which the error of a level must fall to stay on it without a trial."""


@dataclass(frozen=True)
class Stage:
    """Training on one level for a while, with the settings of ``schedule`` and ``parallel`` for it.

    Attributes:
        index: Position in the schedule.
        level: Level of the ladder, 0 being the coarsest.
        epochs: Number of epochs at most.
        learning_rate: Highest learning rate, of new weights.
        source: Number of the stage whose weights it starts from; by default the one before, with
            what earlier visits to the level have learned.
        reason: Why an automatic schedule chose it.
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
    source: int | None = None
    reason: str = ""

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
    return _from_the_top(cycle, top)


def _from_the_top(cycle: Cycle, top: int) -> list[int]:
    if cycle == "v" or top <= 1:
        return [*range(top, 0, -1), *range(top + 1)]
    inner = _from_the_top(cycle, top - 1)
    again = inner if cycle == "w" else _from_the_top("v", top - 1)
    return [top, *inner, *again[1:], top]


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
    rates = learning_rate, transferred_ratio, warmup
    settings = epochs, batch_size, *rates, accumulate, checkpoint_activations
    by_level: list[Any] = list(zip(*settings, strict=True))  # in the order of Stage
    sequence = level_sequence(cycle, len(epochs))
    return [Stage(index, level, *by_level[level]) for index, level in enumerate(sequence)]


def check_shares(stages: Sequence[Stage], processes: Processes) -> None:
    """Checks that the processes can share the batches of all stages."""
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
    epoch fits. ``epoch_costs`` are those of one epoch on each level, in the unit of the budget.
    Returns the epochs of one visit to each level, at least one wherever there is a visit.
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


@dataclass(frozen=True)
class Outcome:
    """What a finished stage of an automatic schedule has given.

    Attributes:
        level: Its level.
        cost: What it cost, in the unit of the budget.
        error: The lowest validation error on the finest grid so far in its network's life.
    """

    level: int
    cost: float
    error: float


class Choice(NamedTuple):
    """The next stage of an automatic schedule: where, how long, from which stage and why."""

    level: int
    epochs: int
    source: int | None
    reason: str


def choose(
    outcomes: Sequence[Outcome], budget: float, epoch_costs: Sequence[float], target: float = 0.0
) -> Choice | None:
    """Chooses the next stage by what the finished ones have given.

    The first stages double the work on the coarsest level. From then on the error is known as a
    power of the cost: while it falls faster than ``cost^-0.3``, training stays, with as much work
    again as was spent so far. Otherwise the next level is tried with a quarter of what is left. A
    stage that does not lower the error is a loss, and training goes back to the state before it. A
    gain need not be as large as the curve promises for staying: curves flatten, and a finer level
    can go on where a coarser one cannot. Each stage anneals its learning rate.

    Args:
        outcomes: The finished stages.
        budget: What all stages may cost together.
        epoch_costs: What an epoch on each level costs.
        target: Error at which to end.

    Returns:
        The stage, or None if the budget is spent or the target is reached.

    Raises:
        UserError: If the budget is less than one epoch on the coarsest level.
    """
    if not outcomes:
        if budget < epoch_costs[0]:
            raise UserError(
                f"schedule.budget: {budget:g} is too little, as one epoch on the coarsest level "
                f"needs {epoch_costs[0]:.3g}"
            )
        epochs = max(1, int(FIRST_SHARE * budget / epoch_costs[0]))
        return Choice(0, epochs, None, "the coarsest level first")
    kept, reason = _kept(outcomes)
    last, level = outcomes[kept[-1]], outcomes[kept[-1]].level
    spent = sum(outcome.cost for outcome in outcomes)
    left = budget - spent
    if last.error <= target or left < epoch_costs[level]:
        return None
    lost = outcomes[-1] if kept[-1] != len(outcomes) - 1 else None
    power = _power([outcomes[index] for index in kept])
    if lost is not None and lost.level == level:
        power = 0.0
    finer = level + 1
    tried = lost is not None and lost.level > level
    may_grow = finer < len(epoch_costs) and left >= 2 * epoch_costs[finer] and not tried
    if power is not None and power < SLOW and may_grow:
        epochs = max(1, round(left / 4 / epoch_costs[finer]))
        return Choice(finer, epochs, kept[-1], f"{reason}error ~ cost^-{power:.2f}: a trial")
    more = max(spent, epoch_costs[level])
    if left < 1.5 * more:
        more = left
    curve = "" if power is None else f"error ~ cost^-{power:.2f}: "
    return Choice(
        level, max(1, int(more / epoch_costs[level])), kept[-1], f"{reason}{curve}staying"
    )


def last_kept(outcomes: Sequence[Outcome]) -> int:
    """Returns the number of the stage that a schedule ends with: the last that was no loss."""
    return _kept(outcomes)[0][-1]


def _kept(outcomes: Sequence[Outcome]) -> tuple[list[int], str]:
    """Returns the numbers of the stages that led to the current state, and the last verdict."""
    kept, reason = [0], ""
    for index, outcome in enumerate(outcomes[1:], 1):
        before = outcomes[kept[-1]]
        pays = outcome.error < before.error
        what = "growth" if outcome.level > before.level else "staying"
        verdict = "pays" if pays else "does not pay"
        reason = f"{what} {verdict} ({before.error:.3g} to {outcome.error:.3g}); "
        if pays:
            kept.append(index)
    return kept, reason


def _power(kept: Sequence[Outcome]) -> float | None:
    """Returns the power of the total cost by which the last stage has lowered the error."""
    if len(kept) < 2:
        return None
    before = sum(stage.cost for stage in kept[:-1])
    fall = math.log(kept[-2].error / kept[-1].error)
    return max(0.0, fall / math.log(1 + kept[-1].cost / before))


def schedule_table(stages: Sequence[Stage], grids: Sequence[Any], work: Sequence[float]) -> str:
    """Returns the schedule as a table, with the work units of each stage."""
    header = ["Stage", "Level", "Grid", "Epochs", "Batch", "Rate", "Transferred", "Work units"]
    rows = []
    for s, units in zip(stages, work, strict=True):
        numbers = s.index, s.level, grids[s.level], s.epochs, s.batch_size
        rates = f"{s.learning_rate:.1e}", f"{s.transferred_ratio:g}"
        rows.append([*map(str, numbers), *rates, f"{units:.2f}"])
    return table(header, rows)


def learning_rate_curve(num_steps: int, warmup: float, final: float) -> Callable[[int], float]:
    """Returns the learning rate, relative to its highest value, as a function of the step.

    A linear rise over the first ``warmup`` of the steps, then half a cosine down to ``final``.
    """
    peak = max(1, round(warmup * num_steps))

    def curve(step: int) -> float:
        if step < peak:
            return (step + 1) / peak
        part = min(1.0, (step + 1 - peak) / max(1, num_steps - peak))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * part))

    return curve
