"""Which samples of which file are for training, validation and test."""

from collections.abc import Collection, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multigrid.data import SPLITS
from multigrid.data.formats import FieldFile
from multigrid.errors import UserError
from multigrid.grid import Centering, Grid


class DataFile(NamedTuple):
    """One of the files of a data set, for a split, or for all that no other of its grid is for.

    A folder or a pattern stands for several files alike.
    """

    path: Path
    split: str | None = None


class OpenFile(NamedTuple):
    """A file with the samples that each split takes from it, in the order of their use."""

    file: FieldFile
    grid: Grid
    pools: dict[str, np.ndarray]


def divide(
    opened: Sequence[tuple[DataFile, FieldFile]], counts: Mapping[str, int], centering: Centering
) -> list[OpenFile]:
    """Gives each file its split, or all those that no other file of its grid is for.

    Raises:
        UserError: If the files disagree, or a split has no file or too few samples.
    """
    compare_names([file for _, file in opened])
    owners: dict[tuple[Grid, str], FieldFile] = {}
    for item, file in sorted(opened, key=lambda pair: pair[0].split is None):
        if file.layout.centering not in (None, centering):
            raise UserError(
                f"{file.path}: is {file.layout.centering}-centred, not {centering}-centred as "
                "data.centering says"
            )
        grid = Grid(file.shape, centering)
        left = [split for split in SPLITS if (grid, split) not in owners]
        for split in [item.split] if item.split else left or ["train"]:
            if (grid, split) in owners:
                raise UserError(
                    f"{file.path} and {owners[grid, split].path}: both are for the same split on "
                    f"{grid}; say with 'split' what each is for"
                )
            owners[grid, split] = file
    for split in SPLITS:
        if not any(split == owned for _, owned in owners):
            advice = "leave 'split' out for the file to take them from, or add a file"
            raise UserError(f"no file has {split} samples; {advice}")
    finest = max((g for g, split in owners if split == "train"), key=lambda g: g.size)
    divided = []
    for _, file in opened:
        own = [split for (_, split), owner in owners.items() if owner is file]
        grid, wanted = Grid(file.shape, centering), {split: counts[split] for split in own}
        if "train" in wanted and grid != finest:
            wanted["train"] = 1  # a coarser level may ask for fewer; reading tells
        divided.append(OpenFile(file, grid, split_pools(file, wanted)))
    _hold_out(divided)
    return divided


def compare_names(files: Sequence[FieldFile]) -> list[str]:
    """Warns if files that are used together name their channels differently.

    Raises:
        UserError: If they have other numbers of channels.
    """
    first, remarks = files[0], []
    for file in files[1:]:
        for kind in ("input", "output"):
            here, there = getattr(file, f"{kind}_names"), getattr(first, f"{kind}_names")
            if len(here) != len(there):
                raise UserError(
                    f"{file.path}: has {len(here)} {kind} channels, but {first.path} has "
                    f"{len(there)}"
                )
            if here != there:
                remarks.append(
                    f"{file.path} names its {kind} channels {', '.join(here)}, but {first.path} "
                    f"{', '.join(there)}; they are taken in this order"
                )
    return remarks


def _hold_out(files: Sequence[OpenFile]) -> None:
    """Takes from the training samples what another file of several splits holds out.

    Files that name their splits are left as they are.
    """
    shared = [item for item in files if len(item.pools) > 1 and not item.file.named_splits]
    for (_, _, pools), (_, _, others) in permutations(shared, 2):
        for split in others.keys() & set(SPLITS[1:]):
            if "train" in pools:
                pools["train"] = np.setdiff1d(pools["train"], others[split], assume_unique=True)


def split_pools(file: FieldFile, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Returns the numbers of all samples of each split taken from a file, in the order of use.

    What the file names, or its authors test on, is respected. Of the rest, the last samples are
    for testing, those before them for validation, and all others for training; a file that is
    for one split alone gives it all. A trajectory is in one split only, and the steps of a
    split's trajectories are in a fixed random order. So the training samples wanted change
    neither the other splits nor each other, and no sample is in two splits.

    Raises:
        UserError: If a split has too few samples.
    """
    groups, size, whole = split_groups(file, counts), file.group_size, ""
    pools = {split: _samples(groups[split], size) for split in counts}
    if size > 1:
        whole = f"one-step pairs, {size} of each of {file.num_groups} trajectories, which are never"
        whole = f" ({whole} divided)"
    for split, pool in pools.items():
        if len(pool) < counts[split]:
            others = ", ".join(f"{len(pools[s])} for {s} (data.{s})" for s in pools if s != split)
            raise UserError(
                f"{file.path}: {counts[split]} {split} samples are wanted (data.{split}), but of "
                f"the {file.num_samples} in the file{whole} only {len(pool)} are "
                f"left{f' besides {others}' if others else ''}{_reason(file, split, counts)}"
                f"{file.reading}"
            )
    return pools


def split_groups(file: FieldFile, counts: Mapping[str, int]) -> dict[str, range]:
    """Returns the trajectories of each split; the samples, where these are independent."""
    named = file.named_splits
    groups, first, stop = dict(named), 0, file.num_groups
    if _has_leading_test(file, counts) and "test" in counts:
        groups["test"] = range(int(stop * file.leading_test))
    if named and set(groups) < {"train", *counts}:
        last = next(iter(named.values()))  # the only split, divided further
        first, stop = last.start, last.stop
        groups = {} if len(named) == 1 else groups
    elif not named:
        first = len(groups.get("test", ()))
    for split in ("test", "validation"):
        if split in counts and split not in groups:
            needed = -(-counts[split] // file.group_size) if len(counts) > 1 else stop
            groups[split] = range(max(first, stop - needed), stop)
            stop = groups[split].start
    groups.setdefault("train", range(first, stop))
    return groups


def _has_leading_test(file: FieldFile, counts: Collection[str]) -> bool:
    """Whether the first samples are for testing: with fewer than ten there would be none."""
    return len(counts) > 1 and int(file.num_groups * file.leading_test) > 0


def _samples(groups: range, size: int) -> np.ndarray:
    """Returns the samples of consecutive groups in the order of their use."""
    samples = np.arange(groups.start * size, groups.stop * size)
    return samples if size == 1 else np.random.default_rng(0).permutation(samples)


def _reason(file: FieldFile, split: str, counts: Mapping[str, int]) -> str:
    if split in file.named_splits:
        return f"; the file itself says which samples are for {split}"
    if split == "test" and _has_leading_test(file, counts):
        return f"; PDEBench tests on the first {file.leading_test:.0%}"
    return ""
