"""What the network of a stage starts from: the best states of earlier stages."""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from multigrid.config import Config
from multigrid.config.section import shown
from multigrid.config.settings import ModelConfig, TransferConfig
from multigrid.errors import UserError
from multigrid.models import transfer
from multigrid.models.growth import NetworkFamily, UNetFamily
from multigrid.schedule import Stage
from multigrid.training.checkpoint import SavedNetwork, load_weights
from multigrid.training.finetuning import Finetuning, check_finetuning, check_rules, plan_finetuning

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """A filled network on entering a stage.

    What was transferred into it, the state of the optimizer by parameter name, how its tensors are
    trained, and the names of what learns at a lower rate beside new weights.
    """

    network: nn.Module
    report: transfer.TransferReport
    finetuning: Finetuning
    slow: frozenset[str] = frozenset()
    moments: dict[str, Any] = field(default_factory=dict)


UNSEEN = (
    "network",
    "block",
    "options",
    "activation",
    "normalization",
    "padding",
    "prolongation",
)
"""Settings of the section ``model`` that names and shapes of weights need not show."""


def weights_to_load(config: Config) -> tuple[dict[str, Tensor], list[str]]:
    """Reads the files that a configuration wants loaded.

    Returns weights by the network's names, and a sentence for each file whose weights were trained
    in another network than names and shapes tell.
    """
    section = config.transfer
    loaded: dict[str, Tensor] = {}
    files: list[SavedNetwork] = []
    if config.checkpoints.load is not None:
        files.append(load_weights(Path(config.checkpoints.load)))
        loaded = transfer.rename(files[-1].tensors, section.rename, "transfer.rename")
    for index, entry in enumerate(section.transplant):
        files.append(load_weights(Path(entry.load), f"transfer.transplant[{index}].load"))
        weights = files[-1].tensors
        for pattern in entry.pattern:
            transfer.require_match(pattern, weights, f"transfer.transplant[{index}].pattern")
        loaded |= {k: t for k, t in weights.items() if transfer.matches(k, entry.pattern)}
    return loaded, [note for file in files if (note := _other_network(file, config.model))]


def _other_network(saved: SavedNetwork, model: ModelConfig) -> str:
    """Returns what names and shapes need not show of the network that weights were trained in.

    Nothing if it is the same, or the file does not say. What an earlier version did not save had
    today's default.
    """
    changes = []
    for key in UNSEEN if saved.model else ():
        before = saved.model.get(key, ModelConfig.model_fields[key].default)
        if before != (now := getattr(model, key)):
            changes.append(f"model.{key} {shown(before)} (here {shown(now)})")
    if not changes:
        return ""
    return (
        f"warning: the weights of {saved.path} were trained with {', '.join(changes)}, which names "
        "and shapes do not show; they are loaded all the same"
    )


