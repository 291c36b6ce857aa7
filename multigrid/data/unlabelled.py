"""Training inputs without solutions, for losses that need none."""

from dataclasses import dataclass

import numpy as np
import torch

from multigrid.data.generation import Recipe
from multigrid.data.samples import Samples
from multigrid.grid import Grid
from multigrid.problems import PDE


@dataclass(frozen=True)
class UnlabelledSplit:
    """The first inputs of a split, drawn when they are asked for; nothing is solved or stored.

    They are the inputs that the solved samples of the same split have. In place of the solutions
    stand the problem's initial outputs, so that statistics of the outputs can be taken as if there
    were solutions.

    Attributes:
        problem: What to draw inputs of.
        recipe: Gives each sample its random numbers, and the grid.
        split: ``train``, ``validation`` or ``test``.
        count: Number of samples.
    """

    problem: PDE
    recipe: Recipe
    split: str
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def grid(self) -> Grid:
        """The grid of the inputs."""
        return self.recipe.grid

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""
        return self.problem.num_channels

    def load(self, indices: np.ndarray) -> Samples:
        """Draws inputs, in any order, one by one: rounding may differ between samples at once."""
        inputs = torch.empty(len(indices), self.num_channels[0], *self.grid.shape)
        for place, index in zip(inputs, indices.tolist(), strict=True):
            drawn = self.problem.draw_inputs(self.grid, self.recipe.rngs(self.split, [index]))
            place.copy_(torch.from_numpy(drawn[0]))
        outputs = torch.from_numpy(self.problem.initial_outputs(self.grid).copy()).float()
        return Samples(inputs, outputs.expand(len(indices), *outputs.shape), self.grid)
