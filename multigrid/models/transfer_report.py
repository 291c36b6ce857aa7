"""What became of every tensor in a transfer of weights."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from multigrid.models.name_patterns import layers
from multigrid.tables import table


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

    def keys(self, *statuses: Status) -> list[str]:
        """Returns the names of all tensors with one of the statuses."""
        return [entry.key for entry in self.entries if entry.status in statuses]

    def count(self, *statuses: Status) -> tuple[int, int]:
        """Returns the number of tensors and of parameters with one of the statuses."""
        chosen = [entry for entry in self.entries if entry.status in statuses]
        return len(chosen), sum(entry.num_parameters for entry in chosen)

    def totals(self) -> str:
        """Returns one line: how much of the target was transferred, and what was left over."""
        tensors, parameters = self.count(*COPIED)
        all_tensors, all_parameters = self.count(*IN_TARGET)
        line = (
            f"transferred {tensors}/{all_tensors} tensors, {parameters:,}/{all_parameters:,} "
            "parameters"
        )
        for status in (Status.FROZEN, Status.NEW, Status.MISMATCHED, Status.UNUSED):
            tensors, parameters = self.count(status)
            if tensors:
                line += f"; {status.lower()} {tensors} ({parameters:,})"
        return line

    def frozen(self, names: Collection[str]) -> "TransferReport":
        """Returns the report with those of the names frozen that were transferred."""
        entries = (
            replace(e, status=Status.FROZEN) if e.status in COPIED and e.key in names else e
            for e in self.entries
        )
        return TransferReport(tuple(entries))

    def notices(self) -> list[str]:
        """Returns a line for every layer that was skipped, in the familiar words.

        A layer of which the other side knows nothing is named as a whole.
        """
        known = [e.key for e in self.entries if e.source_shape is not None]
        wanted = [e.key for e in self.entries if e.status is not Status.UNUSED]
        lines = [
            f"Skipping layer {name}: not found in {where}"
            for status, others, where in (
                (Status.NEW, known, "checkpoint"),
                (Status.UNUSED, wanted, "network"),
            )
            for name in _outermost(self.keys(status), layers(others))
        ]
        return lines + [
            f"Skipping layer {entry.key}: {shape_of([entry])}"
            for entry in self.entries
            if entry.status is Status.MISMATCHED
        ]

    def table(self, depth: int = 3) -> str:
        """Returns a table by module, names cut to ``depth`` parts.

        Mismatched and unused tensors are never summed up: each has a row of its own.
        """
        groups: dict[tuple[str, Status], list[Entry]] = defaultdict(list)
        for entry in self.entries:
            single = entry.status in (Status.MISMATCHED, Status.UNUSED)
            name = entry.key if single else ".".join(entry.key.split(".")[:depth])
            groups[name, entry.status].append(entry)
        rows = [
            [name, status.value, shape_of(entries), f"{sum(e.num_parameters for e in entries):,}"]
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


def _outermost(names: Iterable[str], others: Collection[str]) -> list[str]:
    """Returns the shortest leading parts of the names that are not among the others."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        prefixes = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
        found[next((p for p in prefixes if p not in others), name)] = None
    return list(found)


def shape_of(entries: list[Entry]) -> str:
    """Returns the shape of one tensor, or the number of several."""
    if len(entries) > 1:
        return f"{len(entries)} tensors"
    entry = entries[0]
    if entry.status is Status.MISMATCHED:
        return f"{times(entry.source_shape or ())} -> {times(entry.shape)}"
    return times(entry.shape)


def times(shape: Iterable[int]) -> str:
    """Returns a shape as text, as in ``16x8``."""
    return "x".join(str(n) for n in shape) or "scalar"
