"""Errors of trained surrogates on samples that may be larger than memory, and their spectra."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from multigrid.config import Config
from multigrid.data import SPLITS
from multigrid.data.formats import FieldFile
from multigrid.data.samples import Samples
from multigrid.data.time import TimeSetup, Trajectories
from multigrid.errors import UserError
from multigrid.fields import prolong_to
from multigrid.files import write_json
from multigrid.grid import Centering, Grid, halvings_between
from multigrid.ladder.components import problem_and_source
from multigrid.metrics import (
    FieldScale,
    field_errors,
    mean_rel_l2,
    over_fields,
    per_field,
    rel_l2_by_field,
)
from multigrid.models.scaling import Surrogate
from multigrid.records.examples import Examples, RollOut, choose_samples, middle_plane
from multigrid.rollout import StateRule, roll_out
from multigrid.tables import table
from multigrid.training.evaluation import predict

SHOWN = ("rel_l2", "rel_l1", "rel_h1", "rmse")
BANDS = {"rel_l2_low": "Low third", "rel_l2_mid": "Mid", "rel_l2_high": "High"}
NUM_SPECTRA, NUM_STEPS = 64, 6


@dataclass(frozen=True)
class SampleStream:
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
class LevelNetwork:
    """The trained surrogate of one level.

    Attributes:
        grid: Grid of the level.
        field_grid: Grid of the fields that the surrogate takes and returns.
        surrogate: The surrogate.
    """

    grid: Grid
    field_grid: Grid
    surrogate: Surrogate


@dataclass(frozen=True)
class LevelErrors:
    """The errors of one level.

    Attributes:
        level: The level.
        grid: Its grid.
        errors: Each metric for every sample ``[N]`` on the grid of the level's fields, the mean
            over output fields; ``on_data_grid`` is the relative L2 error of the prediction
            prolonged to the samples' grid, and ``persistence`` that of the input state itself,
            for time-dependent problems.
        by_field: Each metric of each output field, ``{metric: {field: value}}``.
    """

    level: int
    grid: Grid
    errors: dict[str, Tensor]
    by_field: dict[str, dict[str, float]]

    def mean(self, name: str) -> float:
        """Returns the mean of a metric over samples."""
        return self.errors[name].mean().item()


@dataclass(frozen=True)
class Evaluation:
    """The errors of a surrogate; ``print`` shows them as tables.

    Attributes:
        place: Where the samples come from.
        grid: Their grid.
        count: How many there are.
        levels: The errors of each level, coarsest first.
        rollout: What :meth:`multigrid.rollout.RolloutErrors.to_json` tells of roll-outs, if there
            were any.
    """

    place: str
    grid: Grid
    count: int
    levels: list[LevelErrors]
    rollout: dict[str, Any] | None = None

    def mean(self, name: str = "rel_l2") -> float:
        """Returns the mean of a metric over samples, on the finest level."""
        return self.levels[-1].mean(name)

    def worst(self, count: int = 5) -> list[dict[str, Any]]:
        """Returns the samples with the largest relative L2 errors on the finest level."""
        errors = self.levels[-1].errors["rel_l2"]
        order = errors.argsort(descending=True)[:count].tolist()
        return [{"sample": index, "rel_l2": errors[index].item()} for index in order]

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
        answer = {
            "data": self.place,
            "grid": list(self.grid.shape),
            "samples": self.count,
            "levels": levels,
            "worst": self.worst(num_worst),
        }
        return answer if self.rollout is None else {**answer, "rollout": self.rollout}

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
        worst = [[str(w["sample"]), f"{w['rel_l2']:.4g}"] for w in self.worst(num_worst)]
        lines = [
            f"{self.place}: {self.count} samples on {self.grid}",
            "",
            "errors on the grid of each level's fields (rel_l2: mean, median, worst), and of its "
            "prediction prolonged to the samples' grid",
            table(header, by_level),
            "",
            "relative L2 error by wavelength, in thirds up to the grid's limit",
            table(["Level", "Grid", *BANDS.values()], by_band),
            "",
            *self._field_lines(),
            f"worst samples on {self.levels[-1].grid}",
            table(["Sample", "rel_l2"], worst),
        ]
        return "\n".join([*lines, *_rollout_lines(self.rollout)])

    def _field_lines(self) -> list[str]:
        """Returns a table of errors by output field, if there are several."""
        last, metrics = self.levels[-1], [*SHOWN, "vrmse"]
        names = list(last.by_field["rel_l2"])
        if len(names) == 1:
            return []
        rows = [[name, *(f"{last.by_field[m][name]:.4g}" for m in metrics)] for name in names]
        return [f"by output field on {last.grid}", table(["Field", *metrics], rows), ""]

    def __str__(self) -> str:
        return self.to_text()


def _rollout_lines(rollout: Mapping[str, Any] | None) -> list[str]:
    if rollout is None:
        return []
    header = ["Metric", *(f"Step {step}" for step in rollout["steps"])]
    rows = [
        [name, *(f"{v['mean']:.4g} ({v['low']:.4g} to {v['high']:.4g})" for v in values)]
        for name, values in rollout["errors"].items()
    ]
    steps = rollout["correlation_steps"]
    return [
        "",
        f"roll-outs of {rollout['trajectories']} trajectories: mean (lowest to highest)",
        table(header, rows),
        f"correlation at least 0.8 for {steps['mean']:.1f} steps ({steps['low']:.0f} to "
        f"{steps['high']:.0f}); {rollout['blow_up']:.0%} blow up",
    ]


def own_samples(config: Config, split: str = "test", count: int | None = None) -> SampleStream:
    """Returns samples that a run trains, validates or tests with, generated where missing.

    Raises:
        UserError: If they cannot be read or generated, or there are fewer than ``count``.
    """
    available = getattr(config.data, split)
    if config.files is not None and split == "train":
        available = config.samples()[-1]
    count = _at_most(count, available, f"the run has {available} {split} samples")
    _, source = problem_and_source(config)
    source.prepare({name: count if name == split else 0 for name in SPLITS})
    grid = config.hierarchy().finest
    samples = source.open(split, grid, count)
    return SampleStream(f"{source.place}, {split}", grid, count, samples.split)


def own_trajectories(config: Config, grid: Grid) -> Trajectories | None:
    """Returns the trajectories that a run rolls out against, None if there are none."""
    num_steps = config.data.rollout_steps
    _, source = problem_and_source(config)
    return source.trajectories("test", grid, num_steps) if num_steps else None


def file_samples(
    file: FieldFile,
    names: tuple[Sequence[str], Sequence[str]],
    centering: Centering,
    count: int | None = None,
) -> SampleStream:
    """Returns the samples of a file.

    Args:
        file: The file.
        names: Names of the input and of the output fields that a run was trained on.
        centering: Where the points lie that it was trained on.
        count: How many to take, by default all.

    Raises:
        UserError: If it has other fields or other points, or fewer samples than ``count``.
    """
    described = file.describe()
    for kind, trained in zip(("input", "output"), names, strict=True):
        here = getattr(described, f"{kind}_names")
        if len(here) != len(trained):
            raise UserError(
                f"{file.path}: has {len(here)} {kind} fields ({', '.join(here)}), but the run was "
                f"trained on {len(trained)} ({', '.join(trained)})"
            )
    if described.centering not in (None, centering):
        raise UserError(
            f"{file.path}: is {described.centering}-centred, but the run was trained on "
            f"{centering}-centred samples"
        )
    available = described.num_samples
    total = _at_most(count, available, f"{file.path} holds {available}")
    grid = Grid(described.shape, centering)

    def blocks(size: int) -> Iterator[Samples]:
        for start in range(0, total, size):
            inputs, outputs = file.read(np.arange(start, min(start + size, total)))
            yield Samples(torch.from_numpy(inputs), torch.from_numpy(outputs), grid)

    return SampleStream(str(file.path), grid, total, blocks)


def _at_most(count: int | None, available: int, reason: str) -> int:
    if count is not None and count > available:
        raise UserError(f"--samples: {count} are wanted, but {reason}")
    return count or available


def measure(
    networks: Mapping[int, LevelNetwork],
    names: Sequence[str],
    stream: SampleStream,
    batch_size: int,
    degree: int,
    periodic: bool,
    time: TimeSetup | None = None,
) -> list[LevelErrors]:
    """Measures several levels in one pass over the samples.

    Args:
        networks: The levels, coarsest first.
        names: Names of the output fields.
        stream: The samples.
        batch_size: Samples at once.
        degree: Polynomial degree of the prolongation to the samples' grid.
        periodic: Whether the prolongation wraps around.
        time: How states become inputs, to measure the input state itself as a prediction, too.

    Raises:
        UserError: If the samples' grid does not halve to that of a level.
    """
    for level, network in networks.items():
        if not stream.reaches(network.field_grid):
            raise UserError(
                f"{stream.place}: the samples are on {stream.grid}, which does not halve to "
                f"{network.field_grid} of level {level}"
            )
    errors: dict[int, dict[str, list[Tensor]]] = {k: defaultdict(list) for k in networks}
    for block in stream.blocks(batch_size):
        for level, network in networks.items():
            surrogate, grid = network.surrogate, network.field_grid
            samples = block.restrict_to(grid).to(surrogate.input_shift.device)
            prediction = predict(surrogate, samples.inputs, batch_size)
            fields = surrogate.scaling.fields
            values = field_errors(prediction, samples.outputs, grid, fields)
            prolonged = prolong_to(prediction, grid, block.grid, degree, periodic)
            values["on_data_grid"] = rel_l2_by_field(prolonged.cpu(), block.outputs, fields)
            if time is not None:
                # of the differences that a surrogate may predict, persistence says that they are 0
                state = time.last_state(samples.inputs)
                state = state if time.target == "state" else torch.zeros_like(state)
                values["persistence"] = rel_l2_by_field(state, samples.outputs, fields)
            for name, value in values.items():
                errors[level][name].append(value.cpu())
    measured = []
    for level, metrics in errors.items():
        joined = {name: torch.cat(values) for name, values in metrics.items()}
        by_field = per_field(joined, names)
        measured.append(LevelErrors(level, networks[level].grid, over_fields(joined), by_field))
    return measured


def write_predictions(
    path: Path,
    names: tuple[Sequence[str], Sequence[str]],
    samples: Samples,
    prediction: Tensor,
    fields: Sequence[FieldScale],
    count: int,
    rollout: RollOut | None = None,
    trajectories: Sequence[int] | None = None,
) -> None:
    """Writes ``predictions.npz``: test samples from the best to the worst, and a roll-out.

    Args:
        path: The file.
        names: Names of the input and of the output fields.
        samples: Test samples.
        prediction: What was predicted of them, ``[N, out, *grid]``.
        fields: What is typical of each output field over the training samples.
        count: How many to keep.
        rollout: A roll-out to show, if there is one.
        trajectories: Number of the trajectory of each sample; no two are taken from one.
    """
    errors = mean_rel_l2(prediction, samples.outputs, fields).cpu().numpy()
    indices, labels = choose_samples(errors, count, trajectories)
    inputs, truth, shown = (
        field[indices].cpu().numpy() for field in (samples.inputs, samples.outputs, prediction)
    )
    Examples.of(names, inputs, truth, shown, rollout, labels).write(path)


def first_rollout(
    step: Callable[[Tensor], Tensor],
    states: Tensor,
    inputs: Tensor | None = None,
    rule: StateRule | None = None,
) -> RollOut:
    """Returns the first trajectory at a few steps, true and rolled out.

    Args:
        step: Maps inputs ``[N, in, *grid]`` to predictions ``[N, C, *grid]``.
        states: True states ``[N, T + 1, C, *grid]``, the given one first.
        inputs: The first inputs ``[N, in, *grid]``; by default the first states.
        rule: How predictions become inputs; by default they are the inputs.
    """
    num_steps = states.shape[1] - 1
    steps = np.unique(np.linspace(0, num_steps, NUM_STEPS).round().astype(int))
    first = states[:1, 0] if inputs is None else inputs[:1]
    later = enumerate(roll_out(step, first, num_steps, rule), start=1)
    rolled = [states[0, 0], *(state[0] for number, state in later if number in steps)]
    planes = [
        middle_plane(np.stack([state.cpu().numpy() for state in part]))
        for part in ([states[0, number] for number in steps], rolled)
    ]
    return RollOut(steps, *planes)


def write_spectra(
    path: Path,
    networks: Mapping[int, LevelNetwork],
    samples: Samples,
    batch_size: int,
    degree: int,
    periodic: bool,
) -> None:
    """Writes ``spectra.json``: the truth and every level's error by wavelength.

    Args:
        path: The file.
        networks: The levels, coarsest first.
        samples: Test samples on the finest grid, of which the first 64 are taken.
        batch_size: Samples at once.
        degree: Polynomial degree of the prolongation to the finest grid.
        periodic: Whether fields wrap around.
    """
    finest, levels = samples[:NUM_SPECTRA], []
    for level, network in networks.items():
        grid = network.field_grid
        prediction = predict(network.surrogate, finest.restrict_to(grid).inputs, batch_size)
        error = prolong_to(prediction, grid, finest.grid, degree, periodic) - finest.outputs
        values = spectrum(error.cpu().numpy(), periodic).tolist()
        levels.append({"level": level, "grid": list(network.grid.shape), "error": values})
    truth = spectrum(finest.outputs.cpu().numpy(), periodic).tolist()
    write_json(path, {"unit": "half-waves across the box", "truth": truth, "levels": levels})


def spectrum(fields: np.ndarray, periodic: bool = False) -> np.ndarray:
    """Returns the root mean square of fields by their number of half-waves across the box.

    Fields that do not wrap around are continued evenly (cosine transform of type 2), so that their
    edges do not count as short waves; periodic ones are Fourier-transformed. A coefficient counts
    for the largest number of half-waves among its axes, which a grid of n points can carry up to
    n. By Parseval's identity the squares of all entries add up to the mean square of the fields.

    Args:
        fields: Array ``[N, C, *grid]``.
        periodic: Whether the fields wrap around the box.

    Returns:
        Array ``[n]``, n being the largest number of points along an axis (``[n + 1]`` if periodic).
        Entry j belongs to j half-waves.
    """
    axes = tuple(range(2, fields.ndim))
    shape = fields.shape[2:]
    values = np.asarray(fields, dtype=np.float64)
    if periodic:
        coefficients = np.abs(np.fft.fftn(values, axes=axes, norm="ortho"))
        counts = [2 * np.abs(np.fft.fftfreq(n, 1 / n)).round().astype(int) for n in shape]
    else:
        coefficients = fft.dctn(values, axes=axes, norm="ortho")
        counts = [np.arange(n) for n in shape]
    half_waves = np.max(np.meshgrid(*counts, indexing="ij"), axis=0)
    energy = np.square(coefficients).mean(axis=(0, 1))
    length = max(shape) + periodic
    total = np.bincount(half_waves.ravel(), energy.ravel(), minlength=length)
    return np.sqrt(total / np.prod(shape))
