"""Surgery on networks: pure functions that return a new one and leave the old untouched.

Also by settings alone: ``checkpoints.load`` into an experiment with other fields, levels or grids
does the same by name and shape.
"""

import copy
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from torch import Tensor, nn

from multigrid.errors import UserError, nearest
from multigrid.grid import Grid, halvings_between
from multigrid.models.growth import initialize, seeded, silence
from multigrid.models.transfer import (
    Status,
    TransferReport,
    matches,
    partition,
    require_match,
    transfer_weights,
)
from multigrid.models.unet import UNet

Operated = tuple[UNet, TransferReport]


def replace_head(unet: UNet, out_channels: int, seed: int = 0) -> Operated:
    """Returns a network with another number of output fields; the last layers of heads are new."""
    return _rebuilt(unet, seed, out_channels=_positive(out_channels, "out_channels"))


def replace_stem(unet: UNet, in_channels: int, seed: int = 0) -> Operated:
    """Returns a network with another number of input fields; the weights of stems are new."""
    return _rebuilt(unet, seed, in_channels=_positive(in_channels, "in_channels"))


def add_level(unet: UNet, grid: Grid, width: int | None = None, seed: int = 0) -> Operated:
    """Returns a network with a further scale on a grid twice as fine.

    In the pyramid form the new scale is silent: the network computes what the old one did,
    prolonged unless the scales are folded. In the classic form stem and head are new, on the new
    scale.

    Args:
        unet: The network.
        grid: A grid twice as fine, at most as fine as fields that are folded.
        width: Number of channels of the new scale; that of the outermost one by default.
        seed: Seed of what is new.
    """
    if halvings_between(unet.grids[-1], grid) != 1:
        raise UserError(f"grid: {grid} is not one halving finer than {unet.grids[-1]}")
    new_width = unet.widths[-1] if width is None else _positive(width, "width")
    if unet.is_folded and grid.size > unet.field_grid.size:
        raise UserError(f"grid: {grid} is finer than the folded fields, {unet.field_grid}")
    grids, widths = (*unet.grids, grid), (*unet.widths, new_width)
    grown, report = _rebuilt(unet, seed, grids=grids, widths=widths)
    if unet.form == "pyramid":
        silence(grown, len(unet.grids))
    return grown, report


def remove_levels(unet: UNet, num_levels: int = 1, seed: int = 0) -> Operated:
    """Returns a network without its outermost scales, for a coarser grid or coarser features."""
    most = len(unet.grids) - 1 - (unet.first_folded if unet.is_folded else 0)
    if not 1 <= num_levels <= most:
        stays = "folded scale" if unet.is_folded else "scale"
        raise UserError(
            f"num_levels: {num_levels} must be from 1 to {most}, as one {stays} must stay"
        )
    keep = len(unet.grids) - num_levels
    return _rebuilt(unet, seed, grids=unet.grids[:keep], widths=unet.widths[:keep])


def transplant(
    network: nn.Module, source: Mapping[str, Tensor], patterns: Sequence[str]
) -> tuple[nn.Module, TransferReport]:
    """Returns a copy of any network with selected weights from a state dictionary.

    ``patterns`` of names, such as ``scales.0``, say which; they must fit. In the report all else
    is new.
    """
    for pattern in patterns:
        require_match(pattern, source, "patterns")
    chosen = {name: t for name, t in source.items() if matches(name, patterns)}
    copied = copy.deepcopy(network)
    report = partition(chosen, copied.state_dict())
    if wrong := report.keys(Status.MISMATCHED, Status.UNUSED):
        raise UserError(f"patterns: '{wrong[0]}' does not fit into the network")
    return copied, transfer_weights(chosen, copied)


def replace_module(network: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Returns a copy of any network with the module of a dotted name replaced."""
    copied = copy.deepcopy(network)
    names = [n for n, _ in copied.named_modules() if n]
    if name not in names:
        raise UserError(f"name: there is no module '{name}'{nearest(name, names)}")
    parent, _, child = name.rpartition(".")
    setattr(copied.get_submodule(parent), child, module)
    return copied


def _rebuilt(unet: UNet, seed: int, **changes: Any) -> Operated:
    names = set(signature(UNet).parameters)
    if not unet.is_folded:
        names -= {"field_grid", "first_folded"}
    options = {name: getattr(unet, name) for name in names}
    example = next(unet.parameters())
    with seeded(seed):
        new = initialize(UNet(**{**options, **changes}), seed).to(example.device, example.dtype)
    report = transfer_weights(unet.state_dict(), new)
    return new.train(unet.training), report


def _positive(value: int, name: str) -> int:
    if value < 1:
        raise UserError(f"{name}: {value} must be at least 1")
    return value
