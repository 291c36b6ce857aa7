"""Some samples of a file on disk."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from multigrid.data.formats import FieldFile
from multigrid.data.formats.survey import Survey
from multigrid.data.samples import Samples
from multigrid.grid import Grid


@dataclass(frozen=True)
class FilePart:
    """Some samples of a file, on disk.

    Attributes:
        file: The file.
        numbers: Their numbers in it, in the order of their use.
        grid: The file's grid.
    """

    file: FieldFile
    numbers: np.ndarray
    grid: Grid

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""
        return self.file.describe().num_channels

    def load(self, indices: np.ndarray) -> Samples:
        """Reads samples, in any order, without looking at their values.

        Raises:
            UserError: If the file is damaged.
        """
        order = np.argsort(self.numbers[indices])  # as they lie in the file
        fields = self.file.fetch(self.numbers[indices[order]])
        inputs, outputs = (torch.from_numpy(values[np.argsort(order)]) for values in fields)
        return Samples(inputs, outputs, self.grid)

    def survey(self, split: str) -> Iterator[tuple[np.ndarray, Samples]]:
        """Yields all samples with their indices block by block, in the order of the file.

        Raises:
            UserError: At the end, if values are NaN or infinite, or a channel of the training
                samples is constant.
        """
        described = self.file.describe()
        survey = Survey(self.file.path, described.input_names, described.output_names)
        order = np.argsort(self.numbers)
        for block in self.file.blocks(order):
            samples = self.load(order[block])
            survey.add(self.numbers[order[block]], samples.inputs.numpy(), samples.outputs.numpy())
            yield order[block], samples
        survey.require_finite()
        if split == "train":
            survey.require_variation()
