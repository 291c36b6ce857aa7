"""What the network of a stage starts from: the best states of earlier stages."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from multigrid.config import Config
from multigrid.ladder.ledger import Ledger
from multigrid.models.name_patterns import matches, rename, require_match
from multigrid.models.protocol import NetworkFamily
from multigrid.models.transfer import (
    MismatchPolicy,
    check_report,
    load_strictly,
    partition,
    transfer_weights,
)
from multigrid.models.transfer_report import COPIED, IN_TARGET, Status, TransferReport
from multigrid.schedule import Stage
from multigrid.training.finetuning import (
    Anatomy,
    Regime,
    RegimeSettings,
    Rule,
    check_regime,
    check_rules,
    plan_regime,
)
from multigrid.training.weight_files import load_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """A network on entering a stage.

    Attributes:
        network: The network, filled.
        report: What was transferred into it, or None if nothing was.
        moments: State of the optimiser by parameter name.
        regime: How its tensors are trained.
        slow: Names of what learns at a lower rate beside new weights.
    """

    network: nn.Module
    report: TransferReport | None = None
    moments: dict[str, Any] = field(default_factory=dict)
    regime: Regime = field(default_factory=Regime)
    slow: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Returns what a stage that is resumed must know of its start."""
        report = None if self.report is None else self.report.to_json()
        return {"report": report, "slow": sorted(self.slow)}


@dataclass(frozen=True)
class TransferSettings:
    """What is transferred, and how it is trained.

    Attributes:
        policy: What to do about mismatched shapes.
        regime: How transferred and new weights are trained.
    """

    policy: MismatchPolicy
    regime: RegimeSettings

    @classmethod
    def from_config(cls, config: Config) -> "TransferSettings":
        """Returns what the section ``transfer`` says."""
        section = config.transfer
        unfreeze = section.unfreeze
        return cls(
            MismatchPolicy(section.mismatch, tuple(section.allow)),
            RegimeSettings(
                section.regime,
                section.decay,
                tuple(unfreeze) if isinstance(unfreeze, list) else unfreeze,
                section.patience,
                section.warmup,
                tuple(
                    Rule(
                        rule.patterns(),
                        rule.levels(),
                        rule.weights,
                        rule.freeze,
                        rule.rate,
                        rule.weight_decay,
                        rule.warmup,
                    )
                    for rule in section.rules
                ),
            ),
        )


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

    What it shares with the stage before comes from there; the rest comes from the level's own
    latest checkpoint if a cycle has been here before, then from the weights that the user wants
    loaded, and is new otherwise.

    Args:
        family: Builds the networks.
        settings: What is transferred, and how it is trained.
    """

    def __init__(self, family: NetworkFamily, settings: TransferSettings) -> None:
        self.family = family
        self.settings = settings

    def check(self, stages: Sequence[Stage], loaded: Mapping[str, Tensor]) -> list[Regime]:
        """Goes through all stages by names and shapes alone.

        Args:
            stages: The stages.
            loaded: Weights to start from, by the network's names.

        Returns:
            The regime of each stage.

        Raises:
            UserError: If something could not be transferred, a pattern matches nothing, nothing
                would be left to train, or something would thaw too late.
        """
        largest = max(stage.level for stage in stages)
        names = tuple(self.family.blueprint(largest).state_dict())
        check_rules(self.settings.regime, self._anatomy(names))
        for pattern in self.settings.policy.allow:
            require_match(pattern, names, "transfer.allow")
        regimes: list[Regime] = []
        before: dict[str, Tensor] = {}
        seen: dict[int, dict[str, Tensor]] = {}
        for stage in stages:
            network = self.family.blueprint(stage.level)
            own = network.state_dict()
            weights = {**loaded, **seen.get(stage.level, {}), **before}
            regime = self._fresh(network)
            if weights:
                report = partition(weights, own)
                check_report(report, self.settings.policy)
                parameters = [name for name, _ in network.named_parameters()]
                slow = _slow(report, before or loaded)
                regime = self._regime(stage, report, slow)
                where = f"the network of level {stage.level}"
                check_regime(regime, parameters, stage.epochs, where)
            before = seen[stage.level] = own
            regimes.append(regime)
        return regimes

    def start(self, ledger: Ledger, stage: Stage) -> Start:
        """Builds the network of a stage and fills it."""
        previous = ledger.finished[-1] if ledger.finished else None
        weights = dict(ledger.loaded)
        latest = ledger.loaded
        moments: dict[str, Any] = {}
        for source in (ledger.last_visit(stage.level), previous):
            if source is not None:
                payload = ledger.best[source["level"]]
                latest = payload["network"]
                weights |= latest
                moments |= payload["trainer"]["optimizer"]
        if not weights:
            network = self.family.build(stage.level)
            return Start(network, regime=self._fresh(network))
        plan = partition(weights, self.family.blueprint(stage.level).state_dict())
        network = self.family.build_grown(stage.level, plan.keys(Status.TRANSFERRED))
        report = transfer_weights(weights, network, self.settings.policy)
        for warning in check_report(report, self.settings.policy):
            log.warning("%s", warning)
        slow = _slow(report, latest)
        regime = self._regime(stage, report, slow)
        return Start(network, report.frozen(regime.frozen()), moments, regime, slow)

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
            return Start(network, regime=self._fresh(network))
        report = TransferReport.from_json(record["report"])
        slow = frozenset(record["slow"])
        return Start(network, report, {}, self._regime(stage, report, slow), slow)

    def _fresh(self, network: nn.Module) -> Regime:
        anatomy = self._anatomy(tuple(network.state_dict()))
        return plan_regime(self.settings.regime, anatomy, (), (), 1.0)

    def _regime(self, stage: Stage, report: TransferReport, slow: Collection[str]) -> Regime:
        transferred = report.keys(*COPIED)
        return plan_regime(
            self.settings.regime,
            self._anatomy(tuple(report.keys(*IN_TARGET))),
            transferred,
            slow,
            stage.transferred_ratio,
        )

    def _anatomy(self, names: tuple[str, ...]) -> Anatomy:
        return Anatomy(names, self.family.group_of, self.family.level_of)


def _slow(report: TransferReport, latest: Mapping[str, Tensor]) -> frozenset[str]:
    """Returns what learns at a lower rate: what has just been trained or was loaded.

    And that only beside something else.
    """
    slow = frozenset(name for name in report.keys(*COPIED) if name in latest)
    return frozenset() if slow == set(report.keys(*IN_TARGET)) else slow
