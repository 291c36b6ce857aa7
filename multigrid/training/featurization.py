"""Training on features: what a frozen trunk gives is computed once and kept on disk.

After the "bottleneck features" of transfer learning in image recognition, and exact: an epoch on
features has the losses of one on fields.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from math import prod
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from multigrid.data.samples import Samples, TrainingSamples
from multigrid.errors import UserError
from multigrid.files import written_aside
from multigrid.hardware import PrecisionName, autocast
from multigrid.models.cost import FlopCounter, without_data
from multigrid.models.scaling import Surrogate
from multigrid.models.transfer import matches, tensors_of


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


class Split(NamedTuple):
    """A network in two: a frozen trunk, and the tail that is trained on its features."""

    trunk: Callable[[Tensor], Sequence[Tensor]]
    tail: Callable[[Sequence[Tensor]], Tensor]


def split(network: nn.Module, frozen: Collection[str]) -> Split | None:
    """Splits a network that has a tail, or a chain of modules after the leading frozen ones.

    Returns None if nothing is left to train, or the trunk is not frozen as a whole.
    """
    names = set(tensors_of(network))
    if names <= set(frozen):
        return None
    if isinstance(network, HasTail):
        trunk = {name for name in names if not matches(name, network.tail)}
        return Split(network.features, network.finish) if trunk and trunk <= set(frozen) else None
    if not isinstance(network, nn.Sequential):
        return None
    is_frozen = (
        all(f"{name}.{key}" in frozen for key in tensors_of(child))
        for name, child in network.named_children()
    )
    count = len(list(takewhile(bool, is_frozen)))
    first, rest = network[:count], network[count:]
    return Split(lambda x: [first(x)], lambda f: rest(f[0])) if tensors_of(first) else None


class FeatureFile:
    """Features of samples in a file, one row of bytes a sample, read through a memory map."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.layouts: list[tuple[tuple[int, ...], torch.dtype]] = []
        self.checksums: list[int] = []

    def write(self, blocks: Iterable[Sequence[Tensor]]) -> None:
        """Writes features ``[N, C, ...]`` block after block."""
        with written_aside(self.path) as aside, aside.open("wb") as file:
            for block in blocks:
                rows = [tensor.movedim(1, -1).contiguous().cpu() for tensor in block]
                self.layouts = [(tuple(row.shape[1:]), row.dtype) for row in rows]
                values = [row.flatten(1).view(torch.uint8) for row in rows]
                content = torch.cat(values, dim=1).numpy()
                content.tofile(file)
                self.checksums += [crc32(row) for row in content]
                self.count += len(rows[0])

    def read(self, index: Tensor) -> list[Tensor]:
        """Returns the features of samples, in any order, with the channels last in memory."""
        sizes = [prod(shape) * dtype.itemsize for shape, dtype in self.layouts]
        try:
            rows = np.memmap(self.path, np.uint8, "r", shape=(self.count, sum(sizes)))
            chosen = np.array(rows[index.numpy()])
            if [crc32(row) for row in chosen] != [self.checksums[i] for i in index.tolist()]:
                raise ValueError("they have changed since they were written")
            values = torch.from_numpy(chosen)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: the features cannot be read: {error}") from None
        return [
            part.contiguous().view(dtype).reshape(-1, *shape).movedim(-1, 1)
            for part, (shape, dtype) in zip(values.split(sizes, 1), self.layouts, strict=True)
        ]


class FeaturizedSamples:
    """Training samples with the features that a frozen trunk has computed of them."""

    def __init__(self, samples: TrainingSamples, file: FeatureFile) -> None:
        self.samples = samples
        self.file = file
        self.grid = samples.grid
        self.num_channels = samples.num_channels

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, indices: Sequence[Tensor]) -> Generator[Samples]:
        """Yields a batch with features for each index tensor."""
        for index, batch in zip(indices, self.samples.batches(indices), strict=True):
            features = [tensor.to(batch.inputs.device) for tensor in self.file.read(index)]
            yield replace(batch, features=features)


def require_features(networks: Iterable[tuple[nn.Module, Collection[str]]]) -> None:
    """Checks that there is something to compute once."""
    if not any(split(network, frozen) for network, frozen in networks):
        raise UserError(
            "transfer.featurize: nothing can be computed once, as more than the network's heads is "
            "trained; freeze the rest with transfer.rules, such as {pattern: '*', freeze: true} "
            "and {pattern: '*.head', freeze: false}, or set it to false (a network of your own "
            "must be a torch.nn.Sequential, or have tail, features and finish)"
        )


class FeaturizedSurrogate:
    """A surrogate whose network is finished from features instead of being run on fields."""

    def __init__(self, surrogate: Surrogate, frozen: Collection[str]) -> None:
        self.surrogate = surrogate
        self.frozen = frozen
        self.flops = 0.0
        self.parts = self._split(surrogate.network)

    def finish(self, batch: Samples) -> Callable[[Tensor], Tensor]:
        """Returns what gives the network's output for a batch, from its features alone."""
        return lambda x: self.parts.tail(batch.features or ())

    @torch.no_grad()
    def compute(
        self, samples: TrainingSamples, path: Path, batch_size: int, precision: PrecisionName
    ) -> FeatureFile:
        """Computes the features of all samples and writes them to a file."""
        self.surrogate.eval()

        def blocks() -> Iterator[Sequence[Tensor]]:
            for block in samples.split(batch_size):
                with autocast(block.inputs.device, precision):
                    yield self.parts.trunk(self.surrogate.scaled(block.inputs)[0])

        file = FeatureFile(path)
        with FlopCounter() as counter:
            file.write(blocks())
        self.flops += counter.get_total_flops()
        return file

    def step_flops(self, batch: Samples) -> float:
        """Returns the operations of a forward and backward pass on the features of a batch."""
        twin = without_data(self.surrogate.network)
        dtype = next(twin.parameters()).dtype  # there is no autocast here
        features = [tensor.to("meta", dtype) for tensor in batch.features or ()]
        with FlopCounter() as counter:
            self._split(twin).tail(features).sum().backward()
        return float(counter.get_total_flops())

    def _split(self, network: nn.Module) -> Split:
        parts = split(network, self.frozen)
        assert parts is not None
        return parts
