"""Samples from the user's files, on any level's grid."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from multigrid.data.formats import FieldFile, ReaderOptions, open_fields, split_folders
from multigrid.data.formats.values import ValueCheck
from multigrid.data.samples import Samples, StreamedSamples
from multigrid.data.splits import DataFile, divide, names_differ
from multigrid.data.store import NUM_TRAJECTORIES, GeneratedSource
from multigrid.data.time import Trajectories
from multigrid.errors import UserError
from multigrid.fields import restrict_to
from multigrid.grid import Centering, Grid, guess_centering, halvings_between

NUM_COMPARED = 4
BLOCK_BYTES, NUM_BLOCKS = 2**16, 2**12  # files of up to 256 MB are hashed whole
ROUNDING = 1e-5

Restriction = Literal["average", "stride"]
CENTERING: dict[Restriction, Centering] = {"average": "cell", "stride": "node"}
NESTING = {"average": "averaging", "stride": "striding"}


@dataclass(frozen=True)
class FilePart:
    """Some samples of a file on disk, by their numbers in it, in the order of their use."""

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
        """Reads samples, in any order, without looking at their values."""
        order = np.argsort(self.numbers[indices])  # as they lie in the file
        fields = self.file.fetch(self.numbers[indices[order]])
        inputs, outputs = (torch.from_numpy(values[np.argsort(order)]) for values in fields)
        return Samples(inputs, outputs, self.grid)

    def check(self, split: str) -> Iterator[tuple[np.ndarray, Samples]]:
        """Yields all samples with their indices block by block, in the order of the file.

        Raises:
            UserError: At the end, if values are NaN or infinite, or a channel of the training
                samples is constant.
        """
        described = self.file.describe()
        values = ValueCheck(self.file.path, described.input_names, described.output_names)
        order = np.argsort(self.numbers)
        for block in self.file.blocks(order):
            samples = self.load(order[block])
            values.add(self.numbers[order[block]], samples.inputs.numpy(), samples.outputs.numpy())
            yield order[block], samples
        values.require_finite()
        if split == "train":
            values.require_variation()


class FileSource:
    """The samples of a data set of one or several files.

    Files of several grids may be given; those of one grid may be for different splits. The
    training samples of a file never have the number of a sample with which another file validates
    or tests, if both are for several splits, as the same field may be there on another grid.
    Training samples that have been read on their file's grid are kept for the coarser levels.

    A folder with the folders ``train``, ``valid`` and ``test`` stands for the files in these. The
    centering ``auto`` takes what fits how files of several grids nest, else what a file says, else
    nodes for odd sizes.
    """

    def __init__(
        self,
        files: Sequence[DataFile],
        counts: Mapping[str, int],
        centering: Centering | Literal["auto"],
        reader: str = "auto",
        options: ReaderOptions | None = None,
    ) -> None:
        self.counts = dict(counts)
        self._checked: set[tuple[Path, str, int]] = set()
        self._held: dict[tuple[Path, str], Samples] = {}
        opened = list(_open_all(files, reader, options))
        self.centering = _expected_centering(opened) if centering == "auto" else centering
        self.files = divide(opened, counts, self.centering)
        shown = self.nesting()
        if shown is not None and CENTERING[shown] != self.centering:
            if centering != "auto":
                raise UserError(
                    f"the files of several grids nest by {NESTING[shown]}, so the points are "
                    f"{CENTERING[shown]}-centred, not {centering}-centred as data.centering says"
                )
            self.centering = CENTERING[shown]
            self.files = divide(opened, counts, self.centering)
        described = self.files[0].file.describe()
        self.input_names, self.output_names = described.input_names, described.output_names
        self.time = described.time

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the files: of large ones of blocks spread evenly over them."""
        digest = hashlib.sha256()
        for path in (path for item in self.files for path in item.file.paths):
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                digest.update(_digest(file) if file.is_file() else b"")
        return digest.hexdigest()

    @property
    def place(self) -> str:
        """The files."""
        counts = [len(item.file.paths) for item in self.files]
        more = [f" and {count - 1} more" if count > 2 else "" for count in counts]
        return ", ".join(f"{f.file.path}{m}" for f, m in zip(self.files, more, strict=True))

    @property
    def remarks(self) -> list[str]:
        """What the user must know about how the files are read."""
        files = [item.file for item in self.files]
        lines = [line for file in files for line in file.describe().remarks()]
        return [*dict.fromkeys(lines), *filter(None, [names_differ(files)])]

    def prepare(self, counts: Mapping[str, int]) -> int:
        """Does nothing: the samples are there."""
        return 0

    def require_steps(self, num_steps: int) -> None:
        """Raises a UserError if no test trajectory is so many steps long."""
        described = next(item.file for item in self.files if "test" in item.pools).describe()
        if num_steps and described.time is None:
            raise UserError(
                "data.rollout_steps: a surrogate can be rolled out if its outputs are all the "
                "states of its inputs, which is not so in these files; it must be 0"
            )
        if num_steps > described.group_size:
            raise UserError(
                f"data.rollout_steps: {num_steps} is more than the {described.group_size} steps "
                "that each trajectory has"
            )

    def locate(self, split: str, grid: Grid) -> tuple[FieldFile, np.ndarray, Grid]:
        """Finds a split's samples for a grid: in the file of that grid, else the next finer one.

        Returns:
            The file, the numbers of all the split's samples in it, and the file's grid.
        """
        holding = [item for item in self.files if split in item.pools]
        fitting = [item for item in holding if halvings_between(grid, item.grid) is not None]
        if not fitting:
            grids = ", ".join(str(item.grid) for item in holding)
            raise UserError(
                f"no {split} samples on {grid}: the files have {grids}, and none of these "
                f"{self.centering}-centred grids halves to it"
            )
        best = min(fitting, key=lambda item: item.grid.size)
        return best.file, best.pools[split], best.grid

    def read(self, split: str, grid: Grid, count: int | None = None) -> Samples:
        """Returns the first samples of a split, restricted to a grid block by block.

        Raises:
            UserError: If values are NaN or infinite, or a channel of the training samples is
                constant, or there are too few samples, or the file is damaged.
        """
        part = self._part(split, grid, count)
        held = self._held.get((part.file.path, split))
        if held is not None and len(held) >= len(part) and held.grid == part.grid:
            return held[: len(part)].restrict_to(grid)
        inputs, outputs = (
            torch.empty(len(part), channels, *grid.shape) for channels in part.num_channels
        )
        for indices, block in part.check(split):
            samples = block.restrict_to(grid)
            inputs[indices], outputs[indices] = samples.inputs, samples.outputs
        samples = Samples(inputs, outputs, grid)
        if split == "train" and grid == part.grid:
            self._held[part.file.path, split] = samples
        return samples

    def open(self, split: str, grid: Grid, count: int | None = None) -> StreamedSamples:
        """Returns what :meth:`read` does, to be read later; checks the values of all once."""
        part = self._part(split, grid, count)
        key = part.file.path, split, len(part)
        if key not in self._checked:
            for _ in part.check(split):
                pass
            self._checked.add(key)
        return StreamedSamples(part.load, len(part), part.num_channels, part.grid, grid)

    def groups(self, split: str, grid: Grid, count: int) -> Sequence[int]:
        """Returns the trajectory of each of the first samples of a split."""
        file, pool, _ = self.locate(split, grid)
        numbers: list[int] = (pool[:count] // file.describe().group_size).tolist()
        return numbers

    def trajectories(self, split: str, grid: Grid, num_steps: int) -> Trajectories | None:
        """Reads the first trajectories of a split, at most 16, restricted to a grid.

        None if what is predicted cannot be rolled out, or the trajectories have fewer steps.
        """
        file, pool, stored = self.locate(split, grid)
        described = file.describe()
        groups = np.unique(pool // described.group_size)[:NUM_TRAJECTORIES]
        fields = file.trajectories(groups.tolist(), num_steps)
        if fields is None or described.time is None:
            return None
        inputs, states = (restrict_to(torch.from_numpy(f), stored, grid) for f in fields)
        return Trajectories(inputs.contiguous(), states.contiguous(), described.time)

    def nesting(self) -> Restriction | None:
        """Returns how the outputs nest that two files have on two grids, None if they do not."""
        ordered = sorted(self.files, key=lambda item: item.grid.size)
        for pair in combinations(ordered, 2):
            shared = sorted(set(pair[0].pools) & set(pair[1].pools))
            if pair[0].grid == pair[1].grid or not shared:
                continue
            pools = [item.pools[shared[0]] for item in pair]
            count = min(NUM_COMPARED, *map(len, pools))
            coarse, fine = (
                item.file.read(pool[:count])[1] for item, pool in zip(pair, pools, strict=True)
            )
            shown = detect_restriction(coarse, fine)
            if shown is not None:
                return shown
        return None

    def _part(self, split: str, grid: Grid, count: int | None) -> FilePart:
        count = self.counts[split] if count is None else count
        file, pool, stored = self.locate(split, grid)
        if count > len(pool):
            raise UserError(
                f"{file.path}: {count} {split} samples on {grid} are wanted, but there are "
                f"{len(pool)}"
            )
        return FilePart(file, pool[:count], stored)


SampleSource = GeneratedSource | FileSource
"""Where samples come from, by split, on the grid of any level."""


def _open_all(
    files: Sequence[DataFile], reader: str, options: ReaderOptions | None
) -> Iterator[tuple[DataFile, FieldFile]]:
    """Opens files, folders and patterns; the folders of splits become files of these splits.

    So does a file, one of several, that says that it is for one split.
    """
    for item in files:
        path = item.path.expanduser()
        folders = split_folders(path) if item.split is None else {}
        for split, paths in folders.items():
            yield DataFile(path, split), open_fields(paths, reader, options)
        if not folders:
            file = open_fields(path, reader, options)
            named = file.describe().named_splits
            only = next(iter(named)) if len(named) == 1 and len(files) > 1 else None
            yield DataFile(path, item.split or only), file


def _expected_centering(opened: Sequence[tuple[DataFile, FieldFile]]) -> Centering:
    """Returns the centering that a file states, else a guess from the sizes."""
    described = [file.describe() for _, file in opened]
    stated = [item.centering for item in described if item.centering is not None]
    finest = max((item.shape for item in described), key=math.prod)
    return stated[0] if stated else guess_centering(finest)


def _digest(path: Path) -> bytes:
    size = path.stat().st_size
    step = max(BLOCK_BYTES, -(-size // NUM_BLOCKS))
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in (*range(0, size, step), max(0, size - BLOCK_BYTES)):
            file.seek(start)
            digest.update(file.read(BLOCK_BYTES))
    return digest.digest()


def detect_restriction(coarse_outputs: np.ndarray, fine_outputs: np.ndarray) -> Restriction | None:
    """Returns how the same fields ``[N, channels, *grid]`` on two grids nest.

    Returns:
        ``average`` if each coarse value is the mean of the fine cells in it, ``stride`` if it is
        the fine value at the same place, both up to rounding in float32; None if neither or
        both fit.
    """
    coarse, fine = coarse_outputs.astype(np.float64), fine_outputs.astype(np.float64)
    num_fine, num_coarse = fine.shape[-1], coarse.shape[-1]
    ratio = round(num_fine / num_coarse)
    stride = round((num_fine - 1) / (num_coarse - 1)) if num_fine % 2 and num_coarse > 1 else ratio
    if min(ratio, stride) < 2:
        return None
    strided: tuple[Any, ...] = (..., *(slice(None, None, stride),) * (fine.ndim - 2))
    candidates: dict[Restriction, np.ndarray] = {
        "average": _average(fine, ratio),
        "stride": fine[strided],
    }
    tolerance = ROUNDING * float(np.abs(fine).max(initial=0))
    fits = [
        name
        for name, fields in candidates.items()
        if fields.shape == coarse.shape and np.allclose(fields, coarse, rtol=0, atol=tolerance)
    ]
    return fits[0] if len(fits) == 1 else None


def _average(fields: np.ndarray, ratio: int) -> np.ndarray:
    """Returns the means over ``ratio`` points along each axis; what is left over is dropped."""
    for axis in range(2, fields.ndim):
        whole = fields.shape[axis] // ratio
        fields = np.moveaxis(fields, axis, -1)[..., : whole * ratio]
        fields = np.moveaxis(fields.reshape(*fields.shape[:-1], whole, ratio).mean(-1), -1, axis)
    return fields
