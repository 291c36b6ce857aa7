"""Errors of trained surrogates on samples that may be larger than memory."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from multigrid import metrics
from multigrid.config import Config
from multigrid.data import SPLITS
from multigrid.data.samples import Samples, StreamedSamples, TrainingSamples
from multigrid.data.time import TimeSetup, Trajectories
from multigrid.errors import UserError, nearest
from multigrid.fields import Periodic, prolong_to
from multigrid.grid import Centering, Grid, halvings_between
from multigrid.ladder.components import problem_and_source
from multigrid.models.scaling import Surrogate
from multigrid.report.record import number, rollout_table
from multigrid.tables import table
from multigrid.training.evaluation import predict

if TYPE_CHECKING:
    from multigrid.data.formats import FieldFile

SHOWN = ("rel_l2", "rel_l1", "rel_h1", "rmse")
BANDS = {"rel_l2_low": "Low third", "rel_l2_mid": "Mid", "rel_l2_high": "High"}


@dataclass(frozen=True)
class SampleStream:
    """Samples to measure with, in memory or on disk.

    ``places`` say of which trajectory and step each is, if they are of such; ``trajectories`` gives
    true ones on a grid to compare roll-outs with, or None.
    """

    place: str
    samples: TrainingSamples
    places: Sequence[str] = ()
    trajectories: Callable[[Grid], Trajectories | None] = lambda grid: None

    @property
    def grid(self) -> Grid:
        """The grid of the samples."""
        return self.samples.grid

    def reaches(self, grid: Grid) -> bool:
        """Whether the samples can be restricted to a grid."""
        return halvings_between(grid, self.grid) is not None


class LevelNetwork(NamedTuple):
    """The surrogate of a level, whose fields are on ``field_grid``."""

    surrogate: Surrogate
    grid: Grid
    field_grid: Grid


@dataclass(frozen=True)
class LevelErrors:
    """The errors of one level.

    Attributes:
        errors: Each metric for every sample ``[N]`` on the grid of the level's fields, the mean
            over output fields; ``on_data_grid`` is the relative L2 error of the prediction
            prolonged to the samples' grid, and ``persistence`` that of the input state itself,
            for time-dependent problems.
        by_field: Each metric of each output field, ``{metric: {field: value}}``: the mean over
            samples, the largest for ``max``, the median for ``min_max_rel_l1``.
        negligible: By output field, the numbers of the samples whose field counts as zero.
    """

    level: int
    grid: Grid
    errors: dict[str, Tensor]
    by_field: dict[str, dict[str, float]]
    negligible: dict[str, list[int]]

    def mean(self, name: str) -> float:
        """Returns a metric over samples and fields: the mean, but as ``by_field`` for some.

        Raises:
            UserError: If there is no such metric.
        """
        if name not in self.errors:
            raise UserError(
                f"there is no metric '{name}'; there are {', '.join(self.errors)}"
                f"{nearest(name, self.errors)}"
            )
        if name in self.by_field:
            return metrics.mean_over_fields({name: self.by_field[name]})[name]
        return self.errors[name].mean().item()


@dataclass(frozen=True)
class Evaluation:
    """The errors of a surrogate; ``print`` shows them as tables.

    ``levels`` are coarsest first, ``rollout`` are errors as plain containers, ``places`` trajectory
    and step of each sample, if they have such, and ``notes`` what a reader must know.
    """

    place: str
    grid: Grid
    count: int
    levels: list[LevelErrors]
    rollout: dict[str, Any] | None = None
    places: Sequence[str] = ()
    notes: Sequence[str] = ()

    def mean(self, name: str = "rel_l2") -> float:
        """Returns the mean of a metric over samples, on the finest level."""
        return self.levels[-1].mean(name)

    def worst(self, count: int = 5) -> list[dict[str, Any]]:
        """Returns the samples with the largest relative L2 errors on the finest level."""
        errors = self.levels[-1].errors["rel_l2"]
        places = [{"place": place} for place in self.places] or [{}] * len(errors)
        order = errors.argsort(descending=True)[:count].tolist()
        return [{"sample": i, **places[i], "rel_l2": errors[i].item()} for i in order]

    def to_json(self, num_worst: int = 5) -> dict[str, Any]:
        """Returns plain containers."""
        levels = [
            {
                "level": item.level,
                "grid": list(item.grid.shape),
                "mean": {name: item.mean(name) for name in item.errors},
                "by_field": item.by_field,
                "rel_l2_median": item.errors["rel_l2"].median().item(),
                "rel_l2_worst": item.errors["rel_l2"].max().item(),
            }
            for item in self.levels
        ]
        return {
            "data": self.place,
            "grid": list(self.grid.shape),
            "samples": self.count,
            "levels": levels,
            "worst": self.worst(num_worst),
            "notes": list(self.notes),
            "negligible_fields": self.levels[-1].negligible,
            **({} if self.rollout is None else {"rollout": self.rollout}),
        }

    def to_text(self, num_worst: int = 5) -> str:
        """Returns tables by level, by wavelength and of the worst samples."""
        ends = {"on_data_grid": f"On {self.grid}", "persistence": "Persistence"}
        last = [name for name in ends if name in self.levels[0].errors]
        by_level, by_band = [], []
        for item in self.levels:
            errors, name = item.errors["rel_l2"], [str(item.level), str(item.grid)]
            values = [item.mean(metric) for metric in SHOWN]
            values += [errors.median().item(), errors.max().item()]
            values += [item.mean(metric) for metric in last]
            by_level.append([*name, *(f"{value:.4g}" for value in values)])
            by_band.append([*name, *(f"{item.mean(band):.4g}" for band in BANDS)])
        header = ["Level", "Grid", *SHOWN, "Median", "Worst", *(ends[name] for name in last)]
        place = f"{self.place}: {self.count} samples on {self.grid}"
        blocks = [
            "\n".join([place, *(f"note: {note}" for note in self.notes)]),
            "errors on the grid of each level's fields (rel_l2: mean, median, worst), and of its "
            f"prediction prolonged to the samples' grid\n{table(header, by_level)}",
            "relative L2 error by wavelength, in thirds up to the grid's limit\n"
            + table(["Level", "Grid", *BANDS.values()], by_band),
        ]
        finest, shown = self.levels[-1], [*SHOWN, "vrmse"]
        if len(names := list(finest.by_field["rel_l2"])) > 1:
            rows = [[name, *(f"{finest.by_field[m][name]:.4g}" for m in shown)] for name in names]
            blocks.append(f"by output field on {finest.grid}\n{table(['Field', *shown], rows)}")
        worst = [[number(value) for value in row.values()] for row in self.worst(num_worst)]
        columns = ["Sample", *["Place"] * bool(self.places), "rel_l2"]
        blocks.append(f"worst samples on {finest.grid}\n{table(columns, worst)}")
        blocks += [f"note: {note}" for note in metrics.negligible_notes(finest.negligible)]
        if self.rollout is not None:
            count, text = self.rollout["trajectories"], table(*rollout_table(self.rollout))
            blocks.append(f"roll-outs of {count} trajectories: mean (lowest to highest)\n{text}")
        return "\n\n".join(blocks)

    def __str__(self) -> str:
        return self.to_text()


def run_samples(config: Config, split: str = "test", count: int | None = None) -> SampleStream:
    """Returns samples that a run trains, validates or tests with, generated where missing."""
    available = getattr(config.data, split)
    if config.files is not None and split == "train":
        available = config.samples()[-1]
    count = _at_most(count, available, f"the run has {available} {split} samples")
    _, source = problem_and_source(config)
    source.prepare({name: count if name == split else 0 for name in SPLITS})
    grid, num_steps = config.hierarchy().finest, config.data.rollout_steps

    def trajectories(grid: Grid) -> Trajectories | None:
        return source.trajectories("test", grid, num_steps) if num_steps else None

    which = source.open(split, grid, count), source.places(split, grid, count)
    return SampleStream(f"{source.place}, {split}", *which, trajectories)


def file_samples(
    file: "FieldFile",
    names: tuple[Sequence[str], Sequence[str]],
    centering: Centering,
    count: int | None = None,
) -> SampleStream:
    """Returns the samples of a file, for a run that was trained on input and output ``names``."""
    for kind, trained in zip(("input", "output"), names, strict=True):
        here = getattr(file, f"{kind}_names")
        if len(here) != len(trained):
            raise UserError(
                f"{file.path}: has {len(here)} {kind} fields ({', '.join(here)}), but the run was "
                f"trained on {len(trained)} ({', '.join(trained)})"
            )
    total = _at_most(count, file.num_samples, f"{file.path} holds {file.num_samples}")
    grid, stated = Grid(file.shape, centering), file.layout.centering
    if stated and not all(map(np.array_equal, Grid(file.shape, stated).axes(), grid.axes())):
        raise UserError(
            f"{file.path}: is {stated}-centred, but the run was trained on "
            f"{centering}-centred samples"
        )

    def load(numbers: np.ndarray) -> Samples:
        inputs, outputs = map(torch.from_numpy, file.read(numbers))
        return Samples(inputs, outputs, grid)

    samples = StreamedSamples(load, total, file.num_channels, grid, grid)
    return SampleStream(str(file.path), samples, file.places(np.arange(total)))


def _at_most(count: int | None, available: int, reason: str) -> int:
    if count is not None and count > available:
        raise UserError(f"--samples: {count} are wanted, but {reason}")
    return count or available


def measure(
    networks: Mapping[int, LevelNetwork],
    names: Sequence[str],
    stream: SampleStream,
    batch_size: int,
    prolongation: tuple[int, Periodic],
    time: TimeSetup | None = None,
) -> list[LevelErrors]:
    """Measures several levels in one pass over the samples.

    ``prolongation``, a degree and which axes are periodic, leads to the samples' grid; ``time``
    says how states become inputs, to measure the input state itself as a prediction, too.
    """
    for level, network in networks.items():
        if not stream.reaches(network.field_grid):
            raise UserError(
                f"{stream.place}: the samples are on {stream.grid}, which does not halve to "
                f"{network.field_grid} of level {level}"
            )
    errors: dict[int, dict[str, list[Tensor]]] = {k: defaultdict(list) for k in networks}
    negligible: dict[int, dict[str, list[int]]] = {k: defaultdict(list) for k in networks}
    start = 0
    for block in stream.samples.split(batch_size):
        for level, network in networks.items():
            surrogate, grid = network.surrogate, network.field_grid
            samples = block.restrict_to(grid).to(surrogate.input_shift.device)
            prediction = predict(surrogate, samples.inputs, batch_size)
            fields = surrogate.scaling.fields
            values = metrics.field_errors(prediction, samples.outputs, grid, fields)
            prolonged = prolong_to(prediction, grid, block.grid, *prolongation)
            values["on_data_grid"] = metrics.rel_l2_by_field(prolonged.cpu(), block.outputs, fields)
            if time is not None:
                state = time.persistence(samples.inputs)
                values["persistence"] = metrics.rel_l2_by_field(state, samples.outputs, fields)
            for name, value in values.items():
                errors[level][name].append(value.cpu())
            for name, rows in metrics.negligible_fields(samples.outputs, fields, names).items():
                negligible[level][name] += [start + row for row in rows]
        start += len(block)
    measured = []
    for level, by_metric in errors.items():
        joined = {name: torch.cat(values) for name, values in by_metric.items()}
        by_field = metrics.per_field(joined, names)
        grid, small = networks[level].grid, dict(negligible[level])
        measured.append(LevelErrors(level, grid, metrics.over_fields(joined), by_field, small))
    return measured
