"""Training on features: what a frozen trunk gives is computed once and kept in memory.

After the "bottleneck features" of transfer learning in image recognition, and exact: an epoch on
features has the losses of one on fields.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import replace
from typing import Protocol, TypeGuard, cast, runtime_checkable

import torch
from torch import Tensor, nn

from multigrid.data.samples import Samples, TrainingSamples
from multigrid.distributed import local_size
from multigrid.errors import UserError
from multigrid.hardware import PrecisionName, autocast, total_memory
from multigrid.models.cost import FlopCounter, without_data
from multigrid.models.scaling import Surrogate
from multigrid.models.transfer import matches, tensors_of
from multigrid.tables import si


@runtime_checkable
class HasTail(Protocol):
    """A network for which ``network(x)`` is ``network.finish(network.features(x))``.

    ``tail`` holds patterns of the names of the tensors that ``finish`` uses; features are
    ``[N, ...]``, the output ``[N, out, *grid]``.
    """

    tail: tuple[str, ...]

    def features(self, x: Tensor) -> Sequence[Tensor]:
        """Returns the features of inputs ``[N, in, *grid]``."""

    def finish(self, features: Sequence[Tensor]) -> Tensor:
        """Returns the network's output."""


def trains_its_tail(network: nn.Module, frozen: Collection[str]) -> TypeGuard[HasTail]:
    """Whether a network has a tail, something of which is trained and nothing besides."""
    if not isinstance(network, HasTail):
        return False
    names = set(tensors_of(network))
    trunk = {name for name in names if not matches(name, network.tail)}
    return bool(trunk) and trunk <= set(frozen) and not names <= set(frozen)


def require_features(networks: Iterable[tuple[nn.Module, Collection[str]]]) -> None:
    """Checks that there is something to compute once."""
    if not any(trains_its_tail(network, frozen) for network, frozen in networks):
        raise UserError(
            "transfer.featurize: nothing can be computed once, as more than the network's heads is "
            "trained; freeze the rest with transfer.rules, such as {pattern: '*', freeze: true} "
            "and {pattern: '*.head', freeze: false}, or set it to false (a network of your own "
            "must have tail, features and finish)"
        )


class FeaturizedSamples:
    """Training samples with a frozen trunk's features ``[N, *grid, C]`` in the CPU's memory.

    ``flops`` are the operations that they took.
    """

    def __init__(self, samples: TrainingSamples, features: Sequence[Tensor], flops: float) -> None:
        self.samples = samples
        self.features = features
        self.flops = flops
        self.grid = samples.grid
        self.num_channels = samples.num_channels

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, indices: Sequence[Tensor]) -> Generator[Samples]:
        """Yields a batch with features ``[N, C, *grid]`` for each index tensor."""
        for index, batch in zip(indices, self.samples.batches(indices), strict=True):
            device = batch.inputs.device
            features = [f[index].movedim(-1, 1).to(device) for f in self.features]
            yield replace(batch, features=features)


@torch.no_grad()
def featurize(
    surrogate: Surrogate, samples: TrainingSamples, batch_size: int, precision: PrecisionName
) -> FeaturizedSamples:
    """Computes the features of all samples; raises UserError if the memory is too small."""
    surrogate.eval()
    network, kept = cast(HasTail, surrogate.network), list[Tensor]()
    with FlopCounter() as counter:
        for number, block in enumerate(samples.split(batch_size)):
            with autocast(block.inputs.device, precision):
                computed = network.features(surrogate.scaled(block.inputs)[0])
            features = [tensor.movedim(1, -1) for tensor in computed]
            kept = kept or _room(features, len(samples))
            for whole, part in zip(kept, features, strict=True):
                whole[number * batch_size :][: len(part)] = part
    return FeaturizedSamples(samples, kept, float(counter.get_total_flops()))


def finishing(network: nn.Module, features: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """Returns what gives a network's output from its features instead of its input."""
    return lambda x: cast(HasTail, network).finish(features)


def finishing_flops(network: nn.Module, features: Sequence[Tensor]) -> int:
    """Returns the operations of a forward and backward pass on features."""
    twin = without_data(network)
    dtype = next(twin.parameters()).dtype  # there is no autocast here
    with FlopCounter() as counter:
        cast(HasTail, twin).finish([x.to("meta", dtype) for x in features]).sum().backward()
    return counter.get_total_flops()


def _room(features: Sequence[Tensor], count: int) -> list[Tensor]:
    """Returns tensors for the features of so many samples, from those of a few."""
    needed = count * sum(tensor[0].nbytes for tensor in features)
    available = total_memory(torch.device("cpu")) / local_size()
    if needed > available:
        raise UserError(
            f"transfer.featurize: the features of {count} samples take {si(needed)}B of memory, "
            f"but this machine has {si(available)}B for a process; set it to false"
        )
    return [torch.empty(count, *tensor.shape[1:], dtype=tensor.dtype) for tensor in features]
