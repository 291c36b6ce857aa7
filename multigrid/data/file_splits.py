"""Which of the files of a data set gives which samples to which split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multigrid.data import SPLITS
from multigrid.data.formats import FieldFile
from multigrid.data.formats.splits import split_pools
from multigrid.errors import UserError
from multigrid.grid import Centering, Grid


@dataclass(frozen=True)
class DataFile:
    """One of the files of a data set.

    Attributes:
        path: Where it is.
        split: The split it is for; None for all those that no other file of its grid is for.
    """

    path: Path
    split: str | None = None


@dataclass(frozen=True)
class OpenFile:
    """A file with the samples that each split takes from it, in the order of their use."""

    file: FieldFile
    grid: Grid
    pools: dict[str, np.ndarray]


def divide(
    opened: Sequence[tuple[DataFile, FieldFile]], counts: Mapping[str, int], centering: Centering
) -> list[OpenFile]:
    """Gives each file its own split, or all those that no other file of its grid is for.

    Args:
        opened: The files, and what their readers say of them.
        counts: Number of samples wanted of each split.
        centering: Where the points of all fields lie.

    Raises:
        UserError: If the files disagree, or a split has no file or too few samples.
    """
    _require_agreement([file for _, file in opened], centering)
    files = {file.path: file for _, file in opened}
    owners: dict[tuple[Grid, str], Path] = {}
    for item, file in sorted(opened, key=lambda pair: pair[0].split is None):
        grid = Grid(file.describe().shape, centering)
        left = [split for split in SPLITS if (grid, split) not in owners]
        for split in [item.split] if item.split else left or ["train"]:
            if (grid, split) in owners:
                raise UserError(
                    f"{file.path} and {owners[grid, split]}: both are for the same split on "
                    f"{grid}; say with 'split' what each is for"
                )
            owners[grid, split] = file.path
    for split in SPLITS:
        if not any(split == owned for _, owned in owners):
            raise UserError(
                f"no file has {split} samples; leave 'split' out for the file to take them "
                "from, or add a file"
            )
    divided = [_open(file, owners, counts) for file in files.values()]
    _hold_out(divided)
    return divided


def _require_agreement(files: Sequence[FieldFile], centering: Centering) -> None:
    """Checks that all files have the same channels and say nothing against the settings."""
    first = files[0].describe()
    for file in files:
        described = file.describe()
        for kind, here, there in zip(
            ("input", "output"), described.num_channels, first.num_channels, strict=True
        ):
            if here != there:
                raise UserError(
                    f"{file.path}: has {here} {kind} channels, but {files[0].path} has {there}"
                )
        if described.centering not in (None, centering):
            raise UserError(
                f"{file.path}: is {described.centering}-centred, not {centering}-centred "
                "as data.centering says"
            )


def _open(
    file: FieldFile, owners: Mapping[tuple[Grid, str], Path], counts: Mapping[str, int]
) -> OpenFile:
    own = [key for key, path in owners.items() if path == file.path]
    grid, wanted = own[0][0], {split: counts[split] for _, split in own}
    finest = max((g for g, split in owners if split == "train"), key=lambda g: g.size)
    if "train" in wanted and grid != finest:
        wanted["train"] = 1  # a coarser level may ask for fewer; reading tells
    return OpenFile(file, grid, split_pools(file, wanted))


def _hold_out(files: Sequence[OpenFile]) -> None:
    """Takes from the training samples what another file of several splits holds out.

    Files that name their splits say themselves what is held out.
    """
    shared = [
        item for item in files if len(item.pools) > 1 and not item.file.describe().named_splits
    ]
    for item in shared:
        held = [
            other.pools[split]
            for other in shared
            for split in ("validation", "test")
            if other is not item and split in other.pools
        ]
        if held and "train" in item.pools:
            pool = item.pools["train"]
            item.pools["train"] = pool[~np.isin(pool, np.concatenate(held))]
