"""The networks of a ladder, one for every level, and how new scales start: UNets or a user's."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from multigrid.errors import UserError
from multigrid.grid import Grid, Hierarchy
from multigrid.models.cost import Flops, count_flops, count_parameters, run_without_data
from multigrid.models.layers import channels_last, folding_factors
from multigrid.models.transfer import tensors_of
from multigrid.models.unet import UNet
from multigrid.tables import si, table

Fields = Literal["restricted", "folded"]

MAX_CHANNELS = 4096
"""The most channels that folded fields may have."""


class NetworkFamily(ABC):
    """Builds the network of any level of a hierarchy.

    Names in the networks' state dictionaries must mean the same on all levels, as weights are
    transferred by name. ``kind`` says what the networks are, for the log.
    """

    kind: str

    def __init__(
        self, hierarchy: Hierarchy, in_channels: int, out_channels: int, seed: int = 0
    ) -> None:
        self.hierarchy = hierarchy
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.seed = seed
        self._flops: dict[int, Flops] = {}

    def __str__(self) -> str:
        rows = []
        for level, grid in enumerate(self.hierarchy.levels):
            network = self.blueprint(level)
            size: list[object] = []
            if isinstance(network, UNet):
                size = [len(network.grids), network.widths[-1]]
            counts = f"{count_parameters(network):,}", si(self.flops(level).forward)
            rows.append([str(cell) for cell in (level, grid, *size, *counts)])
        header = ["Level", "Grid", "Scales", "Width", "Parameters", "FLOPs/sample"]
        return table(header if len(rows[0]) == len(header) else header[:2] + header[4:], rows)

    @abstractmethod
    def build(self, level: int) -> nn.Module:
        """Returns the network of a level with its initial weights, on the CPU."""

    @abstractmethod
    def group_of(self, name: str) -> int:
        """Returns the scale or module that a tensor belongs to, counted outwards."""

    def blueprint(self, level: int) -> nn.Module:
        """Returns the network of a level, of which only shapes are used."""
        return self.build(level)

    def input_grid(self, level: int) -> Grid:
        """Returns the grid of the fields that the network of a level takes and gives."""
        return self.hierarchy.levels[level]

    def flops(self, level: int) -> Flops:
        """Returns what the network of a level costs for one sample; counted once."""
        if level not in self._flops:
            shape = (1, self.in_channels, *self.input_grid(level).shape)
            self._flops[level] = count_flops(self.blueprint(level), shape)
        return self._flops[level]

    def prepare_new(
        self, network: nn.Module, transferred: Collection[str], copy: bool = False
    ) -> dict[str, bool]:
        """Prepares what is new in a network that has just taken over weights.

        Returns by name what was to be a ``copy`` of something else, and whether it is one.
        """
        return {}


class UNetFamily(NetworkFamily):
    """The UNets of a hierarchy, with the channels ``widths`` of each scale, coarsest first.

    Every scale is initialised from the seed and its own number alone, so the same scale starts
    with the same weights in a network of any size, whatever was built before.

    Args:
        growth: Whether finer levels have more scales; otherwise the network of level 0 is used on
            every grid.
        fields: ``restricted``: a level's network takes fields on its grid; ``folded``: all take
            those of the finest, folded onto the grids of the levels.
        options: Further arguments of :class:`UNet`, such as ``form`` and ``padding``.

    Raises:
        UserError: If folding gives level 0 more channels than 4096.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        widths: Sequence[int],
        in_channels: int,
        out_channels: int,
        *,
        growth: bool = True,
        fields: Fields = "restricted",
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(hierarchy, in_channels, out_channels, seed)
        self.widths = tuple(widths)
        self.growth = growth
        self.fields = fields
        self.options = options
        self.kind = f"{options.get('form', 'pyramid')} UNet"
        if fields == "folded":
            self._check_folding()

    def build(self, level: int) -> UNet:  # noqa: D102
        with seeded(self.seed):
            return initialize(self._unet(level), self.seed)

    def blueprint(self, level: int) -> UNet:
        """Returns the network of a level on the meta device: shapes alone."""
        with torch.device("meta"):
            return self._unet(level)

    def _unet(self, level: int) -> UNet:
        top = self.hierarchy.tops[level]
        bottom = 0 if self.growth else top - self.hierarchy.tops[0]
        grids = self.hierarchy.scales[bottom : top + 1]
        return UNet(
            grids,
            self.widths[: len(grids)],
            self.in_channels,
            self.out_channels,
            field_grid=self.input_grid(level),
            first_folded=self.hierarchy.tops[0] if self.fields == "folded" else None,
            **self.options,
        )

    def input_grid(self, level: int) -> Grid:  # noqa: D102
        return self.hierarchy.finest if self.fields == "folded" else self.hierarchy.levels[level]

    def prepare_new(
        self, network: nn.Module, transferred: Collection[str], copy: bool = False
    ) -> dict[str, bool]:
        """Silences the scales above those that a network has taken over, in the pyramid form."""
        assert isinstance(network, UNet)
        if not transferred:
            return {}
        first = 1 + max(map(self.group_of, transferred))
        copies = copy_neighbours(network, first) if copy else {}
        if network.form == "pyramid":
            silence(network, first)
        return copies

    def _check_folding(self) -> None:
        levels, finest = self.hierarchy.levels, self.hierarchy.finest
        channels = max(self.in_channels, self.out_channels)
        counts = [channels * prod(folding_factors(finest, grid)) for grid in levels]
        if counts[0] > MAX_CHANNELS:
            first = next(grid for grid, n in zip(levels, counts, strict=True) if n <= MAX_CHANNELS)
            raise UserError(
                f"model.fields: 'folded' gives level 0, {levels[0]}, {counts[0]} channels for the "
                f"fields of {finest}; at most {MAX_CHANNELS} are allowed, so start with {first}"
            )

    def group_of(self, name: str) -> int:
        """Returns the scale that a tensor belongs to, counted from the bottleneck."""
        return int(name.split(".")[1])


