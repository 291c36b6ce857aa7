"""What an experiment takes: memory, and its ladder, schedule and cost in words."""

import logging

import torch

from multigrid.distributed import local_size
from multigrid.grid import Grid
from multigrid.hardware import total_memory
from multigrid.ladder.experiment import Experiment
from multigrid.ladder.state import RunState
from multigrid.models.cost import activation_bytes, count_parameters
from multigrid.schedule import Stage, schedule_table
from multigrid.tables import counted, si
from multigrid.training.optimizers import muon

log = logging.getLogger(__name__)

PROCESS_BYTES = 4e8
"""Memory of Python and its libraries."""
CPU_OVERHEAD = 2.5
"""Memory for activations over their bytes on CPUs: what kernels need, and the allocator keeps."""


def memory_bytes(experiment: Experiment, stage: Stage) -> float:
    """Returns about how much memory a process takes in a stage.

    Weights, gradients, optimizer state and the copy of the best state; samples that are held; and
    activations.
    """
    family, processes = experiment.family, experiment.processes
    network = family.blueprint(stage.level)
    weights = 4.0 * count_parameters(network)
    state = weights if experiment.options.optimizer is muon else 2 * weights
    shape = (1, family.in_channels, *family.input_grid(stage.level).shape)
    element = 2 if experiment.precision == "bfloat16" else 4
    activations = activation_bytes(network, shape, element, stage.checkpoint_activations)
    if experiment.unrolling is not None and experiment.unrolling.method == "unrolled":
        activations *= experiment.num_steps  # whose graphs are alive at once
    if experiment.device.type == "cpu":
        activations *= CPU_OVERHEAD
    whole = PROCESS_BYTES + _sample_bytes(experiment) + weights + state
    spread = (2 * weights + state) / (processes.size if processes.shards else 1)
    return whole + spread + stage.part_size(processes) * activations


def warn_of_memory(experiment: Experiment) -> None:
    """Logs a warning for each level that may not fit into memory."""
    available = _available(experiment)
    for stage in {stage.level: stage for stage in experiment.plan.stages}.values():
        needed = memory_bytes(experiment, stage)
        if needed > available:
            log.warning(
                "levels[%d]: training on %s takes about %sB of memory, but this machine has "
                "%sB for a process; parallel.accumulate, parallel.checkpoint_activations=true, "
                "a smaller model.width or data.memory=stream take less",
                stage.level,
                experiment.hierarchy.levels[stage.level],
                si(needed),
                si(available),
            )


def held_bytes(experiment: Experiment, grid: Grid, count: int) -> int:
    """Returns the memory of training samples on a grid, 0 if they are to be read from disk."""
    num_inputs, num_outputs = experiment.problem.num_channels
    size = 4 * (num_inputs + experiment.num_steps * num_outputs) * count * grid.size
    memory = experiment.config.data.memory
    is_held = size <= _available(experiment) / 2 if memory == "auto" else memory == "hold"
    return size if is_held else 0


def _sample_bytes(experiment: Experiment) -> float:
    """Returns the memory of all samples that are held."""
    num_inputs, num_outputs = experiment.problem.num_channels
    counts: dict[Grid, int] = {}  # levels with the same fields share their samples
    for level, count in enumerate(experiment.config.samples()):
        grid = experiment.family.input_grid(level)
        counts[grid] = max(count, counts.get(grid, 0))
    unseen = experiment.counts["validation"] + experiment.counts["test"]
    held = 4.0 * (num_inputs + num_outputs) * unseen * experiment.hierarchy.finest.size
    return held + sum(held_bytes(experiment, grid, count) for grid, count in counts.items())


def _available(experiment: Experiment) -> float:
    """Memory for this process; those of one machine share it, but each has a GPU of its own."""
    device = experiment.device
    return total_memory(device) / (1 if device.type == "cuda" else local_size())


def overview(experiment: Experiment, state: RunState) -> str:
    """Returns ladder, schedule, cost and memory estimate as text."""
    config, problem = experiment.config, experiment.problem
    hierarchy, centering = experiment.hierarchy, experiment.config.centering
    fields = f"{', '.join(problem.input_names)} -> {', '.join(problem.output_names)}"
    inner = ", ".join(str(grid) for grid in hierarchy.scales[: hierarchy.tops[0]])
    compiled = ", compiled" if config.compute.compile else ""
    memory = max(memory_bytes(experiment, stage) for stage in state.stages)
    chosen = [f"{key} auto: {reason}" for key, reason in experiment.reasons.items()]
    padding, unfit = config.model.padding, []
    if problem.periodic and experiment.prolongation[1] is not True:
        unfit = [f"the fields are periodic, but model.padding is '{padding}', not 'periodic'"]
    return "\n".join(
        [
            f"{config.name}: {problem.kind} ({fields}), {experiment.family.kind}, "
            f"{experiment.precision} on {experiment.device}{compiled}, {_workers(experiment)}, "
            f"{centering}-centred grids",
            "",
            str(experiment.family),
            f"scales below level 0: {inner or 'none'}",
            *chosen,
            "",
            _describe_schedule(experiment, state),
            f"memory about {si(memory)}B",
            *unfit,
            *state.warnings,
        ]
    )


def _describe_schedule(experiment: Experiment, state: RunState) -> str:
    """Returns the stages and their cost; those of a schedule by measurement are not known."""
    plan = experiment.plan
    if plan.is_automatic:
        budget = experiment.config.budget.model_dump(exclude_none=True)
        limits = ", ".join(f"{key} {value:g}" for key, value in budget.items())
        return f"stages are chosen by measurement, within a budget of {limits}"
    work = plan.stage_costs(state.stages, state.epoch_costs)
    stages = schedule_table(state.stages, experiment.hierarchy.levels, work)
    flops = sum(work) * plan.epoch_flops[-1]
    return f"{stages}\n\ntotal: {sum(work):.2f} work units, {si(flops)}FLOPs"


def _workers(experiment: Experiment) -> str:
    strategy = experiment.config.parallel.strategy
    threads, size = counted(torch.get_num_threads(), "thread"), experiment.processes.size
    if size == 1:
        return threads + (", one process: nothing is spread" if strategy == "fsdp" else "")
    return f"{size} processes ({strategy}) of {threads} each"
