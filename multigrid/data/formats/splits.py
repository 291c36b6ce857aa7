"""Which samples of a file are for training, validation and test."""

from collections.abc import Collection, Mapping

import numpy as np

from multigrid.data.formats.base import Description, FieldFile
from multigrid.errors import UserError


def split_pools(file: FieldFile, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Divides the samples of a file among the splits that are taken from it.

    What the file names, or its authors test on, is respected. Of the rest, the last samples are
    for testing, those before them for validation, and all others for training; a file that is
    for one split alone gives it all. A trajectory is in one split only, and the steps of a
    split's trajectories are in a fixed random order. So the training samples wanted change
    neither the other splits nor each other, and no sample is in two splits.

    Args:
        file: The file.
        counts: Number of samples wanted of each split that is taken from this file.

    Returns:
        For each of these splits the numbers of all its samples, in the order of their use; at
        least as many as wanted.

    Raises:
        UserError: If a split has too few samples.
    """
    described = file.describe()
    groups = _divide(described, counts)
    pools = {split: _samples(groups[split], described.group_size) for split in counts}
    for split, pool in pools.items():
        if len(pool) < counts[split]:
            others = ", ".join(f"{len(pools[s])} for {s}" for s in pools if s != split)
            raise UserError(
                f"{file.path}: {counts[split]} {split} samples are wanted, but of the "
                f"{described.num_samples} samples in the file only {len(pool)} are left for it"
                f"{f' besides {others}' if others else ''}{_reason(described, split, counts)}"
            )
    return pools


def _divide(described: Description, counts: Mapping[str, int]) -> dict[str, range]:
    """Returns the groups of each split."""
    own = dict(described.named_splits)
    if described.leading_test and _shared(counts) and "test" in counts:
        own["test"] = range(int(described.num_groups * described.leading_test))
    first = 0 if described.named_splits else len(own.get("test", ()))
    stop = described.num_groups
    for split in ("test", "validation"):
        if split in counts and split not in own:
            needed = -(-counts[split] // described.group_size) if _shared(counts) else stop
            own[split] = range(max(first, stop - needed), stop)
            stop = own[split].start
    own.setdefault("train", range(first, stop))
    return own


def _shared(counts: Collection[str]) -> bool:
    return len(counts) > 1


def _samples(groups: range, size: int) -> np.ndarray:
    """Returns the samples of consecutive groups in the order of their use."""
    samples = np.arange(groups.start * size, groups.stop * size)
    return samples if size == 1 else np.random.default_rng(0).permutation(samples)


def _reason(described: Description, split: str, counts: Mapping[str, int]) -> str:
    if split in described.named_splits:
        return f"; the file itself says which samples are for {split}"
    if split == "test" and described.leading_test and _shared(counts):
        return f"; PDEBench tests on the first {described.leading_test:.0%}"
    return ""
