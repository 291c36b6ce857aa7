"""The samples of a run: what it trains on at each level, and what it validates and tests on."""

import time

from multigrid.data.samples import Samples, TrainingSamples
from multigrid.data.statistics import TrainingStatistics
from multigrid.errors import UserError, printable
from multigrid.grid import Grid
from multigrid.ladder.components import generated_source
from multigrid.ladder.cost import held_bytes
from multigrid.ladder.experiment import Experiment
from multigrid.metrics import negligible_fields
from multigrid.models.scaling import FieldScaling
from multigrid.tables import counted
from multigrid.training.evaluation import interpolation_error

NUM_INTERPOLATED = 64
"""Validation samples on which to measure what prolongation costs."""


class RunData:
    """All samples of a run, generated or read.

    Attributes:
        train: Training samples of each level, coarsest first, and ``restriction_seconds``.
        validation: Validation samples on the finest grid, as those in ``test``.
        scaling: How fields are scaled for the network, the same on all levels.
        seconds: Time to generate or read the finest ones.
        line: Where the samples come from, for the log.
        mean_output: Mean of the training outputs ``[out, *grid]`` on the finest grid; None without.
        negligible: By split and output field, the numbers of the samples whose field counts as
            zero in relative errors.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        started = time.perf_counter()
        source, finest, counts = experiment.source, experiment.hierarchy.finest, experiment.counts
        generated = experiment.processes.from_first(lambda: source.prepare(counts))
        if not experiment.processes.is_first:  # whose folder may be that of another machine
            source.prepare(counts)
        self.train: list[TrainingSamples] = []
        self.restriction_seconds: list[float] = []
        for level, count in reversed(list(enumerate(experiment.config.samples()))):
            level_started = time.perf_counter()
            self.train.insert(0, self._training_samples(experiment.family.input_grid(level), count))
            self.restriction_seconds.insert(0, time.perf_counter() - level_started)
        self.validation, self.test = (
            source.read(split, finest, counts[split]).to(experiment.device)
            for split in ("validation", "test")
        )
        self.seconds = time.perf_counter() - started
        held = "held in memory" if isinstance(self.train[-1], Samples) else "streamed from disk"
        made = "" if experiment.config.files else f", {counted(generated, 'sample')} generated"
        self.line = f"data: {source.place}{made}, {held}, {self.seconds:.1f} s"
        unused = source.unused(finest) if experiment.config.model.fields == "folded" else []
        remarks = (f"data: {remark}" for remark in (*source.remarks, *unused))
        self.line = "\n".join(map(printable, [self.line, *remarks]))
        kind, names = experiment.normalization, experiment.problem.output_names
        # of several steps that are trained at once, the first
        statistics = TrainingStatistics.of(self.train[-1], kind == "homogeneous", len(names))
        if reason := statistics.unresolved(names):
            raise UserError(f"data: {reason}")
        self.scaling = FieldScaling.of(kind, statistics)
        labelled, fields = experiment.config.labelled, self.scaling.fields
        self.mean_output = statistics.mean_output.float() if labelled else None
        self.negligible = {
            "train": statistics.negligible(names),
            "validation": negligible_fields(self.validation.outputs, fields, names),
            "test": negligible_fields(self.test.outputs, fields, names),
        }

    def _training_samples(self, grid: Grid, count: int) -> TrainingSamples:
        """Returns the first training samples on a grid, read once for levels that share it."""
        for samples in self.train:
            if samples.grid == grid and len(samples) == count:
                return samples
            if isinstance(samples, Samples) and samples.grid == grid and len(samples) > count:
                return samples[:count]
        return training_samples(self.experiment, grid, count)

    def extra_tests(self, grid: Grid) -> dict[str, Samples]:
        """Returns the further test sets by name, on a grid; generates them if necessary."""
        config, samples = self.experiment.config, {}
        for name, changes in config.data.extra_tests.items():
            source = generated_source(config, config.pde(changes))
            source.prepare({"test": config.data.test})
            samples[name] = source.read("test", grid, config.data.test).to(self.experiment.device)
        return samples

    def interpolation_error(self, level: int) -> float | None:
        """Returns what prolonging the truth to the next level costs; None where that is no step."""
        coarse, *finer = (samples.grid for samples in self.train[level : level + 2])
        if finer in ([], [coarse]):
            return None
        fine = self.validation[:NUM_INTERPOLATED].restrict_to(finer[0])
        how = *self.experiment.prolongation, self.scaling.fields
        return interpolation_error(fine.outputs, fine.grid, coarse, *how)


def training_samples(experiment: Experiment, grid: Grid, count: int) -> TrainingSamples:
    """Returns the first training samples on a grid: in memory, or to be read from disk."""
    source = experiment.source
    read = source.read if held_bytes(experiment, grid, count) else source.open
    return read("train", grid, count).to(experiment.device)
