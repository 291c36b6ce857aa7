"""How much memory a training will take, and which ways of taking less would fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from multigrid.distributed.processes import Processes
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.models.cost import activation_bytes, count_parameters
from multigrid.schedule import Stage
from multigrid.tables import si, table
from multigrid.training.optimizers import OptimizerName, is_hidden

PROCESS_BYTES = 4e8
"""Python and its libraries."""
CPU_OVERHEAD = 2.5
"""Memory for activations over their bytes on CPUs: what kernels need, and the allocator keeps.

From ``python -m experiments.benchmarks memory``, in 2-D and 3-D; on GPUs nothing was measured.
"""
MANY = 8


@dataclass(frozen=True)
class Choice:
    """A way to fit a step into memory.

    Attributes:
        part_size: Samples that a process takes at once.
        checkpointed: Whether activations are computed anew in the backward pass.
        spread: Over how many processes parameters and optimiser state are spread.
    """

    part_size: int
    checkpointed: bool
    spread: int = 1


class Footprint:
    """The memory that each process of a training takes, estimated.

    Args:
        stages: The schedule.
        grids: Grids of the levels.
        blueprint: Returns the network of a level.
        in_channels: Number of input fields.
        element_size: Bytes of a number in activations.
        optimizer: How the weights are updated.
        processes: The processes that share each batch.
        sample_bytes: What is held of the samples.
        available: Memory for a process.
        split_batches: Whether a batch that does not fit is taken in smaller parts by itself.
        overhead: Memory for activations over their bytes.
        loss_bytes: Returns the memory that the loss takes on a level for each sample.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        grids: Sequence[Grid],
        blueprint: Callable[[int], nn.Module],
        in_channels: int,
        element_size: int,
        optimizer: OptimizerName,
        processes: Processes,
        sample_bytes: float,
        available: float,
        split_batches: bool,
        overhead: float = 1.0,
        loss_bytes: Callable[[int], float] = lambda level: 0.0,
    ) -> None:
        self.grids = grids
        self.blueprint = blueprint
        self.in_channels = in_channels
        self.element_size = element_size
        self.optimizer = optimizer
        self.processes = processes
        self.sample_bytes = sample_bytes
        self.available = available
        self.split_batches = split_batches
        self.overhead = overhead
        self.loss_bytes = loss_bytes
        self.stages = {stage.level: stage for stage in stages}
        self._activations: dict[tuple[int, bool], float] = {}

    def chosen(self, stage: Stage) -> Choice:
        """Returns what the configuration says for a stage."""
        spread = self.processes.size if self.processes.shards else 1
        return Choice(stage.part_size(self.processes), stage.checkpoint_activations, spread)

    def bytes(self, level: int, choice: Choice) -> float:
        """Returns the memory that a process takes on a level."""
        network = self.blueprint(level)
        weights = 4 * count_parameters(network)
        muon = self.optimizer == "muon"
        state = sum(
            4 * p.numel() * (1 if muon and is_hidden(name, p) else 2)
            for name, p in network.named_parameters()
        )
        spread = (2 * weights + state) / choice.spread  # weights, gradients, optimiser
        best = weights + state  # whole in every process
        gathered = 2 * weights if choice.spread > 1 else 0
        activations = choice.part_size * (
            self._sample_activations(level, choice.checkpointed) + self.loss_bytes(level)
        )
        return PROCESS_BYTES + self.sample_bytes + spread + best + gathered + activations

    @cached_property
    def most(self) -> float:
        """Memory of the most demanding stage, as configured."""
        return max(self.bytes(level, self.chosen(stage)) for level, stage in self.stages.items())

    def table(self) -> str:
        """Returns a table of what each choice would take, and whether it fits."""
        rows = []
        for level, stage in sorted(self.stages.items()):
            share = self.processes.largest_share(stage.batch_size)
            choices = [
                self.chosen(stage),
                Choice(share, False),
                Choice(share, True),
                Choice(1, False),
                Choice(1, True),
                Choice(1, True, MANY),
            ]
            cells = [self._cell(self.bytes(level, choice)) for choice in choices]
            rows.append([str(level), str(self.grids[level]), str(stage.batch_size), *cells])
        header = ["Level", "Grid", "Batch", "As set", "Plain", "Checkpointed", "One by one"]
        header += ["Both", f"Both, FSDP over {MANY}"]
        return (
            f"memory of a process, of which this machine has {si(self.available)}B (* does not "
            "fit)\nplain: a batch at once; checkpointed: parallel.checkpoint_activations=true; one "
            f"by one: parallel.accumulate = batch\n{table(header, rows)}"
        )

    def check(self) -> None:
        """Checks that each stage fits, in parts if that is allowed.

        Raises:
            UserError: If one does not.
        """
        for level, stage in sorted(self.stages.items()):
            choice = self.chosen(stage)
            if self.split_batches:
                choice = Choice(1, choice.checkpointed, choice.spread)
            needed = self.bytes(level, choice)
            if needed > self.available:
                raise UserError(
                    f"levels[{level}]: training on {self.grids[level]} takes about {si(needed)}B "
                    f"of memory, but this machine has {si(self.available)}B for a process; "
                    f"{self._advice(level, choice)}"
                )

    def _advice(self, level: int, choice: Choice) -> str:
        for key, other in (
            ("parallel.checkpoint_activations=true", Choice(choice.part_size, True, choice.spread)),
            (
                "a parallel.accumulate of the batch size",
                Choice(1, choice.checkpointed, choice.spread),
            ),
            ("both parallel.checkpoint_activations and accumulate", Choice(1, True, choice.spread)),
            (
                f"parallel.strategy=fsdp on {MANY} machines",
                Choice(1, True, max(MANY, choice.spread)),
            ),
        ):
            if self.bytes(level, other) <= self.available:
                return f"{key} would fit"
        return "use a smaller model.width, a coarser grid or data.memory=stream"

    def _cell(self, needed: float) -> str:
        return f"{si(needed)}B{' *' if needed > self.available else ''}"

    def _sample_activations(self, level: int, checkpointed: bool) -> float:
        key = level, checkpointed
        if key not in self._activations:
            shape = (1, self.in_channels, *self.grids[level].shape)
            network = self.blueprint(level)
            needed = activation_bytes(network, shape, self.element_size, checkpointed)
            self._activations[key] = self.overhead * needed
        return self._activations[key]
