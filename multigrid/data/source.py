"""Where samples come from, whatever lies behind."""

from collections.abc import Mapping
from typing import Protocol

from multigrid.data.samples import Samples, StoredSamples, StreamedSamples
from multigrid.data.store import DataStore
from multigrid.data.unlabelled import UnlabelledSplit
from multigrid.grid import Centering, Grid


class SampleSource(Protocol):
    """Samples by split, on the grid of any level."""

    @property
    def fingerprint(self) -> str:
        """Changes when the samples do."""

    @property
    def centering(self) -> Centering:
        """Where the points of all grids lie."""

    @property
    def place(self) -> str:
        """Where the samples lie, for the log."""

    def prepare(self, counts: Mapping[str, int]) -> int:
        """Makes sure that there are enough samples; returns how many had to be made."""

    def read(self, split: str, grid: Grid, count: int) -> Samples:
        """Returns the first samples of a split on a grid, in memory."""

    def open(self, split: str, grid: Grid, count: int) -> StreamedSamples:
        """Returns the first samples of a split on a grid, to be read when they are needed."""


class GeneratedSource:
    """Samples made by a PDE on the finest grid and restricted to the others.

    Those that have been read on the finest grid are kept.

    Args:
        store: Where the samples lie.
        labelled: Whether training samples have solutions; without, they are not even computed.
    """

    def __init__(self, store: DataStore, labelled: bool = True) -> None:
        self.store = store
        self.labelled = labelled
        self._finest: dict[str, Samples] = {}

    @property
    def fingerprint(self) -> str:
        """Hash of everything the samples depend on."""
        return self.store.fingerprint

    @property
    def centering(self) -> Centering:
        """That of the store's grid."""
        return self.store.grid.centering

    @property
    def place(self) -> str:
        """The store's file."""
        return str(self.store.path)

    def prepare(self, counts: Mapping[str, int]) -> int:
        """Generates what is missing."""
        return self.store.ensure(self.wanted(counts), progress=True)

    def wanted(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Returns how many samples of each split are generated: none that need no solution."""
        return dict(counts) if self.labelled else {**counts, "train": 0}

    def read(self, split: str, grid: Grid, count: int) -> Samples:
        """Returns the first samples of a split, restricted to a grid block by block."""
        if len(self._finest.get(split, ())) >= count:
            return self._finest[split][:count].restrict_to(grid)
        samples = self.open(split, grid, count)[:]
        if grid == self.store.grid:
            self._finest[split] = samples
        return samples

    def open(self, split: str, grid: Grid, count: int) -> StreamedSamples:
        """Returns the first samples of a split, restricted to a grid when they are read."""
        return StreamedSamples(self._stored(split, count), grid)

    def _stored(self, split: str, count: int) -> StoredSamples:
        if self.labelled or split != "train":
            return self.store.open(split, count)
        return UnlabelledSplit(self.store.problem, self.store.recipe, split, count)
