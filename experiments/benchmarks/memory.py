"""The memory of a training step against the grid, with and without activation checkpointing."""

import statistics
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from multigrid.config import Config, parse_config
from multigrid.files import write_text
from multigrid.grid import Grid
from multigrid.hardware import autocast, keep_large_buffers, machine, peak_memory
from multigrid.ladder.cost import memory_bytes
from multigrid.ladder.experiment import Experiment
from multigrid.models.cost import FlopCounter, without_data
from multigrid.models.layers import set_activation_checkpointing
from multigrid.plots.style import COLOURS, MARKERS, save_figure, tidy
from multigrid.schedule import Stage
from multigrid.tables import si, table
from multigrid.training.speed import seconds, training_step

NUM_ROUNDS = 3
FOLDER = Path("results/benchmarks/memory")


@dataclass(frozen=True)
class Measured:
    """What a step on one grid took.

    Attributes:
        process: Most memory of the whole process, or of the GPU, in bytes.
        activations: Most memory of tensors in a forward and backward pass at once, parameters and
            their gradients left out.
        seconds: Median time of a step.
        flops: Its floating-point operations without the optimizer's.
    """

    process: int
    activations: int
    seconds: float
    flops: float


def measure(config: Config) -> str:
    """Measures a step of every level both ways, each in a process of its own; returns a table.

    Batches are those of the configuration, parts as in ``parallel.accumulate``. The table and a
    figure of the peaks against the grid go to :data:`FOLDER`, named after the experiment.
    """
    experiment = Experiment(config)
    rows, measured = [], {}
    for level in sorted({stage.level for stage in experiment.plan.stages}):
        plain, checkpointed = (
            _apart(config, level, checkpointed) for checkpointed in (False, True)
        )
        rows.append(_row(experiment, level, plain, checkpointed))
        measured[experiment.hierarchy.levels[level]] = plain, checkpointed
    header = ["Grid", "At once", "Process B", "checkpointed", "estimated", "Activations B"]
    header += ["checkpointed", "times less", "s/step", "times longer", "times more FLOPs"]
    text = (
        f"{config.name}, {experiment.family.kind}, {experiment.precision} on "
        f"{machine(experiment.device)}, {torch.get_num_threads()} threads, medians of "
        f"{NUM_ROUNDS} steps\n{table(header, rows)}"
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_text(FOLDER / f"{config.name}.txt", f"{text}\n")
    save_figure(_draw(measured), FOLDER / f"{config.name}.png")
    return f"{text}\nwritten to {FOLDER}"


def measure_step(config: Mapping[str, Any], level: int, checkpointed: bool) -> Measured:
    """Takes steps on a level in this process, whose memory must not have been used for others."""
    keep_large_buffers()
    experiment = Experiment(parse_config(dict(config)))
    network = experiment.family.build(level).to(experiment.device).train()
    set_activation_checkpointing(network, checkpointed)
    shape = _shape(experiment, level)
    step = training_step(network, shape, experiment.options.optimizer, experiment.precision)
    times = [seconds(step) for _ in range(NUM_ROUNDS + 1)][1:]
    process = peak_memory(experiment.device)
    activations = _peak_of_activations(experiment, network, shape)
    flops = _step_flops(network, shape, checkpointed)
    return Measured(process, activations, statistics.median(times), flops)


def _step_flops(network: nn.Module, shape: tuple[int, ...], checkpointed: bool) -> float:
    """Returns the operations of a forward and backward pass, repeated ones included."""
    twin = without_data(network).train()
    set_activation_checkpointing(twin, checkpointed)
    with FlopCounter() as counter:
        twin(torch.empty(shape, device="meta")).sum().backward()
    return float(counter.get_total_flops())


def _apart(config: Config, level: int, checkpointed: bool) -> Measured:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure_step, config.model_dump(), level, checkpointed).result()


def _shape(experiment: Experiment, level: int) -> tuple[int, ...]:
    part_size = _stage(experiment, level).part_size(experiment.processes)
    return part_size, experiment.family.in_channels, *experiment.family.input_grid(level).shape


def _stage(experiment: Experiment, level: int) -> Stage:
    return next(stage for stage in experiment.plan.stages if stage.level == level)


def _peak_of_activations(experiment: Experiment, network: nn.Module, shape: tuple[int, ...]) -> int:
    x = torch.randn(shape, device=experiment.device)
    known = [t for p in network.parameters() for t in (p, p.grad) if t is not None]
    with PeakMeter([*known, x]) as meter:
        with autocast(experiment.device, experiment.precision):
            prediction = network(x)
        prediction.square().mean().backward()
    return meter.peak


def _row(
    experiment: Experiment, level: int, plain: Measured, checkpointed: Measured
) -> Sequence[str]:
    stage = _stage(experiment, level)
    estimates = (
        memory_bytes(experiment, replace(stage, checkpoint_activations=checkpointed))
        for checkpointed in (False, True)
    )
    return [
        str(experiment.hierarchy.levels[level]),
        str(_shape(experiment, level)[0]),
        si(plain.process),
        si(checkpointed.process),
        ", ".join(map(si, estimates)),
        si(plain.activations),
        si(checkpointed.activations),
        f"{plain.activations / checkpointed.activations:.2f}",
        f"{plain.seconds:.3f}",
        f"{checkpointed.seconds / plain.seconds:.2f}",
        f"{checkpointed.flops / plain.flops:.2f}",
    ]


def _draw(measured: Mapping[Grid, tuple[Measured, Measured]]) -> Figure:
    """Draws the most memory of a step against the points of the grid, plain and checkpointed."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    points = [grid.size for grid in measured]
    for axis, quantity, label in (
        (axes[0], "activations", "activations and their gradients [MB]"),
        (axes[1], "process", "whole process [MB]"),
    ):
        for index, name in enumerate(("plain", "checkpointed")):
            peaks = [getattr(pair[index], quantity) / 1e6 for pair in measured.values()]
            axis.plot(points, peaks, color=COLOURS[index], marker=MARKERS[index], label=name)
        axis.set(xscale="log", yscale="log", xlabel="grid", ylabel=f"most at once, {label}")
        axis.set_xticks(points, [str(grid) for grid in measured])
        axis.minorticks_off()
        tidy(axis)
    axes[0].legend(frameon=False)
    return figure


class PeakMeter(TorchDispatchMode):
    """Counts the bytes of live tensors created within the context, and the most at once.

    Tensors that were there ``before`` do not count.
    """

    def __init__(self, before: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._counted = {tensor.untyped_storage()._cdata for tensor in before}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._counted:
            self._counted.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.live -= size
