"""Training on features: what a frozen trunk gives is computed once and kept on disk.

After the "bottleneck features" of transfer learning in image recognition, and exact: an epoch on
features has the losses of one on fields.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Protocol, runtime_checkable

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from multigrid.data.samples import Samples, TrainingSamples
from multigrid.errors import UserError
from multigrid.files import written_aside
from multigrid.grid import Grid
from multigrid.hardware import PrecisionName, autocast
from multigrid.models.cost import FlopCounter, without_data
from multigrid.models.layers import channels_last
from multigrid.models.name_patterns import matches
from multigrid.models.scaling import Surrogate
from multigrid.models.transfer import tensors_of


@runtime_checkable
class HasTail(Protocol):
    """A network whose tail can be trained on features that its trunk computes.

    ``network(x)`` must be ``network.finish(network.features(x))``.

    Attributes:
        tail: Patterns of the names of the tail's tensors.
    """

    tail: tuple[str, ...]

    def features(self, x: Tensor) -> Sequence[Tensor]:
        """Returns the features ``[N, ...]`` of inputs ``[N, in, *grid]``."""

    def finish(self, features: Sequence[Tensor]) -> Tensor:
        """Returns the network's output ``[N, out, *grid]``."""


@dataclass(frozen=True)
class Split:
    """A network in two: a frozen trunk, and the tail that is trained on its features.

    Attributes:
        trunk: Returns the features of inputs.
        tail: Returns the network's output.
    """

    trunk: Callable[[Tensor], Sequence[Tensor]]
    tail: Callable[[Sequence[Tensor]], Tensor]


def split(network: nn.Module, frozen: Collection[str]) -> Split | None:
    """Splits a network into trunk and tail.

    Args:
        network: One that has a tail, such as a UNet, whose tail are its heads, or a chain of
            modules, whose trunk are the leading ones that are frozen.
        frozen: Names in its state dictionary of what never changes.

    Returns:
        Both, or None if nothing is left to train, or the trunk is not frozen as a whole.
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
    """Features of samples in an HDF5 file: one dataset ``[N, ...]`` each, chunked by sample.

    Args:
        path: The file; one that is there is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dtypes: dict[str, torch.dtype] = {}

    def write(self, blocks: Iterator[dict[str, Tensor]], count: int) -> None:
        """Writes the features of ``count`` samples, block after block, aside and then in place.

        Raises:
            UserError: If the file cannot be written.
        """
        with written_aside(self.path) as aside, h5py.File(aside, "w") as file:
            start = 0
            for block in blocks:
                for name, tensor in block.items():
                    self._write(file, name, tensor, start, count)
                start += len(next(iter(block.values())))

    def read(self, indices: np.ndarray) -> dict[str, Tensor]:
        """Returns the features of samples, in any order, by name.

        Raises:
            UserError: If the file is missing or damaged.
        """
        try:
            with h5py.File(self.path, "r") as file:
                return {
                    name: _gather(file[name], indices).view(dtype)
                    for name, dtype in self.dtypes.items()
                }
        except (OSError, KeyError) as error:
            raise UserError(f"{self.path}: the features cannot be read: {error}") from None

    def _write(self, file: h5py.File, name: str, tensor: Tensor, start: int, count: int) -> None:
        half = tensor.dtype == torch.bfloat16  # numpy knows no such numbers, but their bits
        values = tensor.contiguous().view(torch.int16 if half else tensor.dtype).cpu().numpy()
        if name not in file:
            shape = (count, *values.shape[1:])
            file.create_dataset(name, shape, values.dtype, chunks=(1, *values.shape[1:]))
            self.dtypes[name] = tensor.dtype
        file[name][start : start + len(values)] = values


def _gather(dataset: h5py.Dataset, indices: np.ndarray) -> Tensor:
    """Reads samples one by one, which is much faster than asking HDF5 for a list of them."""
    values = np.empty((len(indices), *dataset.shape[1:]), dataset.dtype)
    for place, index in enumerate(indices.tolist()):
        dataset.read_direct(values, np.s_[index], np.s_[place])
    return torch.from_numpy(values)


