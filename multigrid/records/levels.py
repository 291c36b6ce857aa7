"""What the result files say about each level: its network, and the spectrum of its error."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np

from multigrid.records.history import Row

SCALE_KEY = re.compile(r"^scales\.(\d+)\.(\w+)\.")
COPIED = ("TRANSFERRED", "FROZEN")
Name = TypeVar("Name")


@dataclass(frozen=True)
class LevelSpectrum:
    """The error of one level by wavelength.

    Attributes:
        level: The level.
        grid: Its grid.
        error: Root mean square error of its predictions, prolonged to the finest grid, by their
            number of half-waves across the box.
    """

    level: int
    grid: tuple[int, ...]
    error: Sequence[float]


@dataclass(frozen=True)
class LevelParts:
    """The network of one level on entering it.

    Attributes:
        level: The level.
        grid: Its grid.
        scale_grids: Grids of the scales of its network, coarsest first.
        tensors: The records of ``transfer.json``: key, status, shape.
    """

    level: int
    grid: str
    scale_grids: Sequence[str]
    tensors: Sequence[Mapping[str, Any]]

    def count(self, *statuses: str) -> int:
        """Returns the number of parameters with one of the statuses."""
        return sum(prod(t["shape"]) for t in self.tensors if t["status"] in statuses)

    def parts(self) -> dict[tuple[int, str], str]:
        """Returns whether each part of each scale is new; nothing for a network of other names."""

        def part(key: str) -> tuple[int, str] | None:
            match = SCALE_KEY.match(key)
            return (int(match[1]), match[2]) if match else None

        return self._looks(part)

    def modules(self) -> dict[str, str]:
        """Returns whether each module is new, by the first two parts of the tensors' names."""
        return self._looks(lambda key: ".".join(key.split(".")[:-1][:2]) or key)

    def _looks(self, name_of: Callable[[str], Name | None]) -> dict[Name, str]:
        copied: dict[Name, set[bool]] = defaultdict(set)
        for tensor in self.tensors:
            name = name_of(tensor["key"])
            if name is not None and tensor["status"] != "UNUSED":
                copied[name].add(tensor["status"] in COPIED)
        words = {True: "transferred", False: "new"}
        return {n: "mixed" if len(c) > 1 else words[next(iter(c))] for n, c in copied.items()}


def epochs_so_far(rows: Sequence[Row]) -> list[int]:
    """Returns the number of epochs trained at each row, all stages counted."""
    starts = np.cumsum([row.epoch == 0 for row in rows])
    return [int(n) for n in np.arange(len(rows)) - starts + 1]
