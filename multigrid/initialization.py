"""What the network of a stage starts from: the best states of earlier stages."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from multigrid.ledger import Ledger
from multigrid.models.family import UNetFamily
from multigrid.schedule import Stage
from multigrid.transfer import Status, TransferReport, transfer_weights


@dataclass(frozen=True)
class Start:
    """A network on entering a stage.

    Attributes:
        network: The network, filled.
        report: What was transferred into it, or None if nothing was.
        moments: State of the optimiser by parameter name.
        slow: Names of the parameters that the stage before has just trained and that learn at a
            reduced rate beside others; none where there are no others.
    """

    network: nn.Module
    report: TransferReport | None = None
    moments: dict[str, Any] = field(default_factory=dict)
    slow: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Returns what a stage that is resumed must know of its start."""
        report = None if self.report is None else self.report.to_json()
        return {"report": report, "slow": sorted(self.slow)}


def start_stage(family: UNetFamily, ledger: Ledger, stage: Stage) -> Start:
    """Builds the network of a stage and fills it.

    What it shares with the stage before comes from there; the rest comes from the level's own
    latest checkpoint if a cycle has been here before, and is new otherwise.
    """
    if not ledger.finished:
        return Start(family.build(stage.level))
    previous, own = ledger.finished[-1], ledger.last_visit(stage.level)
    if own is None and previous["level"] < stage.level:
        network = family.build_grown(stage.level, previous["level"])
    else:
        network = family.build(stage.level)
    weights: dict[str, Any] = {}
    moments: dict[str, Any] = {}
    for source in (own, previous):
        if source is not None:
            payload = ledger.best[source["level"]]
            weights |= payload["network"]
            moments |= payload["trainer"]["optimizer"]
    report = transfer_weights(weights, network)
    slow = set(report.keys(Status.TRANSFERRED)) & set(payload["network"])
    all_slow = slow == set(network.state_dict())
    return Start(network, report, moments, frozenset() if all_slow else frozenset(slow))


def resume_stage(family: UNetFamily, stage: Stage, record: dict[str, Any]) -> Start:
    """Builds the network of a stage that is resumed, to be filled from its checkpoint.

    Args:
        family: Builds the network.
        stage: The stage.
        record: What :meth:`Start.to_json` gave when the stage began.
    """
    report = record["report"]
    return Start(
        family.build(stage.level),
        None if report is None else TransferReport.from_json(report),
        slow=frozenset(record["slow"]),
    )
