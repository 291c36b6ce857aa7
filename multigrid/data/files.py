"""Samples from the user's files, on any level's grid."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from multigrid.config.data import ReaderOptions, TimeConfig
from multigrid.data.formats import FieldFile, open_fields, split_folders
from multigrid.data.samples import Samples, StreamedSamples
from multigrid.data.source import NUM_TRAJECTORIES, SampleSource
from multigrid.data.splits import DataFile, compare_names, divide
from multigrid.data.time import Trajectories
from multigrid.errors import UserError
from multigrid.fields import restrict_to
from multigrid.grid import Centering, Grid, guess_centering, halvings_between
from multigrid.tables import counted

NUM_COMPARED = 4
BLOCK_BYTES, NUM_BLOCKS = 2**16, 2**12  # files of up to 256 MB are hashed whole
ROUNDING = 1e-5
NESTING = {"cell": "averaging", "node": "striding"}


class FilePart(NamedTuple):
    """Some samples of a file, by their numbers in it, in the order of their use.

    Outputs are those of ``num_steps`` steps of a trajectory, one after the other.
    """

    file: FieldFile
    numbers: np.ndarray
    grid: Grid
    num_steps: int = 1

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""
        inputs, outputs = self.file.num_channels
        return inputs, self.num_steps * outputs

    def load(self, indices: np.ndarray) -> Samples:
        """Reads samples, in any order, without looking at their values."""
        numbers = self.numbers[indices]
        inputs, *outputs = self.file.fetch(numbers)
        outputs += [self.file.fetch(numbers + step)[1] for step in range(1, self.num_steps)]
        all_outputs = np.concatenate(outputs, axis=1) if outputs[1:] else outputs[0]
        return Samples(torch.from_numpy(inputs), torch.from_numpy(all_outputs), self.grid)

    def check(self, split: str) -> Iterator[tuple[np.ndarray, Samples]]:
        """Yields all samples with their indices block by block, in the order of the file.

        Raises:
            UserError: At the end, if values are NaN or infinite, or a channel of the training
                samples is constant.
        """
        checks = inputs, outputs = self.file.value_checks()
        order = np.argsort(self.numbers)
        for block in self.file.blocks(order):
            samples = self.load(order[block])
            first = samples.outputs[:, : self.file.num_channels[1]]
            inputs.add(self.numbers[order[block]], samples.inputs.numpy())
            outputs.add(self.numbers[order[block]], first.numpy())
            yield order[block], samples
        for check in checks:
            check.require_finite()
            if split == "train":
                check.require_variation()


class FileSource(SampleSource):
    """The samples of a data set of one or several files, for different grids or splits.

    The training samples of a file never have the number of a sample with which another file
    validates or tests, if both are for several splits: the same field may be there on another grid.
    Training samples that have been read on their file's grid are kept for the coarser levels.

    Files to stream, of whose compressed chunks each holds several samples, are copied to ``folder``
    first, if there is one: random access would decompress each chunk many times.

    The centering ``auto`` takes what fits how files of several grids nest, else what a file says,
    else nodes for odd sizes.
    """

    def __init__(
        self,
        files: Sequence[DataFile],
        counts: Mapping[str, int],
        centering: Centering | Literal["auto"],
        options: ReaderOptions | None = None,
        time: TimeConfig | None = None,
        folder: Path | None = None,
        num_steps: int = 1,
    ) -> None:
        self.counts, self.folder, self.num_steps = dict(counts), folder, num_steps
        self._copies: list[str] = []
        self._checked: set[tuple[Path, str, int]] = set()
        self._held: dict[tuple[Path, str], Samples] = {}
        opened = list(_open_all(files, options, time))
        if centering == "auto":
            stated = (f.layout.centering for _, f in opened if f.layout.centering is not None)
            finest = max((file.shape for _, file in opened), key=math.prod)
            self.centering = next(stated, guess_centering(finest))
        else:
            self.centering = centering
        self.files = divide(opened, counts, self.centering)
        nested = self.nesting()
        if nested is not None and (nested == "cell") != (self.centering == "cell"):
            if centering != "auto":
                raise UserError(
                    f"the files of several grids nest by {NESTING[nested]}, so the points are "
                    f"{nested}-centred, not {centering}-centred as data.centering says"
                )
            self.centering, self.files = nested, divide(opened, counts, nested)
        several = [item.file.paths for item in self.files]
        self.place = ", ".join(f"{p[0]}{f' and {len(p) - 1} more' * (len(p) > 2)}" for p in several)
        first = self.files[0].file
        self.input_names, self.output_names = first.input_names, first.output_names
        self.time = first.time

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the files: of large ones of blocks spread evenly over them."""
        return _hash([path for item in self.files for path in item.file.paths])

    @property
    def remarks(self) -> list[str]:
        """What the user must know about how the files are read."""
        files = [item.file for item in self.files]
        lines = dict.fromkeys(line for file in files for line in file.remarks())
        return [*lines, *compare_names(files), *self._copies]

    def unused(self, grid: Grid) -> list[str]:
        """Names the files from which no samples on a grid are read, where all are on that one."""
        splits = sorted({split for item in self.files for split in item.pools})
        used = {self.locate(split, grid).file.path for split in splits}
        return [
            f"{item.file.path}: not used, as folded levels all take the samples on {grid}"
            for item in self.files
            if item.file.path not in used
        ]

    def require_steps(self, num_steps: int) -> None:
        """Raises a UserError if no test trajectory is so many steps long."""
        file = next(item.file for item in self.files if "test" in item.pools)
        if num_steps and file.time is None:
            raise UserError(
                "data.rollout_steps: a surrogate can be rolled out if its outputs are all the "
                "states of its inputs, which is not so in these files; it must be 0"
            )
        if num_steps > file.group_size:
            raise UserError(
                f"data.rollout_steps: {num_steps} is more than the "
                f"{counted(file.group_size, 'step')} that each trajectory has"
            )

    def locate(self, split: str, grid: Grid) -> FilePart:
        """Finds a split's samples for a grid: in the file of that grid, else the next finer one."""
        holding = [item for item in self.files if split in item.pools]
        fitting = [item for item in holding if halvings_between(grid, item.grid) is not None]
        if not fitting:
            grids = ", ".join(dict.fromkeys(str(item.grid) for item in holding))
            possible = {coarse for item in holding for coarse in item.grid.halvings()}
            listed = ", ".join(str(g) for g in sorted(possible, key=lambda g: -g.size))
            halved = f"can be halved to {listed}" if listed else "cannot be halved"
            raise UserError(
                f"levels: there are no {split} samples on {grid}: the files have {grids} "
                f"({self.centering}-centred), which {halved}{holding[0].file.reading}"
            )
        best = min(fitting, key=lambda item: item.grid.size)
        return FilePart(best.file, best.pools[split], best.grid)

    def require(self, split: str, grid: Grid, count: int | None = None) -> FilePart:
        """Finds the first samples of a split for a grid; reads none.

        Raises:
            UserError: If there are fewer.
        """
        count = self.counts[split] if count is None else count
        part, more = self.locate(split, grid), ""
        if split == "train" and self.num_steps > 1:
            last = part.file.group_size - self.num_steps
            numbers = part.numbers[part.numbers % part.file.group_size <= last]
            part = part._replace(numbers=numbers, num_steps=self.num_steps)
            more = f" that {self.num_steps - 1} steps of their trajectory follow"
        if count > len(part.numbers):
            raise UserError(
                f"{part.file.path}: {count} {split} samples on {grid} are wanted (data.{split}), "
                f"but there are {len(part.numbers)}{more}"
            )
        return part._replace(numbers=part.numbers[:count])

    def first(self, grid: Grid, count: int) -> Samples:
        """Returns at most so many validation samples on the finest grid."""
        return self.read("validation", grid, min(count, self.counts["validation"]))

    def read(self, split: str, grid: Grid, count: int | None = None) -> Samples:
        """Returns the first samples of a split, restricted to a grid block by block.

        Raises:
            UserError: If values are NaN or infinite, or a channel of the training samples is
                constant, or there are too few samples, or the file is damaged.
        """
        part = self.require(split, grid, count)
        total, key = len(part.numbers), (part.file.path, split)
        held = self._held.get(key)
        if held is not None and len(held) >= total and held.grid == part.grid:
            return held[:total].restrict_to(grid)
        inputs, outputs = (torch.empty(total, n, *grid.shape) for n in part.num_channels)
        for indices, block in part.check(split):
            samples = block.restrict_to(grid)
            inputs[indices], outputs[indices] = samples.inputs, samples.outputs
        samples = Samples(inputs, outputs, grid)
        if split == "train" and grid == part.grid:
            self._held[key] = samples
        return samples

    def open(self, split: str, grid: Grid, count: int | None = None) -> StreamedSamples:
        """Returns what :meth:`read` does, to be read later; checks the values of all once."""
        part = self.require(split, grid, count)
        key = part.file.path, split, len(part.numbers)
        if self.folder is not None and any(p.is_scattered for p in part.file.parts):
            self._copy(part.file, self.folder)
        if key not in self._checked:
            for _ in part.check(split):
                pass
            self._checked.add(key)
        return StreamedSamples(part.load, key[2], part.num_channels, part.grid, grid)

    def _copy(self, file: FieldFile, folder: Path) -> None:
        """Has a file read from a plain copy, made once."""
        names = [f"{p.container.path.stem}_{_hash(p.container.paths)[:16]}" for p in file.parts]
        file.parts = [p.copied(folder, n) for p, n in zip(file.parts, names, strict=True)]
        self._copies.append(
            f"{file.path}: is read from a copy in {folder}, as each of its compressed chunks holds "
            "several samples"
        )

    def groups(self, split: str, grid: Grid, count: int) -> Sequence[int]:
        """Returns the trajectory of each of the first samples of a split."""
        file, pool, *_ = self.locate(split, grid)
        return list(map(int, pool[:count] // file.group_size))

    def places(self, split: str, grid: Grid, count: int) -> list[str]:
        """Returns trajectory and step of the first samples of a split, if they have such."""
        file, pool, *_ = self.locate(split, grid)
        return file.places(pool[:count])

    def trajectories(self, split: str, grid: Grid, num_steps: int) -> Trajectories | None:
        """Reads the first trajectories of a split, at most 16, restricted to a grid.

        None if what is predicted cannot be rolled out, or the trajectories have fewer steps.
        """
        file, pool, stored, _ = self.locate(split, grid)
        setup, size = file.time, file.group_size
        if setup is None or size < num_steps or not len(pool):
            return None
        groups = np.unique(pool // size)[:NUM_TRAJECTORIES]
        first, _ = file.fetch(groups * size)
        states = []
        for group in groups:
            steps = file.fetch(group * size + np.arange(num_steps))
            states.append(np.concatenate([setup.last_state(steps[0])[:1], setup.state(*steps)]))
        fields = map(torch.from_numpy, (first, np.stack(states)))
        inputs, true = (restrict_to(field, stored, grid).contiguous() for field in fields)
        return Trajectories(inputs, true, setup, int(groups[0]))

    def nesting(self) -> Centering | None:
        """Returns the centering by which two files' outputs on two grids nest, if any do."""
        ordered = sorted(self.files, key=lambda item: item.grid.size)
        for coarse, fine in combinations(ordered, 2):
            shared = sorted(coarse.pools.keys() & fine.pools.keys())
            if coarse.grid != fine.grid and shared:
                pools = [item.pools[shared[0]] for item in (coarse, fine)]
                count = min(NUM_COMPARED, *map(len, pools))
                outputs = coarse.file.read(pools[0][:count])[1], fine.file.read(pools[1][:count])[1]
                if nested := nested_centering(*map(torch.from_numpy, outputs)):
                    return nested
        return None


def _open_all(
    files: Sequence[DataFile], options: ReaderOptions | None, time: TimeConfig | None
) -> Iterator[tuple[DataFile, FieldFile]]:
    """Opens files, folders and patterns; the folders of splits become files of these splits.

    So does a file, one of several, that says that it is for one split.
    """
    for path, split in files:
        folders = split_folders(path) if split is None else {}
        for name, paths in folders.items():
            yield DataFile(path, name), open_fields(paths, options, time)
        if not folders:
            file = open_fields(path, options, time)
            if len(file.named_splits) == 1 and len(files) > 1:
                split = split or next(iter(file.named_splits))
            yield DataFile(path, split), file


def _hash(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            digest.update(_digest(file) if file.is_file() else b"")
    return digest.hexdigest()


def _digest(path: Path) -> bytes:
    size = path.stat().st_size
    step = max(BLOCK_BYTES, -(-size // NUM_BLOCKS))
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in (*range(0, size, step), max(0, size - BLOCK_BYTES)):
            file.seek(start)
            digest.update(file.read(BLOCK_BYTES))
    return digest.digest()


def nested_centering(coarse: Tensor, fine: Tensor) -> Centering | None:
    """Returns with which centering fine fields ``[N, C, *grid]``, restricted, give coarse ones.

    None if neither or both do, up to rounding in float32.
    """
    fitting: list[Centering] = []
    for centering in ("cell", "node"):
        from_grid, to_grid = (Grid(tuple(f.shape[2:]), centering) for f in (fine, coarse))
        if halvings_between(to_grid, from_grid):
            error = (restrict_to(fine.double(), from_grid, to_grid) - coarse).abs().max()
            if error <= ROUNDING * fine.abs().max():
                fitting.append(centering)
    return fitting[0] if len(fitting) == 1 else None
