"""What a ladder needs to know of the networks it trains."""

from collections.abc import Collection
from typing import Protocol

from torch import nn

from multigrid.models.cost import Flops


class NetworkFamily(Protocol):
    """Builds the network of any level of a hierarchy.

    Names in the networks' state dictionaries must mean the same on all levels, as weights are
    transferred by name.

    Attributes:
        kind: What the networks are, for the log.
        in_channels: Number of input fields.
        out_channels: Number of output fields.
    """

    kind: str
    in_channels: int
    out_channels: int

    def build(self, level: int) -> nn.Module:
        """Returns the network of a level with its initial weights, on the CPU."""

    def blueprint(self, level: int) -> nn.Module:
        """Returns the network of a level on the meta device if possible: only shapes count."""

    def flops(self, level: int) -> Flops:
        """Returns what the network of a level costs for one sample."""

    def build_grown(self, level: int, known: Collection[str]) -> nn.Module:
        """Returns the network of a level, ready to take over the tensors of some names."""

    def group_of(self, name: str) -> int:
        """Returns the part of the network that a tensor belongs to, counted outwards."""

    def level_of(self, name: str) -> int | None:
        """Returns the level with which a tensor comes in, None where levels own nothing."""
