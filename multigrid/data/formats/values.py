"""Checks of the values of a file: range, NaN and infinite values, constant channels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multigrid.errors import UserError

NUM_NAMED = 5


class ValueCheck:
    """What has been seen of the values of a file's inputs, or outputs.

    Attributes:
        low: Lowest finite value of each channel, as ``high`` is the highest.
        bad: How many NaN and infinite values a sample has, by its number in the file.
    """

    def __init__(self, path: Path, kind: str, names: Sequence[str]) -> None:
        self.path, self.kind, self.names = path, kind, names
        self.low, self.high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
        self.bad: dict[int, int] = {}

    def add(self, indices: np.ndarray, fields: np.ndarray) -> None:
        """Looks at samples ``[n, channels, *grid]``; ``indices`` are their numbers in the file."""
        axes = tuple(range(2, fields.ndim))
        low, high = fields.min(axes), fields.max(axes)
        # minimum and maximum hand NaN and infinite values on, so one look at them is enough
        damaged = ~(np.isfinite(low) & np.isfinite(high)).all(axis=1)
        if damaged.any():
            finite = np.isfinite(fields)
            counts = (~finite).sum(axis=(1, *axes))
            self.bad.update((int(indices[i]), int(counts[i])) for i in np.flatnonzero(damaged))
            low = np.where(finite, fields, np.inf).min(axes)
            high = np.where(finite, fields, -np.inf).max(axes)
        self.low = np.minimum(self.low, low.min(axis=0, initial=np.inf))
        self.high = np.maximum(self.high, high.max(axis=0, initial=-np.inf))

    def require_finite(self) -> None:
        """Raises a UserError if NaN or infinite values have been seen."""
        if self.bad:
            raise UserError(
                f"{self.path}: the {self.kind} holds {sum(self.bad.values())} NaN or infinite "
                f"values as float32, in {name_samples(sorted(self.bad))}"
            )

    def require_variation(self) -> None:
        """Raises a UserError if a channel has had one value everywhere."""
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if low == high:
                raise UserError(
                    f"{self.path}: the {self.kind} channel '{name}' is constant, {low:g} in all "
                    "training samples; there is nothing to learn from it"
                )


def name_samples(indices: Sequence[int]) -> str:
    """Returns ``"samples 3, 7 and 9"``, or the first few and the number of the others."""
    named = [str(index) for index in indices[:NUM_NAMED]]
    if len(indices) == 1:
        return f"sample {named[0]}"
    more = len(indices) - len(named)
    last = f"{more} more" if more else named.pop()
    return f"samples {', '.join(named)} and {last}"
