"""The plan of an experiment: its stages, and what they cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from multigrid import schedule
from multigrid.config import Config
from multigrid.models.growth import NetworkFamily, UNetFamily
from multigrid.schedule import Choice, Outcome, Stage
from multigrid.training.losses import Unrolling


class Plan:
    """The stages of an experiment; the unit of costs is that of the budget, where there is one.

    Attributes:
        is_automatic: Whether stages are chosen one by one; growth must preserve the function then.
        stages: The visits to levels, without epochs where these are yet to be chosen.
    """

    def __init__(
        self, config: Config, family: NetworkFamily, unrolling: Unrolling | None = None
    ) -> None:
        assert config.schedule.cycle != "auto"  # which is settled
        self.cycle: schedule.Cycle = config.schedule.cycle
        self.config = config
        self.family = family
        self.unrolling = unrolling
        self.is_automatic = config.is_automatic and isinstance(family, UNetFamily)
        none_yet = [0] * len(config.levels)
        epochs = none_yet if config.schedule.epochs == "auto" else config.per_level("epochs")
        self.stages = self._stages(epochs)

    def chosen(self, epoch_costs: Sequence[float]) -> list[Stage]:
        """Returns the stages with the epochs that a budget allows, where it does not choose them.

        ``epoch_costs`` are those of an epoch on each level, empty without a budget.
        """
        if self.is_automatic or not epoch_costs:
            return self.stages
        sequence = schedule.level_sequence(self.cycle, len(epoch_costs))
        visits = [sequence.count(level) for level in range(len(epoch_costs))]
        return self._stages(schedule.spread_budget(self.config.budget.amount, epoch_costs, visits))

    def measured_costs(self, epoch_seconds: Callable[[Stage], float]) -> list[float]:
        """Returns what an epoch on each level costs in the unit of the budget, if there is one.

        Seconds come from timing some steps on each level, so they differ on another day.
        """
        if self.config.schedule.epochs != "auto":
            return []
        levels = range(len(self.config.levels))
        if self.config.budget.seconds is None:
            return [self.work_units(level, 1) for level in levels]
        visited = {stage.level: stage for stage in self.stages}
        times = {level: epoch_seconds(visited[level]) for level in levels if level in visited}
        return [times.get(level, 0.0) * self._unrolled(level) for level in levels]

    def extended(
        self,
        stages: Sequence[Stage],
        finished: Sequence[Mapping[str, Any]],
        epoch_costs: Sequence[float],
    ) -> list[Stage]:
        """Returns a schedule by measurement after its finished stages: with the next, if any.

        ``epoch_costs`` are what an epoch on each level was expected to cost.
        """
        budget, before = self.config.budget, list(stages[: len(finished)])
        if before and not before[-1].epochs:
            return before  # it was the last one
        outcomes = self._outcomes(finished)
        expected = sum(epoch_costs[stage["level"]] * stage["epochs"] for stage in finished)
        pace = sum(stage.cost for stage in outcomes) / expected if expected else 1.0
        costs = [pace * cost for cost in epoch_costs]  # seconds were estimated
        choice = schedule.choose(outcomes, budget.amount, costs, budget.error or 0.0)
        choice = choice or self._last_choice(outcomes)
        if choice is None:
            return before
        level, epochs, source, reason = choice
        stage = self._stages([epochs] * len(self.config.levels))[level]
        return [*before, replace(stage, index=len(finished), source=source, reason=reason)]

    def was_lost(self, finished: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the last finished stage is one that a schedule by measurement goes back from.

        One without epochs is not: it makes the best network so far the result.
        """
        if not self.is_automatic or not finished[-1]["epochs"]:
            return False
        outcomes = self._outcomes(finished)
        return schedule.last_kept(outcomes) != len(outcomes) - 1

    def _outcomes(self, finished: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        unit = "work_units" if self.config.budget.seconds is None else "seconds"
        return [Outcome(s["level"], s[unit], s["finest_rel_l2"]) for s in finished]

    def _last_choice(self, outcomes: Sequence[Outcome]) -> Choice | None:
        """Returns the stage without epochs that makes the best network so far the result.

        None if it is that already. Restricted networks are grown to the finest grid, which
        preserves what they compute.
        """
        kept = schedule.last_kept(outcomes)
        level = outcomes[kept].level
        if self.config.model.fields == "restricted":
            level = len(self.config.levels) - 1
        if kept == len(outcomes) - 1 and level == outcomes[kept].level:
            return None
        return Choice(level, 0, kept, "the best network so far is the result")

    def _stages(self, epochs: Sequence[int]) -> list[Stage]:
        """Returns the schedule, with so many epochs at each visit to a level."""
        names = ("batch_size", "learning_rate", "transferred_ratio", "warmup", "accumulate")
        settings = map(self.config.per_level, (*names, "checkpoint_activations"))
        return schedule.build_schedule(self.cycle, epochs, *settings)

    # the cost

    @cached_property
    def epoch_flops(self) -> list[float]:
        """Floating-point operations of one training epoch on each level."""
        counts = enumerate(self.config.samples())
        return [float(count * self.family.flops(level).training) for level, count in counts]

    def work_units(self, level: int, epochs: int) -> float:
        """Returns the work of some epochs on a level; one of single steps on the finest is 1."""
        return epochs * self._unrolled(level) * self.epoch_flops[level] / self.epoch_flops[-1]

    def _unrolled(self, level: int) -> float:
        """Returns what training roll-outs costs on a level over training single steps."""
        one = self.family.flops(level)
        return self.unrolling.mean_cost(one) / one.training if self.unrolling else 1.0

    def stage_costs(self, stages: Sequence[Stage], epoch_costs: Sequence[float]) -> list[float]:
        """Returns what each stage costs, and last what remains for stages by measurement."""
        if not self.is_automatic:
            return [self.work_units(stage.level, stage.epochs) for stage in stages]
        costs = [epoch_costs[stage.level] * stage.epochs for stage in stages]
        return [*costs, max(0.0, self.config.budget.amount - sum(costs))]
