"""What the network of a stage starts from: the best states of earlier stages."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from multigrid.config import Config
from multigrid.config.settings import TransferConfig
from multigrid.errors import UserError
from multigrid.models.growth import NetworkFamily, UNetFamily
from multigrid.models.transfer import (
    COPIED,
    IN_TARGET,
    TransferReport,
    check_report,
    load_strictly,
    matches,
    partition,
    rename,
    require_match,
    tensors_of,
    transfer_weights,
)
from multigrid.schedule import Stage
from multigrid.training.checkpoint import load_weights
from multigrid.training.finetuning import (
    Finetuning,
    check_finetuning,
    check_rules,
    plan_finetuning,
)

log = logging.getLogger(__name__)


class EarlierStages(Protocol):
    """What a run has done so far.

    Attributes:
        finished: A summary of each finished stage.
        loaded: Weights that the user wanted loaded, by the network's names.
        best: The best state of each level that has been trained.
    """

    finished: list[dict[str, Any]]
    loaded: Mapping[str, Tensor]
    best: dict[int, dict[str, Any]]

    def last_visit(self, level: int) -> dict[str, Any] | None:
        """Returns the summary of the latest stage on a level, if there is one."""


@dataclass(frozen=True)
class Start:
    """A network on entering a stage.

    Attributes:
        network: The network, filled.
        report: What was transferred into it, or None if nothing was.
        moments: State of the optimizer by parameter name.
        finetuning: How its tensors are trained.
        slow: Names of what learns at a lower rate beside new weights.
    """

    network: nn.Module
    report: TransferReport | None = None
    moments: dict[str, Any] = field(default_factory=dict)
    finetuning: Finetuning = field(default_factory=Finetuning)
    slow: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Returns what a stage that is resumed must know of its start."""
        report = None if self.report is None else self.report.to_json()
        return {"report": report, "slow": sorted(self.slow)}


def weights_to_load(config: Config) -> dict[str, Tensor]:
    """Reads the files that a configuration wants loaded; returns weights by the network's names.

    Raises:
        UserError: If one of them cannot be read, or a pattern matches nothing in it.
    """
    section = config.transfer
    loaded: dict[str, Tensor] = {}
    if config.checkpoints.load is not None:
        weights = load_weights(Path(config.checkpoints.load))
        new = rename(weights, section.rename, "transfer.rename")
        loaded = {new[name]: tensor for name, tensor in weights.items()}
    for index, entry in enumerate(section.transplant):
        weights = load_weights(Path(entry.load), f"transfer.transplant[{index}].load")
        for pattern in entry.patterns():
            require_match(pattern, weights, f"transfer.transplant[{index}].pattern")
        chosen = {k: t for k, t in weights.items() if matches(k, entry.patterns())}
        loaded |= chosen
    return loaded


