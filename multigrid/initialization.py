"""What the network of a stage starts from: earlier checkpoints, read back from disk."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from multigrid.checkpoint import load_checkpoint
from multigrid.config import Config
from multigrid.ledger import Ledger
from multigrid.models.protocol import NetworkFamily
from multigrid.names import matches, rename, require_match
from multigrid.regimes import (
    Anatomy,
    Regime,
    RegimeSettings,
    Rule,
    check_regime,
    check_rules,
    plan_regime,
)
from multigrid.schedule import Stage
from multigrid.transfer import (
    MismatchPolicy,
    Status,
    TransferReport,
    check_report,
    partition,
    transfer_weights,
)
from multigrid.weights import load_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """A network on entering a stage.

    Attributes:
        network: The network, filled.
        report: What was transferred into it, or None if nothing was.
        moments: State of the optimiser by parameter name.
        regime: How its tensors are trained.
    """

    network: nn.Module
    report: TransferReport | None = None
    moments: dict[str, Any] = field(default_factory=dict)
    regime: Regime = field(default_factory=Regime)


@dataclass(frozen=True)
class TransferSettings:
    """What is transferred, and how it is trained.

    Attributes:
        policy: What to do about mismatched shapes.
        regime: How transferred and new weights are trained.
        loaded: Weights to start from, under the network's names; empty for none.
    """

    policy: MismatchPolicy
    regime: RegimeSettings
    loaded: Mapping[str, Tensor]

    @classmethod
    def from_config(cls, config: Config) -> "TransferSettings":
        """Reads the files that are to be loaded.

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
            loaded,
        )


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

    def check(self, stages: Sequence[Stage]) -> list[Regime]:
        """Goes through all stages by names and shapes alone.

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
            weights = {**self.settings.loaded, **seen.get(stage.level, {}), **before}
            regime = self._fresh(network)
            if weights:
                report = partition(weights, own)
                check_report(report, self.settings.policy)
                parameters = [name for name, _ in network.named_parameters()]
                regime = self._regime(stage, report, before or self.settings.loaded)
                where = f"the network of level {stage.level}"
                check_regime(regime, parameters, stage.epochs, where)
            before = seen[stage.level] = own
            regimes.append(regime)
        return regimes

    def start(self, ledger: Ledger, stage: Stage) -> Start:
        """Builds the network of a stage and fills it."""
        previous = ledger.finished[-1] if ledger.finished else None
        weights = dict(self.settings.loaded)
        latest: Mapping[str, Tensor] = self.settings.loaded
        moments: dict[str, Any] = {}
        for source in (ledger.last_visit(stage.level), previous):
            if source is not None:
                payload = load_checkpoint(ledger.level_folder(source["level"]) / "best.pt")
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
        regime = self._regime(stage, report, latest)
        return Start(network, report.frozen(regime.frozen()), moments, regime)

    def _fresh(self, network: nn.Module) -> Regime:
        anatomy = self._anatomy(tuple(network.state_dict()))
        return plan_regime(self.settings.regime, anatomy, (), (), 1.0)

    def _regime(self, stage: Stage, report: TransferReport, latest: Mapping[str, Tensor]) -> Regime:
        """Returns the regime of a stage.

        Only what the stage before has just trained, or was loaded, learns at a lower rate, and
        only beside something else.
        """
        transferred = report.keys(Status.TRANSFERRED)
        names = tuple(e.key for e in report.entries if e.status is not Status.UNUSED)
        slow = {name for name in transferred if name in latest}
        if slow == set(names):
            slow = set()
        anatomy = self._anatomy(names)
        return plan_regime(
            self.settings.regime, anatomy, transferred, slow, stage.transferred_ratio
        )

    def _anatomy(self, names: tuple[str, ...]) -> Anatomy:
        return Anatomy(names, self.family.group_of, self.family.level_of)
