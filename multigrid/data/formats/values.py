"""Checks of the values of a file: range, NaN and infinite values, constant channels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multigrid.errors import UserError

NUM_NAMED = 5


class FieldValues:
    """The range of finite values of each channel of the inputs or of the outputs."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.low, self.high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
        self.bad: dict[int, int] = {}  # how many NaN and infinite values a sample has

    def add(self, indices: np.ndarray, fields: np.ndarray) -> None:
        """Looks at samples ``[n, channels, *grid]``."""
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


class ValueCheck:
    """What has been seen of a file."""

    def __init__(self, path: Path, input_names: Sequence[str], output_names: Sequence[str]) -> None:
        self.path = path
        self.inputs, self.outputs = FieldValues(input_names), FieldValues(output_names)
        self._sides = ("input", self.inputs), ("output", self.outputs)

    def add(self, indices: np.ndarray, inputs: np.ndarray, outputs: np.ndarray) -> None:
        """Looks at samples; ``indices`` are their numbers in the file."""
        self.inputs.add(indices, inputs)
        self.outputs.add(indices, outputs)

    def require_finite(self) -> None:
        """Raises a UserError if NaN or infinite values have been seen."""
        for kind, fields in self._sides:
            if fields.bad:
                raise UserError(
                    f"{self.path}: the {kind} holds {sum(fields.bad.values())} NaN or infinite "
                    f"values as float32, in {name_samples(sorted(fields.bad))}"
                )

    def require_variation(self) -> None:
        """Raises a UserError if a channel has had one value everywhere."""
        for kind, fields in self._sides:
            for name, low, high in zip(fields.names, fields.low, fields.high, strict=True):
                if low == high:
                    raise UserError(
                        f"{self.path}: the {kind} channel '{name}' is constant, {low:g} in all "
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
