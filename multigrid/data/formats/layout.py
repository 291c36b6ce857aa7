"""Which axes of an array are samples, channels and space."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multigrid.errors import UserError

SPACE_DIMENSIONS = (2, 3)


@dataclass(frozen=True)
class Layout:
    """The axes of an array whose first axis counts samples.

    Attributes:
        channel_axis: 1, -1, or None for a single channel without an axis of its own.
    """

    channel_axis: int | None

    def grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the space axes of a shape ``[N, ...]``."""
        return {None: shape[1:], 1: shape[2:], -1: shape[1:-1]}[self.channel_axis]

    def num_channels(self, shape: tuple[int, ...]) -> int:
        """Returns the number of channels of a shape ``[N, ...]``."""
        return 1 if self.channel_axis is None else shape[self.channel_axis]

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Returns an array ``[N, ...]`` as ``[N, channels, *grid]``."""
        if self.channel_axis is None:
            return array[:, None]
        return np.moveaxis(array, self.channel_axis, 1)


LAYOUTS = (Layout(None), Layout(1), Layout(-1))


def choose_layouts(
    path: Path, inputs: tuple[int, ...], outputs: tuple[int, ...], ndim: int | None
) -> tuple[Layout, Layout]:
    """Finds the layouts of an input and an output array with the same grid.

    Of all pairs that agree the one whose shortest space axis is longest is taken, as channels
    are fewer than points; among equals the one with fewer channel axes, then channels first.

    Args:
        path: The file, for messages.
        inputs: Shape ``[N, ...]`` of the input array.
        outputs: Shape ``[N, ...]`` of the output array.
        ndim: Number of space dimensions, if known.

    Raises:
        UserError: If the numbers of samples differ, or no layout gives both the same grid.
    """
    if not inputs or not outputs or inputs[0] != outputs[0]:
        raise UserError(
            f"{path}: input {list(inputs)} and output {list(outputs)} must have the same number "
            "of samples along their first axis"
        )
    allowed = SPACE_DIMENSIONS if ndim is None else (ndim,)
    pairs = [
        (first, second)
        for first in LAYOUTS
        for second in LAYOUTS
        if len(first.grid(inputs)) in allowed and first.grid(inputs) == second.grid(outputs)
    ]
    if not pairs:
        wanted = " or ".join(f"{n}-D" for n in allowed)
        raise UserError(
            f"{path}: the shapes of input {list(inputs)} and output {list(outputs)} disagree: no "
            f"choice of a channel axis gives both the same {wanted} grid"
        )
    return max(pairs, key=lambda pair: min(pair[0].grid(inputs)))
