"""The user's own networks on a ladder."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from multigrid.errors import UserError
from multigrid.grid import Grid, Hierarchy
from multigrid.models.cost import count_parameters, run_without_data
from multigrid.models.growth import NetworkFamily
from multigrid.models.transfer import tensors_of
from multigrid.tables import si, table

NetworkFactory = Callable[[Grid], nn.Module]


class CustomFamily(NetworkFamily):
    """Networks from a factory of the user's.

    Each maps ``[N, in, *grid]`` to ``[N, out, *grid]``. Weights are transferred by name and shape.
    Where order matters, it is that in which the network's children were registered, inmost first.

    Args:
        factory: Called with the grid of a level; weights are drawn under the seed.
        hierarchy: Grids of levels and scales.
        in_channels: Number of input fields.
        out_channels: Number of output fields.
        seed: Seed of the initialisation.

    Raises:
        UserError: If what the factory gives is not a module, or maps fields to another shape.
    """

    kind = "custom network"

    def __init__(
        self,
        factory: NetworkFactory,
        hierarchy: Hierarchy,
        in_channels: int,
        out_channels: int,
        seed: int = 0,
    ) -> None:
        super().__init__(hierarchy, in_channels, out_channels, seed)
        self.factory = factory
        self._children: list[str] = []
        for level in range(len(hierarchy.levels)):
            self._check(level)

    def __str__(self) -> str:
        rows = []
        for level, grid in enumerate(self.hierarchy.levels):
            network = self.blueprint(level)
            flops = self.flops(level).forward
            cells = (level, grid, f"{count_parameters(network):,}", si(flops))
            rows.append([str(cell) for cell in cells])
        return table(["Level", "Grid", "Parameters", "FLOPs/sample"], rows)

    def build(self, level: int) -> nn.Module:
        """Returns the factory's network for a level's grid, in training mode.

        Raises:
            UserError: If the factory returns something else.
        """
        sequence = np.random.SeedSequence(self.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(sequence.generate_state(1)[0]))
            network = self.factory(self.hierarchy.levels[level])
        if not isinstance(network, nn.Module):
            raise UserError(
                f"network: the factory must return a torch.nn.Module, not {type(network).__name__}"
            )
        return network

    def group_of(self, name: str) -> int:
        """Returns the number of the child that a tensor belongs to."""
        return self._children.index(name.split(".")[0])

    def _check(self, level: int) -> None:
        network, grid = self.build(level), self.hierarchy.levels[level]
        for name in tensors_of(network):
            child = name.split(".")[0]
            if child not in self._children:
                self._children.append(child)
        shape = (2, self.in_channels, *grid.shape)
        try:
            shape_given = tuple(run_without_data(network, shape).shape)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = str(error).split("\n")[0]
            raise UserError(
                f"network: on the {grid} grid it cannot take inputs of shape {list(shape)}: "
                f"{reason}"
            ) from None
        expected = (2, self.out_channels, *grid.shape)
        if shape_given != expected:
            raise UserError(
                f"network: on the {grid} grid it gives {list(shape_given)} for inputs "
                f"{list(shape)}; it must give {list(expected)}"
            )
