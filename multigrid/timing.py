"""How long a training step takes on this machine."""

import time
from collections.abc import Callable

import torch
from torch import nn

from multigrid.hardware import PrecisionName, autocast
from multigrid.models.blocks import channels_last
from multigrid.optimizers import NamedOptimizer, OptimizerName


def training_step(
    network: nn.Module,
    in_channels: int,
    batch_shape: tuple[int, ...],
    optimizer: OptimizerName,
    precision: PrecisionName,
) -> Callable[[], None]:
    """Returns a training step on random fields: forward, mean square, backward and optimiser.

    Args:
        network: Network on its device; the step changes its weights.
        in_channels: Number of input fields.
        batch_shape: Number of samples, then the grid.
        optimizer: How the weights are updated.
        precision: Number format of the network.
    """
    device = next(network.parameters()).device
    x = channels_last(torch.randn(batch_shape[0], in_channels, *batch_shape[1:], device=device))
    named = NamedOptimizer(network, optimizer, matrix_dtype=getattr(torch, precision))
    named.set_learning_rate(1e-4)

    def step() -> None:
        with autocast(device, precision):
            prediction = network(x)
        named.zero_grad()
        prediction.square().mean().backward()
        named.step()

    return step


def seconds(call: Callable[[], object]) -> float:
    """Returns the time of a call, the work on a GPU finished."""
    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
