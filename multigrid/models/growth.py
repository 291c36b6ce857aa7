"""The resolution-parametric factory: one network for every level of a ladder."""

from collections.abc import Collection, Sequence

import numpy as np
import torch

from multigrid.grid import Hierarchy
from multigrid.models.cost import Flops, count_flops, count_parameters
from multigrid.models.layers import Bottleneck, Normalization, Padding, channels_last
from multigrid.models.unet import Form, UNet, silence
from multigrid.tables import si, table


class UNetFamily:
    """Builds the network of any level of a hierarchy.

    Every scale is initialised from the seed and its own number alone, so the same scale starts
    with the same weights in a network of any size, whatever was built before.

    Args:
        hierarchy: Grids of levels and scales.
        widths: Number of channels of each scale, coarsest first.
        in_channels: Number of input fields.
        out_channels: Number of output fields.
        form: ``pyramid`` or ``classic``.
        num_blocks: Residual blocks per encoder and per decoder of a scale.
        padding: What lies outside the grid for the convolutions.
        norm: Normalisation layer in front of each convolution of a block.
        prolongation: Polynomial degree of the prolongation of outputs.
        bottleneck: ``conv``, ``dense`` or ``attention``.
        growth: Whether finer levels have more scales; otherwise the network of level 0 is used on
            every grid.
        seed: Seed of the initialisation.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        widths: Sequence[int],
        in_channels: int,
        out_channels: int,
        form: Form = "pyramid",
        num_blocks: int = 1,
        padding: Padding = "zeros",
        norm: Normalization = "none",
        prolongation: int = 4,
        bottleneck: Bottleneck = "conv",
        growth: bool = True,
        seed: int = 0,
    ) -> None:
        self.hierarchy = hierarchy
        self.widths = tuple(widths)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.form = form
        self.num_blocks = num_blocks
        self.padding = padding
        self.norm = norm
        self.prolongation = prolongation
        self.bottleneck = bottleneck
        self.growth = growth
        self.seed = seed
        self.kind = f"{form} UNet"
        self._blueprints: dict[int, UNet] = {}

    def __str__(self) -> str:
        rows = []
        for level, grid in enumerate(self.hierarchy.levels):
            network = self.blueprint(level)
            flops = self.flops(level).forward
            width, parameters = network.widths[-1], count_parameters(network)
            cells = (level, grid, len(network.grids), width, f"{parameters:,}", si(flops))
            rows.append([str(cell) for cell in cells])
        return table(["Level", "Grid", "Scales", "Width", "Parameters", "FLOPs/sample"], rows)

    def build(self, level: int) -> UNet:
        """Returns the network of a level with its initial weights."""
        return initialized(self._plan(level), self.seed)

    def blueprint(self, level: int) -> UNet:
        """Returns the network of a level on the meta device, to be looked at: shapes alone."""
        if level not in self._blueprints:
            self._blueprints[level] = self._plan(level)
        return self._blueprints[level]

    def _plan(self, level: int) -> UNet:
        top = self.hierarchy.tops[level]
        bottom = 0 if self.growth else top - self.hierarchy.tops[0]
        grids = self.hierarchy.scales[bottom : top + 1]
        with torch.device("meta"):
            return UNet(
                grids,
                self.widths[: len(grids)],
                self.in_channels,
                self.out_channels,
                form=self.form,
                num_blocks=self.num_blocks,
                padding=self.padding,
                norm=self.norm,
                prolongation=self.prolongation,
                bottleneck=self.bottleneck,
            )

    def flops(self, level: int) -> Flops:
        """Returns what the network of a level costs for one sample."""
        shape = (1, self.in_channels, *self.hierarchy.levels[level].shape)
        return count_flops(self.blueprint(level), shape)

    def build_grown(self, level: int, known: Collection[str]) -> UNet:
        """Returns the network of a level, ready to take over weights.

        In the pyramid form the scales above those that will be taken over are silent, so that the
        network will compute the prolonged output of the coarser ones. In the classic form they
        are fresh.

        Args:
            level: The level.
            known: Names of the tensors that will be taken over.
        """
        unet = self.build(level)
        first = 1 + max((self.group_of(name) for name in known), default=len(unet.grids))
        if self.form == "pyramid":
            silence(unet, first)
        return unet

    def group_of(self, name: str) -> int:
        """Returns the scale that a tensor belongs to, counted from the bottleneck."""
        return int(name.split(".")[1])

    def level_of(self, name: str) -> int | None:
        """Returns the level with which the scale of a tensor comes in."""
        if not self.growth:
            return 0
        scale = self.group_of(name)
        return next(level for level, top in enumerate(self.hierarchy.tops) if scale <= top)


def initialized(blueprint: UNet, seed: int) -> UNet:
    """Gives a network on the meta device its initial weights, on the CPU."""
    unet = blueprint.to_empty(device="cpu")
    for k, scale in enumerate(unet.iter_scales()):
        _initialize(scale, np.random.SeedSequence(seed, spawn_key=(k,)))
    for parameter in unet.parameters():
        parameter.data = channels_last(parameter.data)
    return unet


def _initialize(module: torch.nn.Module, seed: np.random.SeedSequence) -> None:
    """Runs the layers' own initialisation under a seed of ours."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed.generate_state(1)[0]))
        for layer in module.modules():
            reset = getattr(layer, "reset_parameters", getattr(layer, "_reset_parameters", None))
            if callable(reset):
                reset()
