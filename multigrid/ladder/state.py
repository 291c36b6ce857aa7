"""Where a run is: what its checkpoints hold of it, beside the network under way."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor

from multigrid.ladder.experiment import Experiment
from multigrid.ladder.initialization import weights_to_load
from multigrid.ladder.plan import Plan
from multigrid.models.transfer import TransferReport
from multigrid.records.history import Row
from multigrid.schedule import Stage
from multigrid.training.finetuning import require_features


@dataclass
class RunState:
    """Where a run is.

    Attributes:
        stages: The schedule; one by measurement grows while it is trained.
        epoch_costs: What an epoch on each level costs in the unit of the budget, if there is one.
        loaded: Weights to start from, by the network's names.
        warnings: Sentences about these, in the run that has read their files.
        rows: One row of the metrics for each epoch so far.
        finished: One summary for each finished stage.
        unfinished: The checkpoint of the next stage, where a resumed run goes on within it.
        best: Best state of the latest finished stage on a level, as far as stages to come need it
            and of the last one in any case. A stage that was lost counts only where there is none.
        transfers: The latest transfer report of each level, as in its ``transfer.json``.
        slow: Names of what learns at a lower rate in the stage under way.
        saving_seconds: Time spent on saving checkpoints.
    """

    stages: list[Stage]
    epoch_costs: list[float]
    loaded: Mapping[str, Tensor]
    warnings: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    finished: list[dict[str, Any]] = field(default_factory=list)
    unfinished: Mapping[str, Any] | None = None
    best: dict[int, dict[str, Any]] = field(default_factory=dict)
    transfers: dict[int, dict[str, Any]] = field(default_factory=dict)
    slow: frozenset[str] = frozenset()
    saving_seconds: float = 0.0

    def remaining(self, experiment: Experiment) -> Iterator[Stage]:
        """Yields the unfinished stages; one by measurement is chosen when its turn comes."""
        plan, from_first = experiment.plan, experiment.processes.from_first
        while True:
            if plan.is_automatic and self.unfinished is None:
                self.stages = from_first(
                    lambda: plan.extended(self.stages, self.finished, self.epoch_costs)
                )
            if len(self.finished) == len(self.stages):
                return
            yield self.stages[len(self.finished)]

    def has_visited(self, level: int) -> bool:
        """Whether a stage on a level is finished."""
        return any(done["level"] == level for done in self.finished)

    def sources(self, stage: Stage) -> list[dict[str, Any]]:
        """Returns the best states that a stage starts from; the latest stage's counts most."""
        visited = [done["level"] for done in self.finished]
        levels = [*({stage.level} & {*visited}), *visited[-1:]]
        if stage.source is not None:
            levels = [visited[stage.source]]
        return [self.best[level] for level in levels]

    def report(self, level: int) -> TransferReport:
        """Returns the latest transfer report of a level."""
        return TransferReport.from_json(self.transfers[level])

    def finish(self, summary: dict[str, Any], best: dict[str, Any], plan: Plan) -> None:
        """Adds the summary of a stage to those finished, and keeps its best state."""
        self.finished.append(summary)
        later = self._later_levels(summary["stage"], plan)
        self.best = {level: state for level, state in self.best.items() if level in later}
        self.keep(summary["level"], best, plan)

    def keep(self, level: int, best: dict[str, Any], plan: Plan) -> None:
        """Keeps the best state of the last finished stage, unless that was lost."""
        if level not in self.best or not plan.was_lost(self.finished):
            self.best[level] = best

    def checkpoint(self, stage: Stage, plan: Plan) -> dict[str, Any]:
        """Returns what a checkpoint in a stage holds of the state, as plain containers."""
        later = self._later_levels(stage.index, plan)
        earlier = {level: state for level, state in self.best.items() if level in later}
        is_over = stage.index < len(self.finished)
        if not plan.is_automatic or (is_over and not plan.was_lost(self.finished)):
            earlier.pop(stage.level, None)  # not needed, or the same as the checkpoint's "best"
        return {
            "stages": [asdict(stage) for stage in self.stages],
            "epoch_costs": self.epoch_costs,
            "rows": [vars(row) for row in self.rows],
            "finished": self.finished,
            "loaded": self.loaded if later else {},
            "earlier_best": earlier,
            "saving_seconds": self.saving_seconds,
            "transfers": self.transfers,
            "start": {"slow": sorted(self.slow)},
        }

    def _later_levels(self, index: int, plan: Plan) -> Collection[int]:
        """Returns the levels of the stages after one, as far as they are known."""
        if plan.is_automatic:
            return {stage.level for stage in plan.stages}
        return {stage.level for stage in self.stages[index + 1 :]}


def begin(experiment: Experiment) -> RunState:
    """Returns the state of a new run: chooses its stages and reads the weights to start from.

    Raises:
        UserError: If these cannot be used, or how tensors are trained does not suit the stages.
    """
    plan, from_first = experiment.plan, experiment.processes.from_first
    epoch_costs = from_first(lambda: plan.measured_costs(experiment.epoch_seconds))
    stages = plan.chosen(epoch_costs)
    loaded, warnings = from_first(lambda: weights_to_load(experiment.config))
    checked = experiment.initializer.check(stages, loaded, plan.is_automatic)
    if experiment.config.transfer.featurize:
        blueprint = experiment.family.blueprint
        require_features((blueprint(stage.level), how.always_frozen) for stage, how in checked)
    return RunState(stages, epoch_costs, loaded, warnings)


def resumed(checkpoint: Mapping[str, Any], experiment: Experiment) -> RunState:
    """Returns the state of a run where a checkpoint of it was taken."""
    # what saves memory may be another than then
    settings = "accumulate", "checkpoint_activations"
    parts, recomputes = map(experiment.config.per_level, settings)
    stages = [
        replace(s, accumulate=parts[s.level], checkpoint_activations=recomputes[s.level])
        for s in (Stage(**saved) for saved in checkpoint["stages"])
    ]
    state = RunState(
        stages,
        checkpoint["epoch_costs"],
        checkpoint["loaded"],
        rows=[Row(**row) for row in checkpoint["rows"]],
        finished=checkpoint["finished"],
        best=dict(checkpoint["earlier_best"]),
        transfers=checkpoint["transfers"],
        slow=frozenset(checkpoint["start"]["slow"]),
        saving_seconds=checkpoint["saving_seconds"],
    )
    if is_finished(checkpoint):
        state.keep(checkpoint["level"], checkpoint["best"], experiment.plan)
    else:
        state.unfinished = checkpoint
    return state


def is_finished(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was taken at the end of its stage."""
    return bool(checkpoint["stage"] < len(checkpoint["finished"]))
