"""An experiment: the objects that a configuration describes, and their cost."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from multigrid import schedule
from multigrid.config import Config
from multigrid.data import SPLITS
from multigrid.data.samples import TrainingSamples
from multigrid.distributed import ALONE, Processes, local_rank, local_size
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.hardware import choose_device, choose_precision, environment, total_memory
from multigrid.ladder.components import network_family, problem_and_source, settle
from multigrid.ladder.initialization import Initializer, weights_to_load
from multigrid.metrics import FieldScale, Metric
from multigrid.models.cost import activation_bytes, count_parameters
from multigrid.models.growth import NetworkFactory
from multigrid.models.layers import ActivationCheckpointing, set_activation_checkpointing, wraps
from multigrid.models.scaling import FieldScaling, NormalizationKind
from multigrid.registry import place_of
from multigrid.tables import counted, si
from multigrid.training.callbacks import Callback, require_callbacks
from multigrid.training.finetuning import require_features
from multigrid.training.losses import Loss, Unrolling, build_loss, field_weights
from multigrid.training.optimizers import OptimizerFactory
from multigrid.training.speed import step_seconds
from multigrid.training.trainer import TrainerOptions

log = logging.getLogger(__name__)

PROCESS_BYTES = 4e8
"""Memory of Python and its libraries."""
CPU_OVERHEAD = 2.5
"""Memory for activations over their bytes on CPUs: what kernels need, and the allocator keeps."""


@dataclass(frozen=True)
class Extensions:
    """What is handed in from Python, see :func:`multigrid.train`."""

    loss: Loss | None = None
    network: NetworkFactory | None = None
    callbacks: Sequence[Callback] = field(default_factory=tuple)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    optimizer: OptimizerFactory | None = None

    def __post_init__(self) -> None:
        require_callbacks(self.callbacks, "callbacks")

    @property
    def places(self) -> dict[str, Any]:
        """Where what was handed in is defined, by the name of the argument."""
        single = {"loss": self.loss, "network": self.network, "optimizer": self.optimizer}
        places: dict[str, Any] = {key: place_of(item) for key, item in single.items() if item}
        if self.metrics:
            places["metrics"] = {name: place_of(metric) for name, metric in self.metrics.items()}
        if self.callbacks:
            places["callbacks"] = [place_of(callback) for callback in self.callbacks]
        return places


class Experiment:
    """Everything that a run needs, built from its configuration.

    ``resumed``: the files of weights to start from are not read yet, as the checkpoints of a run
    hold what it still needs of them.

    Raises:
        UserError: If the objects cannot be built, for instance from unreadable files.

    Attributes:
        config: The configuration, with what its files have shown.
        reasons: What ``auto`` has become and why, for ``schedule.cycle`` and ``model.fields``.
        counts: Number of samples of each split.
        prolongation: The degree of its polynomials, and whether it wraps around the box.
        is_automatic: Whether stages are chosen one by one; growth must preserve the function then.
        normalization: How fields are scaled: ``auto`` takes the exact way where there is one.
        family: Builds the network of each level, and ``initializer`` fills it.
        loaded: Weights to start from, by the network's names, and ``warnings`` about them.
        stages: The schedule; one by measurement grows while it is trained.
        epoch_costs: What an epoch on each level costs in the unit of the budget, where there is
            one.
    """

    def __init__(
        self,
        config: Config,
        extensions: Extensions | None = None,
        resumed: bool = False,
        processes: Processes = ALONE,
    ) -> None:
        self.processes = processes
        self.extensions = extensions or Extensions()
        self.num_steps = max(config.rollout_training.curriculum)
        self.problem, self.source = problem_and_source(config, config.labelled, self.num_steps)
        self.config, self.reasons = settle(config, self.source)
        config = self.config
        self.hierarchy = config.hierarchy()
        self.device = choose_device(config.compute.device, local_rank())
        self.precision = choose_precision(config.compute.precision, self.device)
        self.counts = {split: getattr(config.data, split) for split in SPLITS}
        self.prolongation = config.model.prolongation, wraps(config.model.padding)
        assert config.schedule.cycle != "auto"  # which is settled
        self.cycle: schedule.Cycle = config.schedule.cycle
        self.is_automatic = config.is_automatic and self.extensions.network is None
        self._check_extensions()
        homogeneous, kind = self.problem.symmetries.homogeneous, config.data.normalization
        exact: NormalizationKind = "homogeneous" if homogeneous else "gaussian"
        self.normalization: NormalizationKind = exact if kind == "auto" else kind
        field_weights(config.loss.weights, self.problem, self.extensions.loss or config.loss.name)
        self.family = network_family(config, *self.problem.num_channels, self.extensions.network)
        self._check_samples()
        self.options, self.unrolling = self._trainer_options(), self._unrolling()
        self.initializer = Initializer(self.family, config.transfer)
        self.loaded: Mapping[str, Tensor] = {}
        self.warnings: list[str] = []
        self.stages = self._stages([0] * len(config.levels))
        self.epoch_costs: list[float] = []
        self._check_processes()
        if not resumed:
            self.begin()

    def begin(self) -> None:
        """Chooses the stages, reads the weights to start from, and checks what depends on them."""
        self.epoch_costs = self.processes.from_first(self._epoch_costs)
        self.stages = self._stages(self._chosen_epochs())
        read = self.processes.from_first(lambda: weights_to_load(self.config))
        self.loaded, self.warnings = read
        plans = self.initializer.check(self.stages, self.loaded)
        if self.config.transfer.featurize:
            pairs = zip(self.stages, plans, strict=True)
            require_features((self.family.blueprint(s.level), p.always_frozen) for s, p in pairs)

    def resume(self, checkpoint: Mapping[str, Any]) -> None:
        """Takes what :meth:`begin` finds out from a checkpoint of the run."""
        self.epoch_costs, self.loaded = checkpoint["epoch_costs"], checkpoint["loaded"]
        # what saves memory may be another than when it stopped
        parts, recomputes = map(self.config.per_level, ("accumulate", "checkpoint_activations"))
        self.stages = [
            replace(s, accumulate=parts[s.level], checkpoint_activations=recomputes[s.level])
            for s in (schedule.Stage(**saved) for saved in checkpoint["stages"])
        ]

    # what the trainers need

    def loss(self, grid: Grid, level: int, fields: Sequence[FieldScale]) -> Loss:
        """Returns what is minimised on a level, on fields of a grid."""
        config = self.config
        return build_loss(
            self.extensions.loss or config.loss.name,
            grid,
            self.problem,
            config.loss.residual,
            self.family.input_grid(min(level + 1, len(self.hierarchy.levels) - 1)),
            self.prolongation[0],
            fields,
            config.loss.weights,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a run's result depends on besides its configuration."""
        extensions, config = self.extensions.places, self.config
        return {
            **environment(self.device, self.processes.size),
            "loss": extensions.get("loss", config.loss.name),
            "network": extensions.get("network", config.model.network),
            "optimizer": extensions.get("optimizer", config.optimizer.name),
        }

    def _unrolling(self) -> Unrolling | None:
        """Returns how roll-outs are trained, if they are."""
        section, setup = self.config.rollout_training, self.source.time
        if not section.is_used:
            return None
        if setup is None:
            raise UserError(
                "rollout_training: a surrogate can be rolled out if its outputs are all the states "
                "of its inputs, which is not so in these files; leave the section out"
            )
        return Unrolling(setup, section.curriculum, section.method, section.noise)

    def training_samples(self, grid: Grid, count: int) -> TrainingSamples:
        """Returns the first training samples on a grid: in memory, or to be read from disk."""
        read = self.source.read if self._held_bytes(grid, count) else self.source.open
        return read("train", grid, count).to(self.device)

    def about(self, level: int, scaling: FieldScaling) -> dict[str, Any]:
        """Returns what a file of a level's weights says of them, as plain containers."""
        problem = self.problem
        return {
            "level": level,
            "grid": list(self.hierarchy.levels[level].shape),
            "config": self.config.model_dump(),
            "fields": {"input": list(problem.input_names), "output": list(problem.output_names)},
            "scaling": scaling.to_dict(),
            "time": None if self.source.time is None else asdict(self.source.time),
        }

    def _check_extensions(self) -> None:
        """Checks that what is handed in leaves no setting without effect."""
        if self.extensions.loss is not None and not self.config.labelled:
            raise UserError("loss.name: 'energy' has no effect on a loss handed in; leave it out")
        if self.config.budget.error is not None and not self.is_automatic:
            raise UserError(
                "schedule.budget.error: is for the growing pyramids of the section 'model', not "
                "for a network handed in; leave it out"
            )

    def _check_samples(self) -> None:
        """Checks that the user's files have what the levels need, which reads no samples."""
        for level, count in reversed(list(enumerate(self.config.samples()))):
            self.source.require("train", self.family.input_grid(level), count)
        for split in ("validation", "test"):
            self.source.require(split, self.hierarchy.finest, self.counts[split])

    def _trainer_options(self) -> TrainerOptions:
        config = self.config
        return TrainerOptions(
            optimizer=self.extensions.optimizer or config.optimizer.name,
            settings=config.optimizer,
            precision=self.precision,
            compile=config.compute.compile,
            symmetries=self.problem.symmetries if config.data.augmentation == "auto" else None,
            mode_shifts=config.data.mode_shifts,
            noise=config.data.noise,
            seed=config.seed,
            recovery=config.recovery,
            processes=self.processes,
        )

    # the schedule and its cost

    def _stages(self, epochs: Sequence[int]) -> list[schedule.Stage]:
        """Returns the schedule, with so many epochs at each visit to a level."""
        names = ("batch_size", "learning_rate", "transferred_ratio", "warmup", "accumulate")
        settings = map(self.config.per_level, (*names, "checkpoint_activations"))
        return schedule.build_schedule(self.cycle, epochs, *settings)

    @cached_property
    def epoch_flops(self) -> list[float]:
        """Floating-point operations of one training epoch on each level."""
        counts = enumerate(self.config.samples())
        return [float(count * self.family.flops(level).training) for level, count in counts]

    def work_units(self, level: int, epochs: int) -> float:
        """Returns the work of some epochs on a level; one of single steps on the finest is 1."""
        return epochs * self._unrolled(level) * self.epoch_flops[level] / self.epoch_flops[-1]

    def _unrolled(self, level: int) -> float:
        """Returns what training roll-outs costs on a level over training single steps."""
        one = self.family.flops(level)
        return self.unrolling.mean_cost(one) / one.training if self.unrolling else 1.0

    @property
    def stage_costs(self) -> list[float]:
        """What each stage costs, and last what remains for stages to be chosen by measurement."""
        if not self.is_automatic:
            return [self.work_units(stage.level, stage.epochs) for stage in self.stages]
        costs = [self.epoch_costs[stage.level] * stage.epochs for stage in self.stages]
        return [*costs, max(0.0, self.config.budget.amount - sum(costs))]

    def extended(self, finished: Sequence[Mapping[str, Any]]) -> list[schedule.Stage]:
        """Returns a schedule by measurement after its finished stages: with the next, if any."""
        budget, before = self.config.budget, self.stages[: len(finished)]
        if before and not before[-1].epochs:
            return before  # it was the last one
        unit = "work_units" if budget.seconds is None else "seconds"
        outcomes = [schedule.Outcome(s["level"], s[unit], s["finest_rel_l2"]) for s in finished]
        expected = sum(self.epoch_costs[stage["level"]] * stage["epochs"] for stage in finished)
        pace = sum(stage.cost for stage in outcomes) / expected if expected else 1.0
        costs = [pace * cost for cost in self.epoch_costs]  # seconds were estimated
        choice = schedule.choose(outcomes, budget.amount, costs, budget.error or 0.0)
        choice = choice or self._last_choice(outcomes)
        if choice is None:
            return before
        level, epochs, source, reason = choice
        stage = self._stages([epochs] * len(self.config.levels))[level]
        return [*before, replace(stage, index=len(finished), source=source, reason=reason)]

    def _last_choice(self, outcomes: Sequence[schedule.Outcome]) -> schedule.Choice | None:
        """Returns the stage without epochs that makes the best network so far the result.

        None if it is that already. Restricted networks are grown to the finest grid, which
        preserves what they compute.
        """
        kept = schedule.last_kept(outcomes)
        level = outcomes[kept].level
        if self.config.model.fields == "restricted":
            level = len(self.config.levels) - 1
        if kept == len(outcomes) - 1 and level == outcomes[kept].level:
            return None
        return schedule.Choice(level, 0, kept, "the best network so far is the result")

    def _chosen_epochs(self) -> list[int]:
        """Returns the epochs of each level: the configured ones, or what the budget allows."""
        config = self.config
        if not self.epoch_costs:
            return config.per_level("epochs")
        if self.is_automatic:  # an epoch on each, until they are chosen
            return [1] * len(config.levels)
        sequence = schedule.level_sequence(self.cycle, len(config.levels))
        visits = [sequence.count(level) for level in range(len(config.levels))]
        return schedule.spread_budget(config.budget.amount, self.epoch_costs, visits)

    def _epoch_costs(self) -> list[float]:
        """Returns what an epoch on each level costs in the unit of the budget, if there is one.

        Seconds come from timing some steps on each level, so they differ on another day.
        """
        if self.config.schedule.epochs != "auto":
            return []
        levels = range(len(self.config.levels))
        if self.config.budget.seconds is None:
            return [self.work_units(level, 1) for level in levels]
        return [self._epoch_seconds(level) for level in levels]

    def _epoch_seconds(self, level: int) -> float:
        """Returns the time of one epoch on a level, by timing a few steps."""
        config = self.config
        stage = next((stage for stage in self.stages if stage.level == level), None)
        if stage is None:  # not in the cycle
            return 0.0
        network = self.family.build(level).to(self.device)
        set_activation_checkpointing(network, stage.checkpoint_activations)
        size = stage.part_size(self.processes)
        shape = (size, self.family.in_channels, *self.family.input_grid(level).shape)
        num_microbatches = math.ceil(self.processes.largest_share(stage.batch_size) / size)
        num_microbatches *= math.ceil(config.samples()[level] / stage.batch_size)
        seconds = step_seconds(network, shape, self.options.optimizer, self.precision)
        return num_microbatches * seconds * self._unrolled(level)

    def _check_processes(self) -> None:
        """Checks that processes and networks can do what the section ``parallel`` wants."""
        schedule.check_shares(self.stages, self.processes)
        for stage in self.stages:
            network = self.family.blueprint(stage.level)
            if stage.checkpoint_activations and not isinstance(network, ActivationCheckpointing):
                raise UserError(
                    "parallel.checkpoint_activations: true is for the networks of the section "
                    "'model'; one of your own can use torch.utils.checkpoint itself"
                )

    # memory

    def memory_bytes(self, stage: schedule.Stage) -> float:
        """Returns about how much memory a process takes in a stage.

        Weights, gradients, optimizer state and the copy of the best state; samples that are held;
        and activations.
        """
        network = self.family.blueprint(stage.level)
        weights = 4.0 * count_parameters(network)
        state = weights if self.options.optimizer == "muon" else 2 * weights
        shape = (1, self.family.in_channels, *self.family.input_grid(stage.level).shape)
        element = 2 if self.precision == "bfloat16" else 4
        activations = activation_bytes(network, shape, element, stage.checkpoint_activations)
        if self.unrolling is not None and self.unrolling.method == "unrolled":
            activations *= self.num_steps  # whose graphs are alive at once
        if self.device.type == "cpu":
            activations *= CPU_OVERHEAD
        whole = PROCESS_BYTES + self._sample_bytes() + weights + state
        spread = (2 * weights + state) / (self.processes.size if self.processes.shards else 1)
        return whole + spread + stage.part_size(self.processes) * activations

    def warn_of_memory(self) -> None:
        """Logs a warning for each level that may not fit into memory."""
        for stage in {stage.level: stage for stage in self.stages}.values():
            needed = self.memory_bytes(stage)
            if needed > self._memory:
                log.warning(
                    "levels[%d]: training on %s takes about %sB of memory, but this machine has "
                    "%sB for a process; parallel.accumulate, parallel.checkpoint_activations=true, "
                    "a smaller model.width or data.memory=stream take less",
                    stage.level,
                    self.hierarchy.levels[stage.level],
                    si(needed),
                    si(self._memory),
                )

    def _sample_bytes(self) -> float:
        """Returns the memory of all samples that are held."""
        num_inputs, num_outputs = self.problem.num_channels
        counts: dict[Grid, int] = {}  # levels with the same fields share their samples
        for level, count in enumerate(self.config.samples()):
            grid = self.family.input_grid(level)
            counts[grid] = max(count, counts.get(grid, 0))
        unseen = self.counts["validation"] + self.counts["test"]
        held = 4.0 * (num_inputs + num_outputs) * unseen * self.hierarchy.finest.size
        return held + sum(self._held_bytes(grid, count) for grid, count in counts.items())

    def _held_bytes(self, grid: Grid, count: int) -> int:
        """Returns the memory of training samples on a grid, 0 if they are read from disk."""
        num_inputs, num_outputs = self.problem.num_channels
        size = 4 * (num_inputs + self.num_steps * num_outputs) * count * grid.size
        memory = self.config.data.memory
        is_held = size <= self._memory / 2 if memory == "auto" else memory == "hold"
        return size if is_held else 0

    @property
    def _memory(self) -> float:
        """Memory for this process; those of one machine share it, but each has a GPU of its own."""
        return total_memory(self.device) / (1 if self.device.type == "cuda" else local_size())

    # in words

    def describe(self) -> str:
        """Returns ladder, schedule, cost and memory estimate as text."""
        fields = f"{', '.join(self.problem.input_names)} -> {', '.join(self.problem.output_names)}"
        inner = ", ".join(str(grid) for grid in self.hierarchy.scales[: self.hierarchy.tops[0]])
        compiled = ", compiled" if self.config.compute.compile else ""
        memory = max(self.memory_bytes(stage) for stage in self.stages)
        chosen = [f"{key} auto: {reason}" for key, reason in self.reasons.items()]
        padding, unfit = self.config.model.padding, []
        if self.problem.periodic and self.prolongation[1] is not True:
            unfit = [f"the fields are periodic, but model.padding is '{padding}', not 'periodic'"]
        return "\n".join(
            [
                f"{self.config.name}: {self.problem.kind} ({fields}), {self.family.kind}, "
                f"{self.precision} on {self.device}{compiled}, {self._workers()}, "
                f"{self.config.centering}-centred grids",
                "",
                str(self.family),
                f"scales below level 0: {inner or 'none'}",
                *chosen,
                "",
                self._describe_schedule(),
                f"memory about {si(memory)}B",
                *unfit,
                *self.warnings,
            ]
        )

    def _describe_schedule(self) -> str:
        """Returns the stages and their cost; those of a schedule by measurement are not known."""
        if self.is_automatic:
            budget = self.config.budget.model_dump(exclude_none=True)
            limits = ", ".join(f"{key} {value:g}" for key, value in budget.items())
            return f"stages are chosen by measurement, within a budget of {limits}"
        work = self.stage_costs
        flops = sum(work) * self.epoch_flops[-1]
        stages = schedule.schedule_table(self.stages, self.hierarchy.levels, work)
        return f"{stages}\n\ntotal: {sum(work):.2f} work units, {si(flops)}FLOPs"

    def _workers(self) -> str:
        threads, size = counted(torch.get_num_threads(), "thread"), self.processes.size
        if size == 1:
            alone = ", one process: nothing is spread"
            return threads + (alone if self.config.parallel.strategy == "fsdp" else "")
        return f"{size} processes ({self.config.parallel.strategy}) of {threads} each"
