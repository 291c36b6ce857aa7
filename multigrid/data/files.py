"""Samples from the user's own files, split and on any level's grid."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from multigrid.data.file_part import FilePart
from multigrid.data.file_splits import DataFile, divide
from multigrid.data.formats import FieldFile, ReaderOptions, open_fields
from multigrid.data.formats.nesting import Restriction, detect_restriction
from multigrid.data.samples import Samples
from multigrid.data.streaming import StreamedSamples
from multigrid.errors import UserError
from multigrid.grid import Centering, Grid, guess_centering, halvings_between

NUM_COMPARED = 4
BLOCK_BYTES, NUM_BLOCKS = 2**16, 2**12  # files of up to 256 MB are hashed whole
CENTERING: dict[Restriction, Centering] = {"average": "cell", "stride": "node"}
NESTING = {"average": "averaging", "stride": "striding"}


class FileSource:
    """The samples of a data set of one or several files.

    Files of several grids may be given; those of one grid may be for different splits. The
    training samples of a file never have the number of a sample with which another file validates
    or tests, if both are for several splits, as the same field may be there on another grid.

    Args:
        files: The files.
        counts: Number of samples wanted of each split.
        centering: Where the points of all fields lie; ``auto`` takes what fits how the files of
            several grids nest, else what a file says, else nodes for odd sizes.
        reader: Name of the reader, or ``auto``.
        options: What the user says about the files.

    Raises:
        UserError: If a file cannot be read, the files disagree, a split has no file or too few
            samples, or files of several grids nest otherwise than ``centering`` says.
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
        self._surveyed: set[tuple[Path, str, int]] = set()
        opened = [(item, open_fields(item.path, reader, options)) for item in files]
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

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the files: of large ones of blocks spread evenly over them."""
        digest = hashlib.sha256()
        for item in self.files:
            for path in item.file.paths:
                digest.update(_digest(path))
        return digest.hexdigest()

    @property
    def place(self) -> str:
        """The files."""
        return ", ".join(str(item.file.path) for item in self.files)

    def prepare(self, counts: Mapping[str, int]) -> int:
        """Does nothing: the samples are there."""
        return 0

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the input channels."""
        return self.files[0].file.describe().input_names

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the output channels."""
        return self.files[0].file.describe().output_names

    @property
    def finest(self) -> Grid:
        """The finest grid there is a file of."""
        return max((item.grid for item in self.files), key=lambda grid: grid.size)

    def locate(self, split: str, grid: Grid) -> tuple[FieldFile, np.ndarray, Grid]:
        """Finds a split's samples for a grid: in the file of that grid, else the next finer one.

        Returns:
            The file, the numbers of all the split's samples in it, and the file's grid.

        Raises:
            UserError: If no file has this grid or a finer one of the same hierarchy.
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
        """Reads the first samples of a split on a grid, restricted block by block.

        Args:
            split: ``train``, ``validation`` or ``test``.
            grid: The grid of a level.
            count: Number of samples; by default what the source was asked for.

        Raises:
            UserError: If values are NaN or infinite, or a channel of the training samples is
                constant, or there are too few samples, or the file is damaged.
        """
        part = self._part(split, grid, count)
        inputs, outputs = (
            torch.empty(len(part), channels, *grid.shape) for channels in part.num_channels
        )
        for indices, block in part.survey(split):
            samples = block.restrict_to(grid)
            inputs[indices], outputs[indices] = samples.inputs, samples.outputs
        return Samples(inputs, outputs, grid)

    def open(self, split: str, grid: Grid, count: int | None = None) -> StreamedSamples:
        """Returns the first samples of a split on a grid, to be read later.

        Reads all of them once, to check their values.

        Args:
            split: ``train``, ``validation`` or ``test``.
            grid: The grid of a level.
            count: Number of samples; by default what the source was asked for.

        Raises:
            UserError: As :meth:`read` does.
        """
        part = self._part(split, grid, count)
        key = part.file.path, split, len(part)
        if key not in self._surveyed:
            for _ in part.survey(split):
                pass
            self._surveyed.add(key)
        return StreamedSamples(part, grid)

    def nesting(self) -> Restriction | None:
        """Returns how the outputs nest that two files have on two grids, None if they do not."""
        ordered = sorted(self.files, key=lambda item: item.grid.size)
        for coarse, fine in combinations(ordered, 2):
            shared = sorted(set(coarse.pools) & set(fine.pools))
            if coarse.grid == fine.grid or not shared:
                continue
            pools = [item.pools[shared[0]] for item in (coarse, fine)]
            count = min(NUM_COMPARED, *map(len, pools))
            outputs = [
                item.file.read(pool[:count])[1]
                for item, pool in zip((coarse, fine), pools, strict=True)
            ]
            found = detect_restriction(*outputs)
            if found is not None:
                return found
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


def _expected_centering(opened: Sequence[tuple[DataFile, FieldFile]]) -> Centering:
    """Returns what a file says of where its points lie, else what the sizes let one guess."""
    described = [file.describe() for _, file in opened]
    stated = [item.centering for item in described if item.centering is not None]
    finest = max((item.shape for item in described), key=math.prod)
    return stated[0] if stated else guess_centering(finest)


def _digest(path: Path) -> bytes:
    """Returns a hash of a file: of all of it, or of blocks spread evenly over a large one."""
    size = path.stat().st_size
    step = max(BLOCK_BYTES, -(-size // NUM_BLOCKS))
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in (*range(0, size, step), max(0, size - BLOCK_BYTES)):
            file.seek(start)
            digest.update(file.read(BLOCK_BYTES))
    return digest.digest()
