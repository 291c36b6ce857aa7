"""How the tensors of a network are trained in a stage: rates, frozen parts, and when they thaw.

The one place where such settings are resolved. Pure: names in, names out.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from multigrid.errors import UserError
from multigrid.models.name_patterns import matches, require_match
from multigrid.training.optimizers import ParameterOptions

RegimeName = Literal["full", "fine-tuning", "features", "gradual"]


@dataclass(frozen=True)
class Rule:
    """How some tensors are trained; what is None is left as it is.

    Attributes:
        patterns: Patterns of names.
        levels: Levels of the ladder whose tensors are meant too.
        weights: Of these, which: ``transferred``, ``new`` or ``all``.
        freeze: True, a number of epochs, ``plateau``, False or None; transferred tensors only.
        rate: Factor on the learning rate.
        weight_decay: Decoupled weight decay.
        warmup: Fraction of the steps in which the rate rises from zero.
    """

    patterns: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    weights: Literal["transferred", "new", "all"] = "transferred"
    freeze: bool | int | Literal["plateau"] | None = None
    rate: float | None = None
    weight_decay: float | None = None
    warmup: float | None = None


@dataclass(frozen=True)
class RegimeSettings:
    """What the user wants, for all stages; see the section ``transfer`` of experiment files."""

    regime: RegimeName = "fine-tuning"
    decay: float = 1.0
    unfreeze: int | tuple[int, ...] | Literal["plateau"] = "plateau"
    patience: int = 3
    warmup: float = 0.0
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Thaw:
    """When a frozen tensor is trained after all: whichever comes first.

    Attributes:
        epoch: After so many epochs.
        plateaus: After so many plateaus of the validation error.
    """

    epoch: float = math.inf
    plateaus: float = math.inf


@dataclass(frozen=True)
class Regime:
    """How the tensors of one network are trained in one stage.

    Attributes:
        options: Options of the optimiser by parameter name; those not named have the default.
        thaw: When each frozen tensor thaws, by name in the state dictionary.
        patience: Epochs without improvement that make a plateau.
    """

    options: Mapping[str, ParameterOptions] = field(default_factory=dict)
    thaw: Mapping[str, Thaw] = field(default_factory=dict)
    patience: int = 3

    def frozen(self, epoch: int = 0, plateaus: int = 0) -> frozenset[str]:
        """Returns the names that are frozen after so many epochs and plateaus."""
        return frozenset(
            name
            for name, thaw in self.thaw.items()
            if epoch < thaw.epoch and plateaus < thaw.plateaus
        )

    @property
    def always_frozen(self) -> frozenset[str]:
        """Names that are frozen to the end."""
        return frozenset(name for name, thaw in self.thaw.items() if thaw == Thaw())


@dataclass(frozen=True)
class Anatomy:
    """What a regime has to know of a network.

    Attributes:
        names: All names of its state dictionary.
        group_of: Number of the part that a tensor belongs to, counted outwards.
        level_of: Level of the ladder that it belongs to, None where there is no such thing.
    """

    names: tuple[str, ...]
    group_of: Callable[[str], int]
    level_of: Callable[[str], int | None]


def plan_regime(
    settings: RegimeSettings,
    anatomy: Anatomy,
    transferred: Collection[str],
    slow: Collection[str],
    ratio: float,
) -> Regime:
    """Resolves all settings for one network.

    Args:
        settings: What the user wants.
        anatomy: The network.
        transferred: Names of its tensors that were transferred.
        slow: Those of them that are to be trained at a lower rate beside new ones.
        ratio: That rate over the one of new weights.

    Returns:
        The regime. The rate of transferred weights over that of new ones is
        ``lower * decay ** (d - 1)`` at the distance d from the nearest part of the network that is
        all new, or from the output if there is none; ``lower`` is 1 in the regime ``full`` and for
        weights that are not slow, else ``ratio``.
    """
    distance = _distances(anatomy, transferred)
    options: dict[str, ParameterOptions] = {}
    thaw: dict[str, Thaw] = {}
    something_new = any(name not in transferred for name in anatomy.names)
    for name in anatomy.names:
        if name not in transferred:
            options[name] = ParameterOptions(warmup=settings.warmup)
            continue
        lower = 1.0 if settings.regime == "full" or name not in slow else ratio
        steps = distance[anatomy.group_of(name)] - 1
        options[name] = ParameterOptions(scale=lower * settings.decay**steps)
        if settings.regime == "features":
            thaw[name] = Thaw()
        elif settings.regime == "gradual":
            thaw[name] = _gradual(settings.unfreeze, steps, something_new)
    for rule in settings.rules:
        _apply(rule, anatomy, transferred, options, thaw)
    return Regime(options, {n: t for n, t in thaw.items() if t != Thaw(0)}, settings.patience)


def _distances(anatomy: Anatomy, transferred: Collection[str]) -> dict[int, int]:
    """Returns how far each part is from the nearest that is all new, at least 1."""
    groups = {anatomy.group_of(name) for name in anatomy.names}
    old = {anatomy.group_of(name) for name in transferred}
    new = groups - old or {max(groups, default=0) + 1}
    return {group: max(1, min(abs(group - other) for other in new)) for group in groups}


def _gradual(unfreeze: int | tuple[int, ...] | str, steps: int, something_new: bool) -> Thaw:
    """Returns when a part thaws that is so many steps inwards of the first one to do so.

    Where nothing is new, there is only that one to train at first.
    """
    if isinstance(unfreeze, tuple):
        return Thaw(unfreeze[min(steps, len(unfreeze) - 1)])
    turn = steps + something_new
    if isinstance(unfreeze, int):
        return Thaw(turn * unfreeze)
    return Thaw(plateaus=turn) if turn else Thaw(0)


def _apply(
    rule: Rule,
    anatomy: Anatomy,
    transferred: Collection[str],
    options: dict[str, ParameterOptions],
    thaw: dict[str, Thaw],
) -> None:
    for name in anatomy.names:
        is_old = name in transferred
        if rule.weights != "all" and is_old != (rule.weights == "transferred"):
            continue
        if not matches(name, rule.patterns) and anatomy.level_of(name) not in rule.levels:
            continue
        change = {"scale": rule.rate, "weight_decay": rule.weight_decay, "warmup": rule.warmup}
        options[name] = replace(options[name], **{k: v for k, v in change.items() if v is not None})
        if rule.freeze is False:
            thaw.pop(name, None)
        elif rule.freeze is not None and is_old:
            thaw[name] = _rule_thaw(rule.freeze)


def _rule_thaw(freeze: bool | int | str) -> Thaw:
    if freeze is True:
        return Thaw()
    return Thaw(plateaus=1) if isinstance(freeze, str) else Thaw(epoch=freeze)


def check_regime(regime: Regime, parameters: Collection[str], epochs: int, where: str) -> None:
    """Checks that a regime makes sense in a stage.

    Raises:
        UserError: If nothing is left to train, or something thaws when the stage is over.
    """
    if epochs and not set(parameters) - regime.frozen():
        raise UserError(
            f"transfer: all {len(parameters)} parameters of {where} are frozen, so nothing is left "
            "to train; let a rule with freeze: false spare some, such as the heads, or begin "
            "transfer.unfreeze with 0"
        )
    late = [int(t.epoch) for t in regime.thaw.values() if epochs <= t.epoch < math.inf]
    if late and epochs:
        raise UserError(
            f"transfer: weights are to thaw after epoch {min(late)}, but {where} has {epochs} "
            f"epochs; it must be before that, or freeze: true for the whole stage"
        )


def check_rules(settings: RegimeSettings, anatomy: Anatomy) -> None:
    """Checks that every rule has something to apply to in the largest network.

    Raises:
        UserError: If a pattern or a level matches nothing.
    """
    levels = {level for name in anatomy.names if (level := anatomy.level_of(name)) is not None}
    for index, rule in enumerate(settings.rules):
        for pattern in rule.patterns:
            require_match(pattern, anatomy.names, f"transfer.rules[{index}].pattern")
        for level in rule.levels:
            if level not in levels:
                known = ", ".join(map(str, sorted(levels))) or "none; use a pattern"
                raise UserError(
                    f"transfer.rules[{index}].level: there is no level {level} that owns weights; "
                    f"there are {known}"
                )
