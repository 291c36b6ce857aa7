"""How long a training step takes on this machine."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from multigrid.hardware import PrecisionName, autocast
from multigrid.models.layers import channels_last
from multigrid.training.optimizers import NamedOptimizer, OptimizerName

NUM_STEPS = 7
OVERHEAD = 1.1
"""A step within a training over the bare one: augmentation, clipping and batches."""


def training_step(
    network: nn.Module,
    shape: tuple[int, ...],
    optimizer: OptimizerName,
    precision: PrecisionName,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Callable[[], None]:
    """Returns a training step on random fields: forward, mean square, backward and optimizer."""
    call = network if forward is None else forward
    device = next(network.parameters()).device
    x = channels_last(torch.randn(shape, device=device))
    named = NamedOptimizer(network, optimizer, matrix_dtype=getattr(torch, precision))
    named.set_learning_rate(1e-4)

    def step() -> None:
        with autocast(device, precision):
            prediction = call(x)
        named.zero_grad()
        prediction.square().mean().backward()
        named.step()

    return step


def step_seconds(
    network: nn.Module,
    shape: tuple[int, ...],
    optimizer: OptimizerName,
    precision: PrecisionName,
) -> float:
    """Returns about how long a step of a training takes, batches and augmentation included."""
    step = training_step(network, shape, optimizer, precision)
    return OVERHEAD * statistics.median(seconds(step) for _ in range(NUM_STEPS))


def seconds(call: Callable[[], object]) -> float:
    """Returns the time of a call, the work on a GPU finished."""
    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
