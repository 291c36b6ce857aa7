"""Where samples come from: generated ones and files have this in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from multigrid.data.samples import Samples, StreamedSamples
from multigrid.data.time import TimeSetup, Trajectories
from multigrid.grid import Centering, Grid

NUM_TRAJECTORIES = 16
"""The most trajectories to roll out against."""


class SampleSource(ABC):
    """The samples of an experiment, by split, on the grid of any level.

    Attributes:
        place: Where they are kept, for the log.
        centering: Where their points lie.
        time: How one step in time is told by inputs and outputs; None if they are no such step.
    """

    place: str
    centering: Centering
    time: TimeSetup | None

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of all that the samples depend on."""

    @property
    def remarks(self) -> Sequence[str]:
        """What the user must know about how they are read."""
        return ()

    def prepare(self, counts: Mapping[str, int]) -> int:
        """Generates what is missing of so many samples of each split; returns how many."""
        return 0

    def require(self, split: str, grid: Grid, count: int) -> object:
        """Raises a UserError if there are fewer samples; reads none."""
        return None

    @abstractmethod
    def first(self, grid: Grid, count: int) -> Samples:
        """Returns a few validation samples on the finest grid."""

    @abstractmethod
    def read(self, split: str, grid: Grid, count: int) -> Samples:
        """Returns the first samples of a split, restricted to a grid block by block."""

    @abstractmethod
    def open(self, split: str, grid: Grid, count: int) -> StreamedSamples:
        """Returns the first samples of a split, restricted to a grid when they are read."""

    @abstractmethod
    def trajectories(self, split: str, grid: Grid, num_steps: int) -> Trajectories | None:
        """Returns a few trajectories of so many steps; None if there are none to roll out."""

    def unused(self, grid: Grid) -> list[str]:
        """Names the files that are not read if all levels take samples on one grid."""
        return []

    def groups(self, split: str, grid: Grid, count: int) -> Sequence[int] | None:
        """Returns the trajectory of each of the first samples of a split, None if each is alone."""
        return None

    def places(self, split: str, grid: Grid, count: int) -> list[str]:
        """Returns trajectory and step of the first samples of a split, if they have such."""
        return []
