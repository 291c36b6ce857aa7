"""Pairs of input and output fields that stay on disk and are read batch by batch."""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from multigrid.data.samples import Samples, block_size
from multigrid.grid import Grid

CPU = torch.device("cpu")


class StoredSamples(Protocol):
    """Samples on disk, by number."""

    @property
    def grid(self) -> Grid:
        """Their grid."""

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""

    def __len__(self) -> int: ...

    def load(self, indices: np.ndarray) -> Samples:
        """Reads samples, in any order, into memory.

        Raises:
            UserError: If the file is missing or damaged.
        """


@dataclass(frozen=True)
class StreamedSamples:
    """Samples that are read when they are asked for, restricted to a grid, and not kept.

    What is read does not depend on how it is asked for: indexing gives the same bits as indexing
    the same samples held in memory.

    Attributes:
        stored: The samples on disk.
        grid: The grid to restrict them to, of the same hierarchy.
        device: Where to put what is read.
    """

    stored: StoredSamples
    grid: Grid
    device: torch.device = CPU

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: slice | Tensor) -> Samples:
        numbers = torch.arange(len(self))[index].numpy()
        inputs, outputs = (
            torch.empty(len(numbers), channels, *self.grid.shape)
            for channels in self.stored.num_channels
        )
        size = block_size(self.stored.grid)
        for start in range(0, len(numbers), size):
            part = slice(start, start + size)
            samples = self.stored.load(numbers[part]).restrict_to(self.grid)
            inputs[part], outputs[part] = samples.inputs, samples.outputs
        return Samples(inputs, outputs, self.grid).to(self.device)

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""
        return self.stored.num_channels

    def to(self, device: torch.device) -> "StreamedSamples":
        """Returns the samples, to be put on a device when they are read."""
        return replace(self, device=device)

    def split(self, size: int) -> Iterator[Samples]:
        """Yields the samples in order, at most ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def batches(self, indices: Sequence[Tensor]) -> Generator[Samples]:
        """Yields a batch for each of some index tensors; a thread reads the next one meanwhile.

        Closing the generator ends the thread.

        Raises:
            UserError: If the file is missing or damaged.
        """
        with ThreadPoolExecutor(1, "samples") as reader:
            coming = reader.submit(self.__getitem__, indices[0])
            for index in indices[1:]:
                batch = coming.result()
                coming = reader.submit(self.__getitem__, index)
                yield batch
            yield coming.result()


TrainingSamples = Samples | StreamedSamples
