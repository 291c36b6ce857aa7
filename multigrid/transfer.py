"""Weight transfer by name between state dictionaries.

Works for any ``torch.nn.Module``: what has the same name and shape is copied, everything else is
reported. Nothing is guessed and nothing is hidden.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torch import Tensor, nn

from multigrid.errors import UserError
from multigrid.tables import table


class Status(StrEnum):
    """What became of a tensor."""

    TRANSFERRED = "TRANSFERRED"
    NEW = "NEW"
    MISMATCHED = "MISMATCHED"
    UNUSED = "UNUSED"


@dataclass(frozen=True)
class Entry:
    """One tensor of the target, or of the source if the target has none of that name.

    Attributes:
        key: Name in the state dictionary.
        status: What became of it.
        shape: Its shape in the target; in the source for an unused tensor.
        source_shape: Its shape in the source, None for a new tensor.
    """

    key: str
    status: Status
    shape: tuple[int, ...]
    source_shape: tuple[int, ...] | None

    @property
    def num_parameters(self) -> int:
        """Number of elements."""
        count = 1
        for n in self.shape:
            count *= n
        return count


@dataclass(frozen=True)
class TransferReport:
    """Which tensors were transferred, and which were not."""

    entries: tuple[Entry, ...]

    def keys(self, status: Status) -> list[str]:
        """Returns the names of all tensors with a status."""
        return [entry.key for entry in self.entries if entry.status == status]

    def count(self, *statuses: Status) -> tuple[int, int]:
        """Returns the number of tensors and of parameters with one of the statuses."""
        chosen = [entry for entry in self.entries if entry.status in statuses]
        return len(chosen), sum(entry.num_parameters for entry in chosen)

    def totals(self) -> str:
        """Returns one line: how much of the target was transferred, and what was left over."""
        in_target = (Status.TRANSFERRED, Status.NEW, Status.MISMATCHED)
        tensors, parameters = self.count(Status.TRANSFERRED)
        all_tensors, all_parameters = self.count(*in_target)
        line = (
            f"transferred {tensors}/{all_tensors} tensors, {parameters:,}/{all_parameters:,} "
            "parameters"
        )
        for status in (Status.NEW, Status.MISMATCHED, Status.UNUSED):
            tensors, parameters = self.count(status)
            if tensors:
                line += f"; {status.lower()} {tensors} ({parameters:,})"
        return line

    def table(self, depth: int = 3) -> str:
        """Returns a table by module, names cut to ``depth`` parts, with familiar notices.

        Mismatched and unused tensors are never summed up: each has a row of its own.
        """
        groups: dict[tuple[str, Status], list[Entry]] = defaultdict(list)
        for entry in self.entries:
            single = entry.status in (Status.MISMATCHED, Status.UNUSED)
            name = entry.key if single else ".".join(entry.key.split(".")[:depth])
            groups[name, entry.status].append(entry)
        rows = [
            [name, status.value, _shape(entries), f"{sum(e.num_parameters for e in entries):,}"]
            for (name, status), entries in groups.items()
        ]
        return table(["Key", "Status", "Shape", "Parameters"], rows)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "TransferReport":
        """Returns the report that :meth:`to_json` was made from."""
        return cls(
            tuple(
                Entry(
                    entry["key"],
                    Status(entry["status"]),
                    tuple(entry["shape"]),
                    None if entry["source_shape"] is None else tuple(entry["source_shape"]),
                )
                for entry in record["tensors"]
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Returns plain containers: totals and one record for each tensor."""
        totals = {
            status.lower(): dict(zip(("tensors", "parameters"), self.count(status), strict=True))
            for status in Status
        }
        tensors = [
            {
                "key": entry.key,
                "status": entry.status.value,
                "shape": list(entry.shape),
                "source_shape": None if entry.source_shape is None else list(entry.source_shape),
            }
            for entry in self.entries
        ]
        return {"totals": totals, "tensors": tensors}


def _shape(entries: list[Entry]) -> str:
    if len(entries) > 1:
        return f"{len(entries)} tensors"
    entry = entries[0]
    if entry.status is Status.MISMATCHED:
        return f"{_times(entry.source_shape or ())} -> {_times(entry.shape)}"
    return _times(entry.shape)


def _times(shape: Iterable[int]) -> str:
    return "x".join(str(n) for n in shape) or "scalar"


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


def transfer_weights(source: Mapping[str, Tensor], target: nn.Module) -> TransferReport:
    """Copies every tensor of equal name and shape from ``source`` into ``target``.

    Args:
        source: State dictionary to copy from.
        target: Initialised module to copy into; tensors that are new stay as they are.

    Returns:
        The report of what was transferred.

    Raises:
        UserError: If nothing at all could be transferred; the target is left untouched then.
    """
    own = target.state_dict()
    report = partition(source, own)
    transferred = report.keys(Status.TRANSFERRED)
    if not transferred:
        raise UserError(
            f"nothing could be transferred: none of the {len(source)} tensors of the checkpoint "
            f"has the name and shape of one of the {len(own)} of the network (checkpoint: "
            f"{_examples(source)}; network: {_examples(own)})"
        )
    target.load_state_dict({**own, **{key: source[key] for key in transferred}}, strict=True)
    return report


def _examples(state: Mapping[str, Tensor]) -> str:
    names = [f"{key} {_times(tensor.shape)}" for key, tensor in list(state.items())[:2]]
    return ", ".join(names) + (", ..." if len(state) > 2 else "")
