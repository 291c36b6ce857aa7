"""Errors of trained surrogates on samples that may be larger than memory."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multigrid.data import SPLITS
from multigrid.data.formats import FieldFile
from multigrid.data.samples import Samples
from multigrid.errors import UserError
from multigrid.fields import prolong_to
from multigrid.grid import Grid, halvings_between
from multigrid.ladder.components import problem_and_source
from multigrid.metrics import field_errors, over_fields, per_field, rel_l2_by_field
from multigrid.surrogate import TrainedSurrogate
from multigrid.training.evaluation import predict


@dataclass(frozen=True)
class Scored:
    """Samples to measure with.

    Attributes:
        place: Where they come from.
        grid: Their grid.
        count: How many there are.
        blocks: Yields all of them in order, at most so many at a time.
    """

    place: str
    grid: Grid
    count: int
    blocks: Callable[[int], Iterator[Samples]]

    def reaches(self, grid: Grid) -> bool:
        """Whether the samples can be restricted to a grid."""
        return halvings_between(grid, self.grid) is not None


@dataclass(frozen=True)
class Measurement:
    """The errors of one level.

    Attributes:
        level: The level.
        grid: Its grid.
        errors: Each metric on the level's grid for every sample ``[N]``, the mean over output
            fields; ``on_data_grid`` is the relative L2 error of the prediction prolonged to the
            samples' grid.
        by_field: Each metric of each output field, ``{metric: {field: value}}``.
    """

    level: int
    grid: Grid
    errors: dict[str, Tensor]
    by_field: dict[str, dict[str, float]]

    def mean(self, name: str) -> float:
        """Returns the mean of a metric over samples."""
        return self.errors[name].mean().item()

    def to_json(self) -> dict[str, Any]:
        """Returns plain containers."""
        rel_l2s = self.errors["rel_l2"]
        return {
            "level": self.level,
            "grid": list(self.grid.shape),
            "mean": {name: self.mean(name) for name in self.errors},
            "by_field": self.by_field,
            "rel_l2_median": rel_l2s.median().item(),
            "rel_l2_worst": rel_l2s.max().item(),
        }


def own_samples(surrogate: TrainedSurrogate, split: str, count: int | None) -> Scored:
    """Returns samples that a run trains, validates or tests with, generated where missing.

    Raises:
        UserError: If they cannot be read or generated, or there are fewer than ``count``.
    """
    config = surrogate.config
    available = getattr(config.data, split)
    if config.files is not None and split == "train":
        available = config.samples()[-1]
    count = _at_most(count, available, f"the run has {available} {split} samples")
    _, source = problem_and_source(config)
    source.prepare({name: count if name == split else 0 for name in SPLITS})
    grid = config.hierarchy().finest
    samples = source.open(split, grid, count)
    return Scored(f"{source.place}, {split}", grid, count, samples.split)


def file_samples(surrogate: TrainedSurrogate, file: FieldFile, count: int | None) -> Scored:
    """Returns the samples of a file.

    Raises:
        UserError: If it has other fields or other points than the surrogate, or fewer samples than
            ``count``.
    """
    described = file.describe()
    for kind in ("input", "output"):
        here, there = (getattr(item, f"{kind}_names") for item in (described, surrogate))
        if len(here) != len(there):
            raise UserError(
                f"{file.path}: has {len(here)} {kind} fields ({', '.join(here)}), but the run was "
                f"trained on {len(there)} ({', '.join(there)})"
            )
    centering = surrogate.finest.centering
    if described.centering not in (None, centering):
        raise UserError(
            f"{file.path}: is {described.centering}-centred, but the run was trained on "
            f"{centering}-centred samples"
        )
    available = described.num_samples
    count = _at_most(count, available, f"{file.path} holds {available}")
    grid = Grid(described.shape, centering)

    def blocks(size: int) -> Iterator[Samples]:
        for start in range(0, count, size):
            inputs, outputs = file.read(np.arange(start, min(start + size, count)))
            yield Samples(torch.from_numpy(inputs), torch.from_numpy(outputs), grid)

    return Scored(str(file.path), grid, count, blocks)


def _at_most(count: int | None, available: int, reason: str) -> int:
    if count is not None and count > available:
        raise UserError(f"--samples: {count} are wanted, but {reason}")
    return count or available


def measure(
    surrogate: TrainedSurrogate, scored: Scored, levels: Sequence[int], batch_size: int
) -> list[Measurement]:
    """Measures several levels in one pass over the samples.

    Args:
        surrogate: What to measure.
        scored: The samples.
        levels: Levels to measure, coarsest first.
        batch_size: Samples at once.

    Raises:
        UserError: If the samples' grid does not halve to that of a level, or a level is missing.
    """
    networks = {level: surrogate.surrogate(level) for level in levels}
    for level in levels:
        if not scored.reaches(surrogate.grids[level]):
            raise UserError(
                f"{scored.place}: the samples are on {scored.grid}, which does not halve to "
                f"{surrogate.grids[level]} of level {level}"
            )
    model = surrogate.config.model
    periodic = model.padding == "periodic"
    found: dict[int, dict[str, list[Tensor]]] = {k: defaultdict(list) for k in levels}
    for block in scored.blocks(batch_size):
        for level, network in networks.items():
            samples = block.restrict_to(surrogate.grids[level]).to(surrogate.device)
            guess = predict(network, samples.inputs, batch_size)
            fields = network.scaling.fields
            errors = field_errors(guess, samples.outputs, samples.grid, fields)
            prolonged = prolong_to(guess, samples.grid, block.grid, model.prolongation, periodic)
            errors["on_data_grid"] = rel_l2_by_field(prolonged.cpu(), block.outputs, fields)
            for name, values in errors.items():
                found[level][name].append(values.cpu())
    measured = []
    for level, blocks in found.items():
        errors = {name: torch.cat(values) for name, values in blocks.items()}
        table = per_field(errors, surrogate.output_names)
        measured.append(Measurement(level, surrogate.grids[level], over_fields(errors), table))
    return measured
