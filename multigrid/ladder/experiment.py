"""An experiment: the objects that a configuration describes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from multigrid.config import Config
from multigrid.config.checks import check_handed_in
from multigrid.data import SPLITS
from multigrid.distributed import ALONE, Processes, local_rank
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.hardware import choose_device, choose_precision, environment
from multigrid.ladder.components import network_family, problem_and_source, settle
from multigrid.ladder.initialization import Initializer
from multigrid.ladder.plan import Plan
from multigrid.metrics import FieldScale, Metric
from multigrid.models.growth import NetworkFactory
from multigrid.models.layers import ActivationCheckpointing, set_activation_checkpointing, wraps
from multigrid.models.scaling import FieldScaling, NormalizationKind
from multigrid.registry import LOSSES, OPTIMIZERS, place_of
from multigrid.schedule import Stage, check_shares
from multigrid.training.callbacks import Callback, require_callbacks
from multigrid.training.losses import Loss, Unrolling, build_loss, field_weights
from multigrid.training.optimizers import OptimizerFactory
from multigrid.training.speed import step_seconds
from multigrid.training.trainer import TrainerOptions


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
    """Everything that a run needs, built from its configuration, and not changed afterwards.

    Raises:
        UserError: If the objects cannot be built, for instance from unreadable files.

    Attributes:
        config: The configuration, with what its files have shown.
        reasons: What ``auto`` has become and why, for ``schedule.cycle`` and ``model.fields``.
        counts: Number of samples of each split.
        prolongation: The degree of its polynomials, and whether it wraps around the box.
        normalization: How fields are scaled: ``auto`` takes the exact way where there is one.
        family: Builds the network of each level, and ``initializer`` fills it.
        plan: The stages and their cost.
    """

    def __init__(
        self,
        config: Config,
        extensions: Extensions | None = None,
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
        self._check_extensions()
        homogeneous, kind = self.problem.symmetries.homogeneous, config.data.normalization
        exact: NormalizationKind = "homogeneous" if homogeneous else "gaussian"
        self.normalization: NormalizationKind = exact if kind == "auto" else kind
        self._function = self._chosen_loss()
        field_weights(config.loss.weights, self.problem, self._function)
        self.family = network_family(config, *self.problem.num_channels, self.extensions.network)
        self._check_samples()
        self.options, self.unrolling = self._trainer_options(), self._unrolling()
        self.initializer = Initializer(self.family, config.transfer)
        self.plan = Plan(config, self.family, self.unrolling)
        self._check_processes()

    def loss(self, grid: Grid, level: int, fields: Sequence[FieldScale]) -> Loss:
        """Returns what is minimised on a level, on fields of a grid."""
        config = self.config
        return build_loss(
            self._function,
            grid,
            self.problem,
            config.loss.residual,
            self.family.input_grid(min(level + 1, len(self.hierarchy.levels) - 1)),
            self.prolongation[0],
            fields,
            config.loss.weights,
        )

    def epoch_seconds(self, stage: Stage) -> float:
        """Returns the time of one epoch of single steps on a level, by timing a few of them."""
        network = self.family.build(stage.level).to(self.device)
        set_activation_checkpointing(network, stage.checkpoint_activations)
        size = stage.part_size(self.processes)
        shape = (size, self.family.in_channels, *self.family.input_grid(stage.level).shape)
        num_microbatches = math.ceil(self.processes.largest_share(stage.batch_size) / size)
        num_microbatches *= math.ceil(self.config.samples()[stage.level] / stage.batch_size)
        seconds = step_seconds(network, shape, self.options.optimizer, self.precision)
        return num_microbatches * seconds

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
        config, extensions = self.config, self.extensions
        if config.budget.error is not None and extensions.network is not None:
            raise UserError(
                "schedule.budget.error: is for the growing pyramids of the section 'model', not "
                "for a network handed in; leave it out"
            )
        for what in ("loss", "network", "optimizer"):
            if getattr(extensions, what) is not None:
                check_handed_in(config, what)

    def _chosen_loss(self) -> str | Loss:
        """Returns the loss: what was handed in, or the name of one without options."""
        section = self.config.loss
        if self.extensions.loss is not None or section.name == "energy":
            return self.extensions.loss or section.name
        loss: Loss = LOSSES.configured(section.name, section.options, "loss.options")
        return loss if section.options else section.name

    def _check_samples(self) -> None:
        """Checks that the user's files have what the levels need, which reads no samples."""
        for level, count in reversed(list(enumerate(self.config.samples()))):
            self.source.require("train", self.family.input_grid(level), count)
        for split in ("validation", "test"):
            self.source.require(split, self.hierarchy.finest, self.counts[split])

    def _trainer_options(self) -> TrainerOptions:
        config = self.config
        named = config.optimizer.name, config.optimizer.options, "optimizer.options"
        return TrainerOptions(
            optimizer=self.extensions.optimizer or OPTIMIZERS.configured(*named),
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

    def _check_processes(self) -> None:
        """Checks that processes and networks can do what the section ``parallel`` wants."""
        check_shares(self.plan.stages, self.processes)
        for stage in self.plan.stages:
            network = self.family.blueprint(stage.level)
            if stage.checkpoint_activations and not isinstance(network, ActivationCheckpointing):
                raise UserError(
                    "parallel.checkpoint_activations: true is for the networks of the section "
                    "'model'; one of your own can use torch.utils.checkpoint itself"
                )