class Initializer:
    """Builds the network of each stage and fills it.

    What it shares with the stage before comes from there; the rest comes from the level's
    latest checkpoint if a cycle has been here before, then from the weights that the user wants
    loaded, and is new otherwise.
    """

    def __init__(self, family: NetworkFamily, section: TransferConfig) -> None:
        self.family = family
        self.section = section

    def check(
        self, stages: Sequence[Stage], loaded: Mapping[str, Tensor], by_measurement: bool = False
    ) -> list[tuple[Stage, Finetuning]]:
        """Goes through all stages by names and shapes; returns how each one trains its tensors.

        ``by_measurement``: any of the stages may be followed by another one on its level, and it is
        not known for how long they train.

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
        names = transfer.tensors_of(self.family.blueprint(largest))
        check_rules(section, names)
        for pattern in section.allow:
            transfer.require_match(pattern, names, "transfer.allow")
        plans: list[tuple[Stage, Finetuning]] = []
        before: dict[str, Tensor] = {}
        seen: dict[int, dict[str, Tensor]] = {}
        copies: dict[str, bool] = {}
        for stage in [stage for stage in stages for _ in range(1 + by_measurement)]:
            network = self.family.blueprint(stage.level)
            tensors = transfer.tensors_of(network)
            weights = {**loaded, **seen.get(stage.level, {}), **before}
            report = transfer.partition(weights, tensors)
            plan = self._plan(stage, report, _slow(report, before or loaded))
            if weights:
                transfer.check_report(report, section.mismatch, section.allow)
                parameters = [name for name, _ in network.named_parameters()]
                stays = by_measurement and stage.level in seen
                where = f"the network of level {stage.level}"
                where += ", on which a schedule by measurement may stay," * stays
                epochs = math.inf if by_measurement else stage.epochs
                check_finetuning(plan, parameters, epochs, where)
                copies |= self._prepare_new(network, report)
            before = seen[stage.level] = tensors
            plans.append((stage, plan))
        if section.new_scales == "copy":
            _check_copies(copies, len(stages))
        return plans

    def start(
        self, stage: Stage, loaded: Mapping[str, Tensor], states: Sequence[Mapping[str, Any]]
    ) -> Start:
        """Builds the network of a stage and fills it; of the best ``states``, later ones count."""
        section, network = self.section, self.family.build(stage.level)
        shapes = {name: tensor.shape for name, tensor in transfer.tensors_of(network).items()}
        weights, moments, latest = dict(loaded), dict[str, Any](), loaded
        for state in states:
            latest = state["network"]
            weights |= latest
            of = state["trainer"]["optimizer"]
            moments |= {k: of[k] for k in of if latest[k].shape == shapes.get(k)}
        report = transfer.partition(weights, network.state_dict())
        if weights:
            for warning in transfer.check_report(report, section.mismatch, section.allow):
                log.warning("%s", warning)
            copied = report.keys(*transfer.COPIED)
            transfer.load_tensors(network, {name: weights[name] for name in copied})
            for line in _told(self._prepare_new(network, report)):
                log.info("level %d: %s", stage.level, line)
        slow = _slow(report, latest)
        plan = self._plan(stage, report, slow)
        return Start(network, report.frozen(plan.frozen()), plan, slow, moments)

    def resume(self, stage: Stage, checkpoint: Mapping[str, Any], path: Path) -> Start:
        """Builds the network of a stage and fills it from the checkpoint of its own in a file."""
        network = self.family.build(stage.level)
        transfer.load_strictly(checkpoint["network"], network, path)
        report = transfer.TransferReport.from_json(checkpoint["transfers"][stage.level])
        slow = frozenset(checkpoint["start"]["slow"])
        return Start(network, report, self._plan(stage, report, slow), slow)

    def _prepare_new(self, network: nn.Module, report: transfer.TransferReport) -> dict[str, bool]:
        copied, copy = report.keys(*transfer.COPIED), self.section.new_scales == "copy"
        return self.family.prepare_new(network, copied, copy)

    def _plan(
        self, stage: Stage, report: transfer.TransferReport, slow: Collection[str]
    ) -> Finetuning:
        return plan_finetuning(
            self.section,
            report.keys(*transfer.IN_TARGET),
            self.family.group_of,
            set(report.keys(*transfer.COPIED)),
            slow,
            stage.transferred_ratio,
        )


def _check_copies(copies: Mapping[str, bool], num_stages: int) -> None:
    """Raises UserError if nothing in new scales can be a copy of a neighbouring one.

    A single stage is only told of, as ``cycle: auto`` may have chosen it.
    """
    if num_stages == 1:
        log.warning("transfer.new_scales: 'copy' has no effect on a single stage")
    elif not any(copies.values()):
        why = "their neighbours have other widths" if copies else "no network gets any"
        what = "'copy' has no effect on new scales"
        raise UserError(f"transfer.new_scales: {what}, as {why}; it must be 'fresh'")


def _told(copies: Mapping[str, bool]) -> list[str]:
    """Returns what became of the copies of neighbouring scales."""
    made = ", ".join(name for name, fits in copies.items() if fits)
    others = ", ".join(name for name, fits in copies.items() if not fits)
    lines = [f"copied from the next coarser scale: {made}"] * bool(made)
    return lines + [f"fresh, as it has none of this shape: {others}"] * bool(others)


def _slow(report: transfer.TransferReport, latest: Mapping[str, Tensor]) -> frozenset[str]:
    """Returns what was just trained or loaded, and learns at a lower rate beside something else."""
    slow = frozenset(name for name in report.keys(*transfer.COPIED) if name in latest)
    return frozenset() if slow == set(report.keys(*transfer.IN_TARGET)) else slow
