"""An experiment: the objects that a configuration describes, and what they will cost."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from multigrid.config import Config, parse_config
from multigrid.config.problem import FileConfig
from multigrid.data import SPLITS
from multigrid.data.files import DataFile, FileSource
from multigrid.data.readers import ReaderOptions
from multigrid.data.samples import Samples
from multigrid.data.source import GeneratedSource, SampleSource
from multigrid.data.store import DataStore
from multigrid.data.streaming import TrainingSamples
from multigrid.errors import UserError
from multigrid.grid import Centering, Grid
from multigrid.guard import RecoveryOptions
from multigrid.hardware import choose_device, choose_precision, total_memory
from multigrid.initialization import Initializer, TransferSettings, weights_to_load
from multigrid.models.cost import (
    activation_bytes,
    count_parameters,
    training_flops,
)
from multigrid.models.family import UNetFamily
from multigrid.models.own import NetworkFactory, OwnFamily
from multigrid.models.protocol import NetworkFamily
from multigrid.models.steps import SplitNetwork
from multigrid.models.surrogate import NormalizationKind
from multigrid.problems import (
    PDE,
    FileProblem,
    Problem,
    ReactionDiffusion,
    Symmetries,
    build_problem,
)
from multigrid.regimes import Regime
from multigrid.schedule import (
    Stage,
    build_schedule,
    level_sequence,
    schedule_table,
    spread_budget,
)
from multigrid.tables import si
from multigrid.timing import step_seconds
from multigrid.trainer import TrainerOptions

NUM_TRAJECTORIES = 16


class Experiment:
    """Everything that a run needs, built from its configuration.

    Args:
        config: The configuration.
        network: Factory of the user's own networks, a grid to a module, used instead of the UNets
            of the section ``model``; its ``padding`` and ``prolongation`` still hold for fields.
        resumed: Whether not to read the files of weights to start from yet, as the checkpoints of
            a run hold what it still needs of them.

    Raises:
        UserError: If the objects cannot be built, files above all.

    Attributes:
        config: The configuration.
        hierarchy: Grids of levels and scales.
        problem: The PDE.
        source: Where its samples come from.
        family: Builds the network of each level.
        initializer: Fills it.
        loaded: Weights to start from, by the network's names.
        epochs: Epochs at each visit to a level.
        stages: The schedule.
        device: Where to compute.
        precision: Number format of the networks.
        options: Options of the trainer.
    """

    def __init__(
        self, config: Config, network: NetworkFactory | None = None, resumed: bool = False
    ) -> None:
        self.config = config = settle(config)
        self.hierarchy = config.hierarchy()
        self.problem, self.source = problem_and_source(config, config.labelled)
        self.device = choose_device(config.compute.device)
        self.precision = choose_precision(config.compute.precision, self.device)
        channels = len(self.problem.input_names), len(self.problem.output_names)
        self.family = network_family(config, *channels, network)
        self.options = self._trainer_options()
        self.initializer = Initializer(self.family, TransferSettings.from_config(config))
        self.loaded: Mapping[str, Tensor] = {}
        self.set_epochs([0] * len(config.levels))
        if not resumed:
            self.begin()

    def begin(self) -> None:
        """Chooses the epochs, reads the weights to start from, and checks what depends on them.

        Raises:
            UserError: If the budget is too small, or the weights cannot be read or do not fit.
        """
        self.set_epochs(self._chosen_epochs())
        self.loaded = weights_to_load(self.config)
        regimes = self.initializer.check(self.stages, self.loaded)
        if self.config.transfer.featurize:
            self._check_featurization(regimes)

    @property
    def normalization(self) -> NormalizationKind:
        """How fields are scaled: ``auto`` takes the exact way where the problem has one."""
        name = self.config.data.normalization
        if name != "auto":
            return name
        return "homogeneous" if self.problem.symmetries.homogeneous else "gaussian"

    @property
    def counts(self) -> dict[str, int]:
        """Number of samples of each split."""
        return {split: getattr(self.config.data, split) for split in SPLITS}

    @property
    def periodic(self) -> bool:
        """Whether prolongation wraps around the box."""
        return self.config.model.padding == "periodic"

    @cached_property
    def epoch_flops(self) -> list[float]:
        """Floating-point operations of one training epoch on each level."""
        flops = []
        for level, (grid, samples) in enumerate(
            zip(self.hierarchy.levels, self.config.samples(), strict=True)
        ):
            shape = (1, self.family.in_channels, *grid.shape)
            flops.append(float(samples * training_flops(self.family.blueprint(level), shape)))
        return flops

    def set_epochs(self, epochs: Sequence[int]) -> None:
        """Sets the schedule, with so many epochs at each visit to a level."""
        config = self.config
        self.epochs = list(epochs)
        self.stages: list[Stage] = build_schedule(
            config.schedule.cycle,
            self.epochs,
            config.per_level("batch_size"),
            config.per_level("learning_rate"),
            config.per_level("transferred_ratio"),
            config.per_level("warmup"),
        )

    def work_units(self, level: int, epochs: int) -> float:
        """Returns the work of some epochs on a level; one on the finest level is 1."""
        return epochs * self.epoch_flops[level] / self.epoch_flops[-1]

    def describe(self) -> str:
        """Returns ladder, schedule, cost and memory estimate as text."""
        levels = self.hierarchy.levels
        work = [self.work_units(stage.level, stage.epochs) for stage in self.stages]
        flops = sum(work) * self.epoch_flops[-1]
        fields = f"{', '.join(self.problem.input_names)} -> {', '.join(self.problem.output_names)}"
        inner = ", ".join(str(grid) for grid in self.hierarchy.scales[: self.hierarchy.tops[0]])
        return "\n".join(
            [
                f"{self.config.name}: {self.problem.kind} ({fields}), {self.family.kind}, "
                f"{self.precision} on {self.device}, {torch.get_num_threads()} threads",
                "",
                str(self.family),
                f"scales below level 0: {inner or 'none'}",
                "",
                schedule_table(self.stages, levels, work),
                "",
                f"total: {sum(work):.2f} work units, {si(flops)}FLOPs, memory about "
                f"{si(self.memory_bytes())}B",
            ]
        )

    def memory_bytes(self) -> float:
        """Estimates the memory of the most demanding stage.

        Weights, gradients and optimiser state, saved activations of one batch, and the samples.
        """
        element_size = 2 if self.precision == "bfloat16" else 4
        most = 0
        for stage in self.stages:
            network = self.family.blueprint(stage.level)
            grid = self.hierarchy.levels[stage.level]
            shape = (stage.batch_size, self.family.in_channels, *grid.shape)
            activations = activation_bytes(network, shape, element_size)
            most = max(most, 4 * 4 * count_parameters(network) + activations)
        channels = self.family.in_channels + self.family.out_channels
        num_samples = sum(self.counts.values())
        if not self._holds(self.hierarchy.finest, self.counts["train"]):
            num_samples -= self.counts["train"]
        return most + 2 * 4 * num_samples * channels * self.hierarchy.finest.size

    def training_samples(self, grid: Grid, count: int) -> TrainingSamples:
        """Returns the first training samples on a grid: in memory, or to be read from disk."""
        read = self.source.read if self._holds(grid, count) else self.source.open
        return read("train", grid, count).to(self.device)

    def extra_test_samples(self, grid: Grid) -> dict[str, Samples]:
        """Returns the further test sets by name, on a grid; generates them if necessary."""
        section, count = self.config.problem, self.config.data.test
        found = {}
        for name, changes in self.config.data.extra_tests.items():
            problem = build_problem(**{**section.model_dump(), **changes})
            source = _generated(self.config, problem)
            source.prepare({"test": count})
            found[name] = source.read("test", grid, count)
        return found

    def test_trajectories(self, grid: Grid) -> Tensor | None:
        """Returns true trajectories ``[N, num_steps + 1, C, *grid]`` for a roll-out, or None."""
        num_steps = self.config.data.rollout_steps
        if not num_steps or not isinstance(self.problem, ReactionDiffusion):
            return None
        seed = self.config.data.seed
        rngs = [
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(len(SPLITS), index)))
            for index in range(NUM_TRAJECTORIES)
        ]
        trajectories = [self.problem.trajectory(grid, rng, num_steps) for rng in rngs]
        return torch.from_numpy(np.stack(trajectories)).float()

    def _chosen_epochs(self) -> list[int]:
        """Returns the epochs of each level: those of the configuration, or what the budget allows.

        A budget in seconds is spread after timing some steps on each level, so it gives other
        epochs on another day.

        Raises:
            UserError: If the budget is too small.
        """
        config = self.config
        if config.schedule.epochs != "auto":
            return config.per_level("epochs")
        levels = range(len(config.levels))
        sequence = level_sequence(config.schedule.cycle, len(levels))
        visits = [sequence.count(level) for level in levels]
        budget = config.budget
        if budget.seconds is not None:
            costs = [self._epoch_seconds(level) if visits[level] else 0.0 for level in levels]
            return spread_budget(budget.seconds, costs, visits)
        assert budget.work_units is not None  # a budget has one of the two
        costs = [self.work_units(level, 1) for level in levels]
        return spread_budget(budget.work_units, costs, visits)

    def _epoch_seconds(self, level: int) -> float:
        """Returns the time of one epoch on a level, by timing a few steps."""
        config = self.config
        batch_size = config.per_level("batch_size")[level]
        network = self.family.build(level).to(self.device)
        shape = (batch_size, self.family.in_channels, *self.hierarchy.levels[level].shape)
        num_steps = math.ceil(config.samples()[level] / batch_size)
        return num_steps * step_seconds(network, shape, config.optimizer.name, self.precision)

    def _check_featurization(self, regimes: Sequence[Regime]) -> None:
        splits = [
            SplitNetwork(self.family.blueprint(stage.level), regime.always_frozen)
            for stage, regime in zip(self.stages, regimes, strict=True)
        ]
        if not any(split.is_worthwhile for split in splits):
            raise UserError(
                "transfer.featurize: no part of the network depends on the input and frozen "
                "weights alone; freeze all that comes first with transfer.rules, such as "
                "{pattern: '*', freeze: true} and {pattern: '*.head', freeze: false}, or set it to "
                "false (a network of your own needs steps, as a torch.nn.Sequential has)"
            )

    def _holds(self, grid: Grid, count: int) -> bool:
        """Whether to keep training samples in memory."""
        channels = self.family.in_channels + self.family.out_channels
        return self.holds_bytes(4 * channels * count * grid.size)

    def holds_bytes(self, size: int) -> bool:
        """Whether to keep so much of what is trained on in memory."""
        memory = self.config.data.memory
        return memory == "hold" if memory != "auto" else size <= total_memory(self.device) / 2

    def _trainer_options(self) -> TrainerOptions:
        schedule, optimizer = self.config.schedule, self.config.optimizer
        recovery = self.config.recovery
        augmented = self.config.data.augmentation == "auto"
        return TrainerOptions(
            optimizer=optimizer.name,
            weight_decay=optimizer.weight_decay,
            betas=(optimizer.betas[0], optimizer.betas[1]),
            decay=optimizer.decay,
            final_rate=optimizer.final_rate,
            clip=optimizer.clip,
            precision=self.precision,
            symmetries=self.problem.symmetries if augmented else None,
            patience=schedule.patience,
            seed=self.config.seed,
            recovery=RecoveryOptions(recovery.tries, recovery.factor, recovery.explosion),
            accumulate=recovery.accumulate,
        )


def settle(config: Config) -> Config:
    """Returns a configuration that leaves nothing to find out: where the points lie.

    Raises:
        UserError: If the files of which that is to be found out cannot be used.
    """
    if config.data.centering != "auto":
        return config
    centering = config.centering
    if isinstance(config.problem, FileConfig):
        centering = open_files(config.problem, "auto", _counts(config)).centering
    raw = config.model_dump()
    return parse_config({**raw, "data": {**raw["data"], "centering": centering}}, config.name)


def _counts(config: Config) -> dict[str, int]:
    """Returns the number of samples that a user's files must have for each split."""
    counts = {split: getattr(config.data, split) for split in SPLITS}
    return {**counts, "train": config.samples()[-1]}