def silence(unet: UNet, first: int) -> None:
    """Makes scales ``first`` and above silent, so that the network starts as its coarse part.

    With the transition down into the old network and the new head's projection at zero, a pyramid
    computes exactly ``P F(R x)``, F being the network on the scales below ``first``.
    """
    for scale in unet.iter_scales()[first:]:
        assert scale.down is not None
        assert scale.head is not None
        for parameter in (*scale.down.parameters(), *scale.head.project.parameters()):
            nn.init.zeros_(parameter)


def copy_neighbours(unet: UNet, first: int) -> dict[str, bool]:
    """Copies encoder, decoder and ``up`` of the coarser scale to each from ``first`` on.

    Returns their names, and whether they are copies: not those of another shape.
    """
    copies: dict[str, bool] = {}
    for number, (coarser, scale) in enumerate(pairwise(unet.iter_scales()[first - 1 :]), first):
        for part in ("encoder", "decoder", "up"):
            source, target = getattr(coarser, part), getattr(scale, part)
            fits = source is not None and _shapes(source) == _shapes(target)
            if fits:
                target.load_state_dict(source.state_dict())
            copies[f"scales.{number}.{part}"] = fits
    return copies


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors_of(module).items()}


def initialize(unet: UNet, seed: int) -> UNet:
    """Draws the weights of all layers anew, so that a scale's depend on seed and scale alone.

    What layers of the user's own initialise themselves, in their constructors, stays.
    """
    for k, scale in enumerate(unet.iter_scales()):
        with seeded(seed, k):
            for layer in scale.modules():
                reset = getattr(layer, "reset_parameters", None)
                if callable(reset):
                    reset()
    for parameter in unet.parameters():
        parameter.data = channels_last(parameter.data)
    return unet


@contextmanager
def seeded(seed: int, *key: int) -> Iterator[None]:
    """Makes torch draw by a seed and a key alone within the context."""
    with torch.random.fork_rng(devices=[]):
        sequence = np.random.SeedSequence(seed, spawn_key=key)
        torch.manual_seed(int(sequence.generate_state(1)[0]))
        yield


NetworkFactory = Callable[[Grid], nn.Module]


class CustomFamily(NetworkFamily):
    """Networks from a factory of the user's.

    Each maps ``[N, in, *grid]`` to ``[N, out, *grid]``. Weights are transferred by name and shape.
    Where order matters, it is that in which the network's children were registered, inmost first.
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

    def build(self, level: int) -> nn.Module:
        """Returns the factory's network for a level's grid, in training mode."""
        with seeded(self.seed):
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
        children = [name.split(".")[0] for name in tensors_of(network)]
        self._children = list(dict.fromkeys([*self._children, *children]))
        shape = (2, self.in_channels, *grid.shape)
        try:
            shape_given = tuple(run_without_data(network, shape).shape)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise UserError(
                f"network: on the {grid} grid it cannot take inputs of shape {list(shape)}: "
                + str(error).split("\n")[0]
            ) from None
        expected = (2, self.out_channels, *grid.shape)
        if shape_given != expected:
            raise UserError(
                f"network: on the {grid} grid it gives {list(shape_given)} for inputs "
                f"{list(shape)}; it must give {list(expected)}"
            )
