"""Weight transfer by name between state dictionaries.

Works for any ``torch.nn.Module``: what has the same name and shape is copied, everything else is
reported. Nothing is guessed and nothing is hidden.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from multigrid.errors import UserError
from multigrid.models.name_patterns import matches
from multigrid.models.transfer_report import (
    COPIED,
    Entry,
    Status,
    TransferReport,
    shape_of,
    times,
)


@dataclass(frozen=True)
class MismatchPolicy:
    """What to do about tensors of equal name and different shape.

    Attributes:
        mismatch: ``error``, ``warn`` or ``allow``; such tensors are in the report in any case.
        allow: Patterns of tensors of which a mismatch is expected.
    """

    mismatch: Literal["error", "warn", "allow"] = "warn"
    allow: tuple[str, ...] = ()


def partition(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> TransferReport:
    """Sorts the names of two state dictionaries into what can be transferred and what not."""
    entries = []
    for key, tensor in target.items():
        shape = tuple(tensor.shape)
        source_shape = tuple(source[key].shape) if key in source else None
        if source_shape is None:
            status = Status.NEW
        else:
            status = Status.TRANSFERRED if source_shape == shape else Status.MISMATCHED
        entries.append(Entry(key, status, shape, source_shape))
    for key, tensor in source.items():
        if key not in target:
            shape = tuple(tensor.shape)
            entries.append(Entry(key, Status.UNUSED, shape, shape))
    return TransferReport(tuple(entries))


def check_report(report: TransferReport, policy: MismatchPolicy = MismatchPolicy()) -> list[str]:
    """Checks that a transfer is what the user wants.

    Args:
        report: Of the transfer.
        policy: What to do about mismatched shapes.

    Returns:
        Warnings.

    Raises:
        UserError: If nothing at all can be transferred, or a mismatch is an error.
    """
    if not report.count(*COPIED)[0]:
        source = [e for e in report.entries if e.source_shape is not None]
        target = [e for e in report.entries if e.status is not Status.UNUSED]
        sizes = [_examples((e.key, e.source_shape or ()) for e in source)]
        sizes += [_examples((e.key, e.shape) for e in target)]
        raise UserError(
            f"nothing could be transferred: none of the {len(source)} tensors of the checkpoint "
            f"has the name and shape of one of the {len(target)} of the network (checkpoint: "
            f"{sizes[0]}; network: {sizes[1]}); map other names with transfer.rename"
        )
    wrong = [
        e
        for e in report.entries
        if e.status is Status.MISMATCHED and not matches(e.key, policy.allow)
    ]
    if not wrong or policy.mismatch == "allow":
        return []
    sentence = (
        f"{len(wrong)} tensors have another shape in the checkpoint than in the network, first of "
        f"all {wrong[0].key}, {shape_of(wrong[:1])}"
    )
    if policy.mismatch == "error":
        raise UserError(
            f"transfer.mismatch: {sentence}; to initialise such tensors anew, name them in "
            "transfer.allow or set it to 'warn'"
        )
    return [f"warning: {sentence}; they were initialised anew (transfer.mismatch, transfer.allow)"]


def transfer_weights(
    source: Mapping[str, Tensor], target: nn.Module, policy: MismatchPolicy = MismatchPolicy()
) -> TransferReport:
    """Copies every tensor of equal name and shape from ``source`` into ``target``.

    Args:
        source: State dictionary to copy from.
        target: Initialised module to copy into; tensors that are new stay as they are.
        policy: What to do about mismatched shapes.

    Returns:
        The report of what was transferred.

    Raises:
        UserError: If nothing at all could be transferred, or a mismatch is an error; the target
            is left untouched then.
    """
    own = target.state_dict()
    report = partition(source, own)
    check_report(report, policy)
    transferred = {key: source[key] for key in report.keys(Status.TRANSFERRED)}
    target.load_state_dict({**own, **transferred}, strict=True)
    return report


def load_strictly(
    source: Mapping[str, Tensor], target: nn.Module, path: Path, hint: str = ""
) -> None:
    """Copies a whole state dictionary, all names and shapes of which must fit.

    Args:
        source: State dictionary to copy from.
        target: Module to copy into.
        path: Where the state dictionary is from, for the sentence of an error.
        hint: What the sentence ends with.

    Raises:
        UserError: If they do not; the target is left untouched then.
    """
    report = partition(source, target.state_dict())
    wrong = [entry.key for entry in report.entries if entry.status is not Status.TRANSFERRED]
    if wrong:
        raise UserError(
            f"{path}: belongs to another network: {len(wrong)} of its tensors and the network's "
            f"do not fit, first of all '{wrong[0]}'{hint}"
        )
    target.load_state_dict(source)


def _examples(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    names = [f"{key} {times(shape)}" for key, shape in tensors]
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