def problem_and_source(config: Config, labelled: bool = True) -> tuple[Problem, SampleSource]:
    """Returns the PDE of a configuration and where its samples come from.

    Args:
        config: The configuration.
        labelled: Whether generated training samples must have solutions.

    Raises:
        UserError: If the user's files cannot be used.
    """
    section = config.problem
    if isinstance(section, FileConfig):
        files = open_files(section, config.data.centering, _counts(config))
        names = files.input_names, files.output_names
        return FileProblem(*names, Symmetries(**section.flags())), files
    problem = build_problem(**section.model_dump())
    return problem, _generated(config, problem, labelled)


def _generated(config: Config, problem: PDE, labelled: bool = True) -> GeneratedSource:
    folder, finest = Path(config.data.folder), config.hierarchy().finest
    return GeneratedSource(DataStore(folder, problem, finest, config.data.seed), labelled)


def network_family(
    config: Config, in_channels: int, out_channels: int, network: NetworkFactory | None = None
) -> NetworkFamily:
    """Returns the networks of a ladder: those of a factory, or the UNets of a configuration."""
    hierarchy, model = config.hierarchy(), config.model
    if network is not None:
        return OwnFamily(network, hierarchy, in_channels, out_channels, seed=config.seed)
    return UNetFamily(
        hierarchy,
        config.widths(hierarchy),
        in_channels,
        out_channels,
        form=model.form,
        num_blocks=model.num_blocks,
        padding=model.padding,
        norm=model.normalization,
        prolongation=model.prolongation,
        bottleneck=model.bottleneck,
        growth=model.growth,
        seed=config.seed,
    )


def open_files(
    section: FileConfig, centering: Centering | Literal["auto"], counts: Mapping[str, int]
) -> FileSource:
    """Opens the user's files.

    Raises:
        UserError: If they cannot be used; nothing has been read but their descriptions.
    """
    files = [DataFile(Path(entry.file), entry.split) for entry in section.entries()]
    options = ReaderOptions(
        section.input,
        section.output,
        section.ndim,
        section.reduced_resolution,
        tuple(section.fields) if section.fields else None,
    )
    return FileSource(files, counts, centering, section.reader, options)
