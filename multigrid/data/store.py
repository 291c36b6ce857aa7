"""Generated samples on disk: one file for each problem, grid and seed.

Sample i of a split depends on seed, split and i alone, so splits never overlap, and asking for more
samples adds to a file without changing those it has.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import h5py
from tqdm import tqdm

from multigrid.data.generation import BLOCK, SPLITS, Recipe, generate
from multigrid.data.sample_file import (
    DamagedFileError,
    SampleFile,
    StoredSplit,
    create_splits,
    write_samples,
)
from multigrid.data.samples import Samples, StreamedSamples
from multigrid.errors import UserError
from multigrid.files import PART, put_in_place
from multigrid.grid import Grid
from multigrid.problems.base import PDE

__all__ = ["BLOCK", "SPLITS", "DataStore"]


class DataStore:
    """The samples of one problem on one grid with one seed.

    Args:
        folder: Where their file lives.
        problem: What to sample.
        grid: Grid of the samples.
        seed: Seed of all splits.

    Attributes:
        recipe: All that the samples depend on.
        file: Their file.
    """

    def __init__(self, folder: Path, problem: PDE, grid: Grid, seed: int) -> None:
        self.problem = problem
        self.grid = grid
        self.recipe = Recipe(problem, grid, seed)
        name = f"{problem.kind}_{grid}_{grid.centering}_seed{seed}_{self.fingerprint[:8]}.h5"
        self.file = SampleFile(folder / name, self.recipe)

    @property
    def path(self) -> Path:
        """Where the file is, or will be."""
        return self.file.path

    @property
    def fingerprint(self) -> str:
        """Hash of everything that the samples depend on."""
        return self.recipe.fingerprint

    def ensure(
        self, counts: Mapping[str, int], progress: bool = False, workers: int | None = None
    ) -> int:
        """Makes sure that every split has at least the given number of samples.

        The file is written aside, block by block, and renamed when it is complete. What an
        interrupted generation has left is continued where it is sound, else thrown away.

        Args:
            counts: Number of samples wanted of each split.
            progress: Whether to show a progress bar with the rate.
            workers: Number of processes, of which the samples do not depend; by default one for
                each core if that pays.

        Returns:
            The number of samples that had to be generated.

        Raises:
            UserError: If the file is damaged or cannot be written.
        """
        have = self.file.counts()
        if all(have[split] >= count for split, count in counts.items()):
            return 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._extend(counts, progress, workers)
        except OSError as error:
            reason = error.strerror or str(error).split("\n")[0]
            raise UserError(f"{self.path}: samples could not be written: {reason}") from None

    def read(self, split: str, count: int) -> Samples:
        """Reads the first ``count`` samples of a split.

        Raises:
            UserError: If the file is missing or damaged, or holds fewer.
        """
        return StreamedSamples(self.open(split, count), self.grid)[:]

    def open(self, split: str, count: int) -> StoredSplit:
        """Returns the first ``count`` samples of a split, to be read later.

        Raises:
            UserError: If the file is missing or damaged, or holds fewer.
        """
        return self.file.open(split, count)

    def _extend(self, counts: Mapping[str, int], progress: bool, workers: int | None) -> int:
        aside = SampleFile(self.path.with_name(self.path.name + PART), self.recipe)
        if not self._continues(aside):
            aside.path.unlink(missing_ok=True)
            if self.path.exists():
                shutil.copyfile(self.path, aside.path)
        with h5py.File(aside.path, "a") as file:
            create_splits(file, self.recipe)
            blocks = [
                block
                for split, count in counts.items()
                for block in self.recipe.blocks(split, file[split].attrs["num_complete"], count)
            ]
            total = sum(len(block) for block in blocks)
            bar = tqdm(
                total=total,
                desc=f"samples {self.grid}",
                unit="sample",
                disable=None if progress else True,  # None: only a terminal gets a bar
            )
            with bar:
                for block, fields in generate(self.recipe, blocks, workers):
                    write_samples(file[block.split], block.start, *fields)
                    file.flush()
                    bar.update(len(block))
        put_in_place(aside.path, self.path)
        return total

    def _continues(self, aside: SampleFile) -> bool:
        """Whether an interrupted file is sound and not behind the finished one."""
        if not aside.path.exists():
            return False
        try:
            have = aside.counts()
            aside.verify()
        except DamagedFileError:
            return False
        finished = self.file.counts()
        return all(have[split] >= finished[split] for split in SPLITS)
