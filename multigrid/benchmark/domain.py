"""One sample whose domain is split over two processes, against one process of two threads.

A trial of what splitting a sample would bring, on the part of a network that holds most of its
memory: a chain of convolutions on the finest grid.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from multigrid.benchmark.group import THREADS, Group, check_device
from multigrid.config import Config
from multigrid.distributed.team import Team
from multigrid.errors import UserError
from multigrid.hardware import PrecisionName, autocast, machine
from multigrid.ladder.experiment import Experiment
from multigrid.models.activations import PeakMeter
from multigrid.models.blocks import channels_last
from multigrid.tables import si, table
from multigrid.timing import seconds

NUM_ROUNDS = 9
NUM_LAYERS = 4
SPLIT = 2
"""The axis along which a domain is split, the first one in space."""


class Halo(torch.autograd.Function):
    """Puts the neighbours' nearest planes beside what a process has of a field.

    Outside the domain there are zeros, as convolutions with padding have them.
    """

    @staticmethod
    def forward(ctx: Any, field: Tensor, team: Team) -> Tensor:
        """Returns ``[N, C, n + 2, ...]`` for ``[N, C, n, ...]``."""
        ctx.team = team
        above, below = _swap(_first(field), _last(field), team)
        return torch.cat([above, field, below], SPLIT)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Returns the planes' gradients to whom they belong, and adds those of one's own."""
        (gradient,) = gradients
        above, below = _swap(_first(gradient), _last(gradient), ctx.team)
        own = gradient.narrow(SPLIT, 1, gradient.shape[SPLIT] - 2).clone()
        _first(own).add_(above)
        _last(own).add_(below)
        return own, None


def _first(field: Tensor) -> Tensor:
    return field.narrow(SPLIT, 0, 1)


def _last(field: Tensor) -> Tensor:
    return field.narrow(SPLIT, field.shape[SPLIT] - 1, 1)


def _swap(first: Tensor, last: Tensor, team: Team) -> tuple[Tensor, Tensor]:
    """Gives planes to the neighbours above and below and returns theirs; zeros at the ends."""
    above, below = last.new_zeros(last.shape), first.new_zeros(first.shape)
    swaps = []
    for mine, theirs, rank in ((first, above, team.rank - 1), (last, below, team.rank + 1)):
        if 0 <= rank < team.size:
            swaps.append(dist.P2POp(dist.isend, mine.contiguous(), rank))
            swaps.append(dist.P2POp(dist.irecv, theirs, rank))
    for request in dist.batch_isend_irecv(swaps) if swaps else ():
        request.wait()
    return channels_last(above), channels_last(below)


class Chain(nn.Module):
    """Convolutions of one width on one grid, which may be split over processes.

    Args:
        width: Number of channels.
        ndim: Number of axes in space.
        team: The processes.
    """

    def __init__(self, width: int, ndim: int, team: Team) -> None:
        super().__init__()
        kind: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[ndim]
        padding = (0 if team.size > 1 else 1,) + (1,) * (ndim - 1)
        layers = (kind(width, width, 3, padding=padding) for _ in range(NUM_LAYERS))
        self.layers = nn.ModuleList(layers)
        self.team = team

    def forward(self, x: Tensor) -> Tensor:
        """Maps the part ``[1, width, n, ...]`` of a sample that is here."""
        for layer in self.layers:
            x = functional.silu(layer(Halo.apply(x, self.team) if self.team.size > 1 else x))
        return x

    def add_up_gradients(self) -> None:
        """Makes the weights' gradients those of the whole sample."""
        for parameter in self.parameters() if self.team.size > 1 else ():
            dist.all_reduce(parameter.grad)


def measure_domain(config: Config) -> str:
    """Times a forward and backward pass of one sample both ways, in turn.

    The grid, the width of its scale and the precision are those of the finest level.

    Returns:
        A table.

    Raises:
        UserError: If the device is no CPU, or the grid cannot be split.
    """
    experiment = Experiment(config)
    check_device(experiment.device)
    shape = experiment.hierarchy.levels[-1].shape
    if shape[0] % THREADS:
        raise UserError(f"levels: {shape[0]} points cannot be split evenly over {THREADS}")
    prepare = partial(passes, config.widths(experiment.hierarchy)[-1], shape, experiment.precision)
    groups = [Group(prepare, size) for size in (1, THREADS)]
    peaks = [max(group.answers(True)) for group in groups]
    rounds = [[max(group.answers(False)) for group in groups] for _ in range(1 + NUM_ROUNDS)][1:]
    for group in groups:
        group.end()
    whole, split = (statistics.median(times) for times in zip(*rounds, strict=True))
    ratio = statistics.median(whole / split for whole, split in rounds)
    header = ["Domain", "Passes/s", "ratio", "Activations B", "times less"]
    rows = [
        ["whole", f"{1 / whole:.3g}", "", si(peaks[0]), ""],
        ["split", f"{1 / split:.3g}", f"{ratio:.2f}", si(peaks[1]), f"{peaks[0] / peaks[1]:.2f}"],
    ]
    return (
        f"{NUM_LAYERS} convolutions on {experiment.hierarchy.levels[-1]}, one sample, "
        f"{experiment.precision} on {machine(experiment.device)}, medians of {NUM_ROUNDS} rounds\n"
        f"{table(header, rows)}\nwhole: one process of {THREADS} threads; split: over {THREADS} "
        "processes of one thread, which exchange planes; ratio: of split over whole"
    )


def passes(
    width: int, shape: tuple[int, ...], precision: PrecisionName, team: Team
) -> Callable[[bool], float]:
    """Returns what takes a pass, and tells its peak of memory in bytes, or else its seconds."""
    torch.manual_seed(0)
    network = Chain(width, len(shape), team)
    field = channels_last(torch.randn(1, width, *shape))
    part = field.chunk(team.size, SPLIT)[team.rank].clone()

    def forward_and_backward() -> None:
        network.zero_grad()
        with autocast(part.device, precision):
            loss = network(part).square().sum()
        loss.backward()
        network.add_up_gradients()

    def answer(memory: bool) -> float:
        if not memory:
            return seconds(forward_and_backward)
        with PeakMeter([part, *network.parameters()]) as meter:
            forward_and_backward()
        return meter.peak

    return answer
