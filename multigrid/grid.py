"""Structured grids on the unit box and the hierarchies they form."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np

from multigrid.errors import UserError

Centering = Literal["cell", "node", "closed", "open"]


@dataclass(frozen=True)
class Grid:
    """A uniform grid on the unit box, in any number of dimensions.

    Attributes:
        shape: Number of points along each axis.
        centering: Where the points lie. ``cell``: at the centres ``(i + 1/2) / n`` of n equal
            cells. ``closed``: at nodes ``i h`` with both boundary points, ``h = 1 / (n - 1)``.
            ``open``: at nodes without the right one, ``h = 1 / n``, as for periodic data.
            ``node``: closed along axes with an odd n, open along others.
        spacing: Distance h between neighbouring points along each axis.
    """

    shape: tuple[int, ...]
    centering: Centering = "cell"
    spacing: tuple[float, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.spacing:
            closed = {"closed": (0, 1), "node": (1,)}.get(self.centering, ())
            spacing = tuple(1 / (n - 1 if n % 2 in closed else n) for n in self.shape)
            object.__setattr__(self, "spacing", spacing)

    def __str__(self) -> str:
        return "x".join(str(n) for n in self.shape)

    @cached_property
    def ndim(self) -> int:
        """Number of space dimensions."""
        return len(self.shape)

    @cached_property
    def size(self) -> int:
        """Number of points."""
        return math.prod(self.shape)

    def axes(self) -> tuple[np.ndarray, ...]:
        """Coordinates of the points along each axis."""
        offset = 0.5 if self.centering == "cell" else 0.0
        return tuple(
            (np.arange(n) + offset) * h for n, h in zip(self.shape, self.spacing, strict=True)
        )

    @property
    def is_open(self) -> bool:
        """Whether the points can be continued periodically: no axis has both its ends."""
        return all(map(self.is_open_along, range(self.ndim)))

    def is_open_along(self, axis: int) -> bool:
        """Whether an axis has not both its ends."""
        return self.centering == "cell" or round(1 / self.spacing[axis]) == self.shape[axis]

    def is_symmetric(self, axis: int) -> bool:
        """Whether mirroring an axis of the box maps the points onto each other."""
        last = (self.shape[axis] - 1) * self.spacing[axis]
        return self.centering == "cell" or abs(last - 1) < 1e-9

    @property
    def num_sines(self) -> tuple[int, ...]:
        """Number of modes ``sin(pi k x)``, k = 1, 2, ..., that the points of each axis tell apart.

        0 if the points end elsewhere than at the boundary of the box or one spacing before it.
        """
        intervals = [1 / h for h in self.spacing]
        ends = self.centering != "cell"
        return tuple(round(m) - ends if abs(m - round(m)) < 1e-6 else 0 for m in intervals)

    @cached_property
    def halves(self) -> bool:
        """Whether every axis can be halved, and keeps at least two points."""
        padded = self.centering == "cell" and any(n % 2 for n in self.shape)
        return min(self.shape) >= 3 and not padded

    def coarsen(self) -> "Grid":
        """Returns the next coarser grid.

        Two cells become one, and the last of an odd number one that is half outside of the box,
        where its value is repeated. Of the nodes every second is kept, ``i -> 2 i``.

        Raises:
            UserError: If an axis would become too small.
        """
        return self._coarser

    @cached_property
    def _coarser(self) -> "Grid":
        if min(self.shape) < 3:
            raise UserError(f"a {self} grid cannot be halved")
        shape = tuple((n + 1) // 2 for n in self.shape)
        return Grid(shape, self.centering, tuple(2 * h for h in self.spacing))

    def halvings(self, padded: bool = False, smallest: int = 4) -> "list[Grid]":
        """Returns the grids that this one is halved to, the next coarser one first.

        Odd numbers of cells are halved only where they may be ``padded``, and no axis to fewer
        points than ``smallest``, which is at least 2.
        """
        grid, coarser = self, list[Grid]()
        while (padded or grid.halves) and (min(grid.shape) + 1) // 2 >= smallest:
            grid = grid.coarsen()
            coarser.append(grid)
        return coarser


def guess_centering(shape: Sequence[int]) -> Centering:
    """Returns where the points of a grid of some sizes may lie: at nodes if one is odd."""
    return "node" if any(n % 2 for n in shape) else "cell"


def halvings_between(coarse: Grid, fine: Grid, padded: bool = False) -> int | None:
    """Returns how often ``fine`` must be halved to give the shape of ``coarse``, or None."""
    chain = [(grid.shape, grid.centering) for grid in (fine, *fine.halvings(padded, 2))]
    place = coarse.shape, coarse.centering
    return chain.index(place) if place in chain else None


def refinements(coarse: Grid, num_halvings: int = 1) -> list[Grid]:
    """Returns the grids of equal parity on all axes whose halvings give ``coarse``."""
    shapes = [coarse.shape]
    for _ in range(num_halvings):
        doubled = [tuple(2 * n for n in shape) for shape in shapes]
        nodes = [tuple(2 * n - 1 for n in shape) for shape in shapes]
        shapes = doubled if coarse.centering == "cell" else doubled + nodes
    return [Grid(shape, coarse.centering) for shape in shapes]


@dataclass(frozen=True)
class Hierarchy:
    """The grids of a ladder and, below them, the coarser grids inside the networks.

    A *level* is a grid that is trained on; level 0 is the coarsest. A *scale* is a resolution
    inside the network, counted from the bottleneck; every level is also a scale.

    Attributes:
        scales: Grids of all scales, coarsest first; neighbours differ by one halving.
        tops: For each level the index of its scale, increasing.
    """

    scales: tuple[Grid, ...]
    tops: tuple[int, ...]

    @property
    def levels(self) -> tuple[Grid, ...]:
        """Grids of the levels, coarsest first."""
        return tuple(self.scales[top] for top in self.tops)

    @property
    def finest(self) -> Grid:
        """Grid of the last level."""
        return self.scales[-1]

    @classmethod
    def build(
        cls,
        levels: Sequence[Grid],
        min_size: int = 2,
        depth: int | None = None,
        padded: bool = False,
    ) -> "Hierarchy":
        """Builds the hierarchy of a ladder, all grids by halving the finest.

        ``levels`` are the grids to train on, coarsest first; each halves to the one before. Level 0
        is halved further while its shortest axis stays at or above ``min_size``, or ``depth``
        times. Odd numbers of cells are halved where they may be ``padded``, for networks on folded
        fields: no samples are restricted to such grids.

        Raises:
            UserError: If the levels do not nest, or level 0 cannot be halved ``depth`` times.
        """
        pairs = enumerate(pairwise(levels), start=1)
        steps = [_halvings(coarse, fine, index, padded) for index, (coarse, fine) in pairs]
        scales = [levels[-1], *levels[-1].halvings(padded, 2)][: 1 + sum(steps)]
        inner = _inner_scales(scales[-1], min_size, depth, padded)
        tops = [len(inner) + sum(steps[:level]) for level in range(len(levels))]
        return cls((*inner, *scales[::-1]), tuple(tops))


def _inner_scales(coarsest: Grid, min_size: int, depth: int | None, padded: bool) -> list[Grid]:
    """Returns the scales below level 0, coarsest first."""
    inner = coarsest.halvings(padded, min_size if depth is None else 2)
    if depth is not None and depth > len(inner):
        raise UserError(
            f"model.depth: {depth} scales below the coarsest level {coarsest} are not possible, at "
            f"most {len(inner)} are"
        )
    return inner[:depth][::-1]


def _halvings(coarse: Grid, fine: Grid, index: int, padded: bool) -> int:
    """Returns the number of halvings between two levels."""
    if fine.ndim != coarse.ndim or fine.size <= coarse.size:
        raise UserError(
            f"levels[{index}]: {fine} must be finer than {coarse}, the level before, on all axes"
        )
    count = halvings_between(coarse, fine, padded)
    if count is None:
        ratio = max(f / c for f, c in zip(fine.shape, coarse.shape, strict=True))
        kind = "cell" if fine.centering == "cell" else "node"
        options = " or ".join(map(str, refinements(coarse, max(1, round(np.log2(ratio))))))
        what = f"the nearest size that can is {options}"
        if padded:
            below = ", ".join(map(str, fine.halvings(padded))) or "none"
            what = f"folded levels are half of the next, rounded up: below {fine} these are {below}"
        raise UserError(
            f"levels[{index}]: a {kind}-centred {fine} grid cannot be halved to {coarse}, "
            f"the level before; {what}"
        )
    return count
