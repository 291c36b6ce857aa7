"""The gradient of a batch: in parts if need be, and together with other processes."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from multigrid.data.samples import Samples
from multigrid.hardware import PrecisionName, autocast
from multigrid.models.scaling import Surrogate
from multigrid.training.featurization import FeaturizedSurrogate
from multigrid.training.losses import Loss
from multigrid.training.memory import MemoryLimit


class Gradient:
    """Computes gradients of the mean loss over batches.

    Args:
        surrogate: The surrogate; gradients are left in its parameters.
        loss: Mean over the samples it is given.
        batch_size: Samples of a whole batch, in all processes.
        precision: Number format of the network.
        clip: Largest norm of the gradient, or None.
        memory: How many samples may be taken at once, and which processes take part.
        featurized: Predicts from features of the batches, or None.

    Attributes:
        compiled: Called instead of the surrogate's network, or None.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        loss: Loss,
        batch_size: int,
        precision: PrecisionName,
        clip: float | None,
        memory: MemoryLimit,
        featurized: FeaturizedSurrogate | None = None,
    ) -> None:
        self.surrogate = surrogate
        self.loss = loss
        self.precision = precision
        self.limit = math.inf if clip is None else clip
        self.memory = memory
        self.processes = memory.processes
        self.featurized = featurized
        self.largest_share = self.processes.largest_share(batch_size)
        self.predict: nn.Module = surrogate
        self.compiled: Callable[[Tensor], Tensor] | None = None

    def renew(self) -> None:
        """Takes note of which parameters are trained; call it before the first batch."""
        self.predict = self.processes.train_together(self.surrogate)
        self.memory.renew()

    def compute(self, samples: Samples, share: float, seed: int) -> tuple[float, float]:
        """Computes the clipped gradient of a batch, a share of which is here.

        Args:
            samples: What of the batch is here.
            share: The part of the batch that this is.
            seed: For what the network itself may draw, as for dropout.

        Returns:
            The loss of the whole batch and the gradient's norm before clipping.

        Raises:
            UserError: If the memory does not suffice.
        """

        def add_up(part_size: int, together: bool) -> float:
            with _seeded(seed, samples.inputs.device):
                if together:
                    return self._add_up(samples, part_size, share)
                return self._try_alone(samples, part_size)

        loss = self.processes.total(self.memory.reduce(add_up, samples))
        return loss, self._clip()

    def rehearse(self, samples: Samples) -> None:
        """Computes gradients of a batch's parts as in a step, but alone and to no effect."""
        parts = {len(part): part for part in samples.split(self.memory.part_size)}
        with _seeded(0, samples.inputs.device):
            for part in parts.values():
                self._try_alone(part, len(part))
        self.surrogate.zero_grad()

    def _clip(self) -> float:
        """Scales the gradient down to the limit and returns its norm before."""
        gradients = [p.grad for p in self.surrogate.parameters() if p.grad is not None]
        norm: float = self.processes.whole(torch.nn.utils.get_total_norm(gradients)).item()
        if norm > self.limit:  # by a number, as a tensor would take several times as long
            torch._foreach_mul_(gradients, self.limit / norm)
        return norm

    def _try_alone(self, samples: Samples, part_size: int) -> float:
        """Computes a gradient without the other processes, to see whether it fits."""
        buffers = [(buffer, buffer.clone()) for buffer in self.surrogate.buffers()]
        predict, self.predict = self.predict, self.surrogate
        try:
            return self._add(samples[:part_size], 1.0)
        finally:
            self.predict = predict
            for buffer, before in buffers:
                buffer.copy_(before)

    def _add_up(self, samples: Samples, part_size: int, share: float) -> float:
        """Adds up the gradient over parts of what is here, as the loss is a mean over samples."""
        self.surrogate.zero_grad()
        parts = [(part, share * len(part) / len(samples)) for part in samples.split(part_size)]
        most = math.ceil(self.largest_share / part_size)
        idle = (samples[:1], 0.0)  # all processes take equally many, as they exchange gradients
        parts += [idle] * (most - len(parts) if self.processes.size > 1 else 0)
        loss = 0.0
        for number, (part, weight) in enumerate(parts, start=1):
            with self.processes.reducing(self.predict, number == len(parts)):
                loss += self._add(part, weight)
        return loss

    def _add(self, part: Samples, weight: float) -> float:
        with autocast(part.inputs.device, self.precision):
            network = self.compiled if self.featurized is None else self.featurized.finish(part)
            prediction = self.predict(part.inputs, network)
        loss: Tensor = self.loss(prediction, part)
        scale = weight * self.processes.size  # as the mean over processes is taken
        (loss if scale == 1 else loss * scale).backward()
        return loss.item() * weight


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Makes what is drawn meanwhile a function of a seed; what is drawn later does not notice."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