class FeaturizedSamples:
    """Training samples with the features that a split network has computed of them.

    Args:
        samples: The samples.
        file: Their features.
        hold: Whether to keep the features in memory instead of reading them batch by batch.
    """

    def __init__(self, samples: TrainingSamples, file: FeatureFile, hold: bool) -> None:
        self.samples = samples
        self.file = file
        self.held: dict[str, Tensor] | None = None
        if hold:  # with the channels last, as they are wanted
            kept = file.read(np.arange(len(samples)))
            self.held = {name: tensor.movedim(1, -1).contiguous() for name, tensor in kept.items()}

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def grid(self) -> Grid:
        """Grid of the fields."""
        return self.samples.grid

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""
        return self.samples.num_channels

    def batches(self, indices: Sequence[Tensor]) -> Generator[Samples]:
        """Yields a batch with features for each index tensor; a thread reads the next meanwhile."""
        with ThreadPoolExecutor(1, "features") as reader:
            coming = reader.submit(self._features, indices[0])
            for batch, following in zip(
                self.samples.batches(indices), [*indices[1:], None], strict=True
            ):
                features = coming.result()
                if following is not None:
                    coming = reader.submit(self._features, following)
                device = batch.inputs.device
                ready = {name: channels_last(f.to(device)) for name, f in features.items()}
                yield replace(batch, features=ready)

    def _features(self, index: Tensor) -> dict[str, Tensor]:
        if self.held is None:
            return self.file.read(index.numpy())
        return {name: t.index_select(0, index).movedim(-1, 1) for name, t in self.held.items()}


def require_features(networks: Iterable[tuple[nn.Module, Collection[str]]]) -> None:
    """Checks that there is something to compute once.

    Args:
        networks: Those of all stages, each with the names of what it never changes.

    Raises:
        UserError: If all of them have to be run as a whole in every step.
    """
    if not any(split(network, frozen) for network, frozen in networks):
        raise UserError(
            "transfer.featurize: nothing can be computed once, as more than the network's heads is "
            "trained; freeze the rest with transfer.rules, such as {pattern: '*', freeze: true} "
            "and {pattern: '*.head', freeze: false}, or set it to false (a network of your own "
            "must be a torch.nn.Sequential, or have tail, features and finish)"
        )


class FeaturizedSurrogate:
    """Finishes what a surrogate would have done with the fields of a batch.

    Args:
        surrogate: The surrogate.
        frozen: Names in its network's state dictionary of what never changes; all but the tail.

    Attributes:
        flops: Floating-point operations spent on features so far.
    """

    def __init__(self, surrogate: Surrogate, frozen: Collection[str]) -> None:
        self.surrogate = surrogate
        self.frozen = frozen
        self.flops = 0.0
        self.split = _require(split(surrogate.network, frozen))

    def finish(self, batch: Samples) -> Callable[[Tensor], Tensor]:
        """Returns what gives the network's output for a batch, from its features alone."""
        features = _listed(batch)
        return lambda x: self.split.tail(features)

    @torch.no_grad()
    def compute(
        self, samples: TrainingSamples, path: Path, batch_size: int, precision: PrecisionName
    ) -> FeatureFile:
        """Computes the features of all samples and writes them to a file."""
        self.surrogate.eval()

        def blocks() -> Iterator[dict[str, Tensor]]:
            for block in samples.split(batch_size):
                with autocast(block.inputs.device, precision):
                    features = self.split.trunk(self.surrogate.scaled(block.inputs)[0])
                yield {str(number): tensor for number, tensor in enumerate(features)}

        file = FeatureFile(path)
        with FlopCounter() as counter:
            file.write(blocks(), len(samples))
        self.flops += counter.get_total_flops()
        return file

    def step_flops(self, batch: Samples) -> float:
        """Returns the operations of a forward and backward pass on the features of a batch."""
        twin = without_data(self.surrogate.network)
        dtype = next(twin.parameters()).dtype  # there is no autocast here
        features = [tensor.to("meta", dtype) for tensor in _listed(batch)]
        with FlopCounter() as counter:
            _require(split(twin, self.frozen)).tail(features).sum().backward()
        return float(counter.get_total_flops())


def _listed(batch: Samples) -> list[Tensor]:
    assert batch.features is not None
    return [batch.features[str(number)] for number in range(len(batch.features))]


def _require(found: Split | None) -> Split:
    assert found is not None
    return found
