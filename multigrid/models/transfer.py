"""Weight transfer by name between state dictionaries.

Works for any ``torch.nn.Module``: what has the same name and shape is copied, everything else is
reported. What a state dictionary holds besides tensors belongs to the module and stays in it.

A pattern is a name in which ``*`` stands for any text. It matches a tensor's name, or the name of
a layer that the tensor belongs to: ``scales.0`` matches all of ``scales.0.stem.conv.weight``.
"""

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter
from torch import Tensor, nn

from multigrid.errors import UserError, nearest

log = logging.getLogger(__name__)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches a name."""
    return any(_regex(pattern).fullmatch(name) for pattern in patterns)


def require_match(pattern: str, names: Collection[str], key: str) -> None:
    """Checks that a pattern matches something."""
    if not any(matches(name, [pattern]) for name in names):
        options = layers(names)
        hint = nearest(pattern, options) or f"; there are {', '.join(sorted(options)[:4])}, ..."
        raise UserError(f"{key}: '{pattern}' matches no tensor{hint}")


def layers(names: Iterable[str]) -> set[str]:
    """Returns the names and all their leading parts: tensors and the layers they belong to."""
    return {prefix for name in names for prefix in _prefixes(name)}


def _prefixes(name: str) -> list[str]:
    return list(accumulate(name.split("."), "{}.{}".format))


def rename(weights: Mapping[str, Tensor], rules: Mapping[str, str], key: str) -> dict[str, Tensor]:
    """Returns weights by their new names, by patterns; the first rule that matches counts.

    Each ``*`` of the new pattern stands for what that of the old one matched.
    """
    for old in rules:
        require_match(old, weights, key)
    source: dict[str, str] = {}
    for name in weights:
        new = _renamed(name, rules)
        if new in source:
            raise UserError(f"{key}: '{source[new]}' and '{name}' would both become '{new}'")
        source[new] = name
    return {new: weights[name] for new, name in source.items()}


def _renamed(name: str, rules: Mapping[str, str]) -> str:
    for old, new in rules.items():
        if match := _regex(old).fullmatch(name):
            *stars, rest = match.groups(default="")
            first, *others = new.split("*")
            return first + "".join(map("".join, zip(stars, others, strict=True))) + rest
    return name


def _regex(pattern: str) -> re.Pattern[str]:
    """Returns one group for each star, and a last one for what comes below a layer."""
    return re.compile("(.*)".join(map(re.escape, pattern.split("*"))) + r"(\..*)?")


Mismatch = Literal["error", "warn", "allow"]


class Status(StrEnum):
    """What became of a tensor; a frozen one was transferred and is not trained (at first)."""

    TRANSFERRED = "TRANSFERRED"
    NEW = "NEW"
    MISMATCHED = "MISMATCHED"
    UNUSED = "UNUSED"
    FROZEN = "FROZEN"


COPIED = (Status.TRANSFERRED, Status.FROZEN)
IN_TARGET = (*COPIED, Status.NEW, Status.MISMATCHED)


@dataclass(frozen=True)
class Entry:
    """One tensor of the target, or of the source (``shape`` too) if the target lacks the name."""

    key: str
    status: Status
    shape: tuple[int, ...]
    source_shape: tuple[int, ...] | None

    @property
    def change(self) -> str:
        """The shapes in source and target, as in ``8x1 -> 9x1``."""
        return f"{times(self.source_shape or ())} -> {times(self.shape)}"


@dataclass(frozen=True)
class TransferReport:
    """Which tensors were transferred, and which were not."""

    entries: tuple[Entry, ...]

    def keys(self, *statuses: Status) -> list[str]:
        """Returns the names of all tensors with one of the statuses."""
        return [entry.key for entry in self.entries if entry.status in statuses]

    def count(self, *statuses: Status) -> tuple[int, int]:
        """Returns the number of tensors and of parameters with one of the statuses."""
        chosen = [entry for entry in self.entries if entry.status in statuses]
        return len(chosen), sum(prod(entry.shape) for entry in chosen)

    def totals(self) -> str:
        """Returns one line: how much of the target was transferred, and what was left over."""
        tensors, parameters = self.count(*COPIED)
        all_tensors, all_parameters = self.count(*IN_TARGET)
        line = f"transferred {tensors}/{all_tensors} tensors, "
        line += f"{parameters:,}/{all_parameters:,} parameters"
        for status in (Status.FROZEN, Status.NEW, Status.MISMATCHED, Status.UNUSED):
            tensors, parameters = self.count(status)
            if tensors:
                line += f"; {status.lower()} {tensors} ({parameters:,})"
        return line

    def frozen(self, names: Collection[str]) -> "TransferReport":
        """Returns the report with those of the names frozen that were transferred."""
        chosen = set(names) & set(self.keys(*COPIED))
        return TransferReport(
            tuple(replace(e, status=Status.FROZEN) if e.key in chosen else e for e in self.entries)
        )

    def notices(self, loaded: bool = True) -> list[str]:
        """Returns a line for every tensor that was skipped, or layer that the other side lacks.

        Where the network before has grown, so that all of it was transferred, layers are new; where
        something did not fit, or weights were ``loaded`` by the user, what is missing is skipped.
        """
        wrong = [entry for entry in self.entries if entry.status is Status.MISMATCHED]
        unused = self.keys(Status.UNUSED)
        source = layers(entry.key for entry in self.entries if entry.source_shape is not None)
        target = layers(self.keys(*IN_TARGET))
        new = "Skipping layer {}: not found in checkpoint"
        if not (loaded or wrong or unused):
            new = "New layer {}: not in the network before"
        lines = [new.format(name) for name in _outermost(self.keys(Status.NEW), source)]
        lines += [f"Skipping layer {k}: not found in network" for k in _outermost(unused, target)]
        return lines + [f"Skipping layer {entry.key}: {entry.change}" for entry in wrong]

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "TransferReport":
        """Returns the report that :meth:`to_json` was made from."""
        return cls(TypeAdapter(tuple[Entry, ...]).validate_python(record["tensors"]))

    def to_json(self) -> dict[str, Any]:
        """Returns plain containers: totals and one record for each tensor."""
        totals = {
            status.lower(): dict(zip(("tensors", "parameters"), self.count(status), strict=True))
            for status in Status
        }
        tensors = [{**asdict(entry), "status": entry.status.value} for entry in self.entries]
        return {"totals": totals, "tensors": tensors}


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Returns what of a module's state dictionary are tensors."""
    return _tensors(module.state_dict())


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Loads tensors by name; whatever else is in the state dictionary stays as it is."""
    module.load_state_dict({**module.state_dict(), **tensors}, strict=True)


def partition(source: Mapping[str, Any], target: Mapping[str, Any]) -> TransferReport:
    """Sorts the names of two state dictionaries into what can be transferred and what not.

    Raises:
        UserError: If a complex tensor would lose its imaginary part in a real one.
    """
    source, target = _tensors(source), _tensors(target)
    shapes = {key: tuple(tensor.shape) for key, tensor in source.items()}
    entries = []
    for key, tensor in target.items():
        status, shape = Status.MISMATCHED, tuple(tensor.shape)
        if shapes.get(key, shape) == shape:
            status = Status.TRANSFERRED if key in shapes else Status.NEW
            if key in shapes and source[key].is_complex() and not tensor.is_complex():
                old, new = (str(t.dtype).removeprefix("torch.") for t in (source[key], tensor))
                raise UserError(
                    f"'{key}' is complex in the checkpoint ({old}), but real in the network "
                    f"({new}), which would lose its imaginary part"
                )
        entries.append(Entry(key, status, shape, shapes.get(key)))
    unused = [key for key in source if key not in target]
    entries += [Entry(key, Status.UNUSED, shapes[key], shapes[key]) for key in unused]
    return TransferReport(tuple(entries))


def check_report(
    report: TransferReport, mismatch: Mismatch = "warn", allow: Sequence[str] = ()
) -> list[str]:
    """Checks that a transfer is what the user wants; returns warnings."""
    if not report.keys(*COPIED):
        source = [(e.key, e.source_shape) for e in report.entries if e.source_shape is not None]
        target = [(e.key, e.shape) for e in report.entries if e.status is not Status.UNUSED]
        raise UserError(
            f"nothing could be transferred: none of the {len(source)} tensors of the checkpoint "
            f"has the name and shape of one of the {len(target)} of the network (checkpoint: "
            f"{_examples(source)}; network: {_examples(target)}); map other names with "
            "transfer.rename"
        )
    wrong = [
        e for e in report.entries if e.status is Status.MISMATCHED and not matches(e.key, allow)
    ]
    if not wrong or mismatch == "allow":
        return []
    sentence = (
        f"{len(wrong)} tensors have another shape in the checkpoint than in the network, first of "
        f"all {wrong[0].key}, {wrong[0].change}"
    )
    if mismatch == "error":
        raise UserError(
            f"transfer.mismatch: {sentence}; to reinitialise such tensors, name them in "
            "transfer.allow or set it to 'warn'"
        )
    return [f"warning: {sentence}; they were reinitialised (transfer.mismatch, transfer.allow)"]


def transfer_weights(
    source: Mapping[str, Tensor],
    target: nn.Module,
    mismatch: Mismatch = "warn",
    allow: Sequence[str] = (),
) -> TransferReport:
    """Copies every tensor of equal name and shape from a state dictionary into a module.

    What is new in the module stays as it is. Tensors of equal name and different shape are in the
    report; ``mismatch`` says whether they are an ``error``, give a warning (``warn``) or are
    expected (``allow``), as those are that match the patterns ``allow``.

    Raises:
        UserError: If nothing at all could be transferred, or a mismatch is an error; the target
            is left untouched then.
    """
    report = partition(source, target.state_dict())
    for warning in check_report(report, mismatch, allow):
        log.warning("%s", warning)
    load_tensors(target, {key: source[key] for key in report.keys(Status.TRANSFERRED)})
    return report


def load_strictly(
    source: Mapping[str, Tensor], target: nn.Module, path: Path, hint: str = ""
) -> None:
    """Copies a whole state dictionary, all names and shapes of which must fit."""
    report = partition(source, target.state_dict())
    wrong = [entry.key for entry in report.entries if entry.status is not Status.TRANSFERRED]
    if wrong:
        raise UserError(
            f"{path}: belongs to another network: {len(wrong)} of its tensors and the network's "
            f"do not fit, first of all '{wrong[0]}'{hint}"
        )
    load_tensors(target, source)


def _examples(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    names = [f"{key} {times(shape)}" for key, shape in tensors]
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")


def _outermost(names: Iterable[str], others: Collection[str]) -> list[str]:
    """Returns the shortest leading parts of the names that are not among the others."""
    shortest = (next((p for p in _prefixes(n) if p not in others), n) for n in names)
    return list(dict.fromkeys(shortest))


def times(shape: Iterable[int]) -> str:
    """Returns a shape as text, as in ``16x8``."""
    return "x".join(str(n) for n in shape) or "scalar"
