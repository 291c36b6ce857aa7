"""The speed of a step: how long it takes, and networks compiled by ``torch.compile``."""

import logging
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from multigrid.errors import brief
from multigrid.hardware import PrecisionName, autocast
from multigrid.models.layers import CHANNELS_LAST, channels_last
from multigrid.training.optimizers import NamedOptimizer, OptimizerName

log = logging.getLogger(__name__)

NUM_STEPS = 7
OVERHEAD = 1.1
"""A step within a training over the bare one: augmentation, clipping and batches."""


def compiled(
    network: nn.Module, shape: tuple[int, ...], precision: PrecisionName
) -> Callable[[Tensor], Tensor] | None:
    """Returns what to call instead of a network, tried out on a forward and backward pass.

    Each size of a batch is compiled for itself. PyTorch keeps on disk what has been compiled.
    ``shape`` is that of a batch of inputs. Where compilation fails, a warning says why and None is
    returned.
    """
    torch.compiler.reset()  # PyTorch gives up after some shapes of the same code
    compiled_network = torch.compile(network, dynamic=False)
    device = next(network.parameters()).device
    started = time.perf_counter()

    def run(x: Tensor) -> Tensor:
        output: Tensor = compiled_network(_with_usual_strides(x))
        return output

    try:
        with autocast(device, precision):
            output = run(torch.zeros(shape, device=device))
        output.sum().backward()
    except Exception as error:  # whatever it is, training does not need it
        log.warning("compute.compile: training goes on without compilation: %s", brief(error))
        return None
    finally:
        network.zero_grad()
    log.info("compiled for inputs %s in %.1f s", list(shape), time.perf_counter() - started)
    return run


def _with_usual_strides(x: Tensor) -> Tensor:
    """Gives equal shapes equal strides, which differ along axes of one element."""
    layout = CHANNELS_LAST.get(x.ndim, torch.contiguous_format)
    strides = torch.empty(x.shape, device="meta", memory_format=layout).stride()
    return x.contiguous(memory_format=layout).as_strided(x.shape, strides)


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
        network.zero_grad()
        prediction.square().mean().backward()
        named.step()

    return step


def step_seconds(
    network: nn.Module, shape: tuple[int, ...], optimizer: OptimizerName, precision: PrecisionName
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