class Initializer:
    """Builds the network of each stage and fills it.

    What it shares with the stage before comes from there; the rest comes from the level's
    latest checkpoint if a cycle has been here before, then from the weights that the user wants
    loaded, and is new otherwise.

    Args:
        family: Builds the networks.
        section: What is transferred, and how it is trained.
    """

    def __init__(self, family: NetworkFamily, section: TransferConfig) -> None:
        self.family = family
        self.section = section

    def check(self, stages: Sequence[Stage], loaded: Mapping[str, Tensor]) -> list[Finetuning]:
        """Goes through all stages by names and shapes alone.

        Args:
            stages: The stages.
            loaded: Weights to start from, by the network's names.

        Returns:
            How the tensors are trained in each stage.

        Raises:
            UserError: If something could not be transferred, a pattern matches nothing, nothing
                would be left to train, or something would unfreeze too late.
        """
        section = self.section
        if section.new_scales == "copy" and not isinstance(self.family, UNetFamily):
            raise UserError(
                "transfer.new_scales: 'copy' is for the networks of the section 'model'; it must "
                "be 'fresh'"
            )
        largest = max(stage.level for stage in stages)
        names = tensors_of(self.family.blueprint(largest))
        check_rules(section, names)
        for pattern in section.allow:
            require_match(pattern, names, "transfer.allow")
        plans: list[Finetuning] = []
        before: dict[str, Tensor] = {}
        seen: dict[int, dict[str, Tensor]] = {}
        for stage in stages:
            network = self.family.blueprint(stage.level)
            tensors = tensors_of(network)
            weights = {**loaded, **seen.get(stage.level, {}), **before}
            plan = self._fresh(network)
            if weights:
                report = partition(weights, tensors)
                check_report(report, section.mismatch, section.allow)
                plan = self._plan(stage, report, _slow(report, before or loaded))
                parameters = [name for name, _ in network.named_parameters()]
                where = f"the network of level {stage.level}"
                check_finetuning(plan, parameters, stage.epochs, where)
            before = seen[stage.level] = tensors
            plans.append(plan)
        return plans

    def start(self, earlier: EarlierStages, stage: Stage) -> Start:
        """Builds the network of a stage and fills it."""
        sources = [earlier.last_visit(stage.level), *earlier.finished[-1:]]
        if stage.source is not None:
            sources = [earlier.finished[stage.source]]
        network = self.family.build(stage.level)
        shapes = {name: tensor.shape for name, tensor in tensors_of(network).items()}
        weights = dict(earlier.loaded)
        latest = earlier.loaded
        moments: dict[str, Any] = {}
        for source in sources:
            if source is not None:
                payload = earlier.best[source["level"]]
                latest = payload["network"]
                weights |= latest
                state = payload["trainer"]["optimizer"]
                moments |= {k: state[k] for k in state if latest[k].shape == shapes.get(k)}
        if not weights:
            return Start(network, finetuning=self._fresh(network))
        section = self.section
        report = transfer_weights(weights, network, section.mismatch, section.allow)
        for warning in check_report(report, section.mismatch, section.allow):
            log.warning("%s", warning)
        self.family.prepare_new(network, report.keys(*COPIED), section.new_scales == "copy")
        slow = _slow(report, latest)
        plan = self._plan(stage, report, slow)
        return Start(network, report.frozen(plan.frozen()), moments, plan, slow)

    def resume(self, stage: Stage, checkpoint: Mapping[str, Any], path: Path) -> Start:
        """Builds the network of a stage that is resumed and fills it from its checkpoint alone.

        Args:
            stage: The stage.
            checkpoint: Holds the network, and what :meth:`Start.to_json` gave.
            path: Where it comes from, for the sentence of an error.

        Raises:
            UserError: If the checkpoint belongs to another network.
        """
        network = self.family.build(stage.level)
        load_strictly(checkpoint["network"], network, path)
        record = checkpoint["start"]
        if record["report"] is None:
            return Start(network, finetuning=self._fresh(network))
        report = TransferReport.from_json(record["report"])
        slow = frozenset(record["slow"])
        return Start(network, report, {}, self._plan(stage, report, slow), slow)

    def _fresh(self, network: nn.Module) -> Finetuning:
        return plan_finetuning(
            self.section, tuple(tensors_of(network)), self.family.group_of, (), (), 1.0
        )

    def _plan(self, stage: Stage, report: TransferReport, slow: Collection[str]) -> Finetuning:
        return plan_finetuning(
            self.section,
            report.keys(*IN_TARGET),
            self.family.group_of,
            set(report.keys(*COPIED)),
            slow,
            stage.transferred_ratio,
        )


def _slow(report: TransferReport, latest: Mapping[str, Tensor]) -> frozenset[str]:
    """Returns what learns at a lower rate: what has just been trained or was loaded.

    And that only beside something else.
    """
    slow = frozenset(name for name in report.keys(*COPIED) if name in latest)
    return frozenset() if slow == set(report.keys(*IN_TARGET)) else slow
