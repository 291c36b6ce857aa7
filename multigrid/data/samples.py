"""Pairs of input and output fields: in memory, or on disk to be read batch by batch.

Statistics of their channels are taken block by block, too.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from multigrid.fields import restrict_to
from multigrid.grid import Grid
from multigrid.metrics import CONSTANT, NEGLIGIBLE, FieldScale

BLOCK_POINTS = 2**21
CPU = torch.device("cpu")


def block_size(grid: Grid) -> int:
    """Returns how many samples to process at once where all may be too many for the memory."""
    return max(1, BLOCK_POINTS // grid.size)


@dataclass(frozen=True)
class Samples:
    """Input and output fields of N samples on one grid, float32, in physical units."""

    inputs: Tensor  # [N, in, *grid.shape]
    outputs: Tensor  # [N, out, *grid.shape]
    grid: Grid
    features: Sequence[Tensor] | None = None  # what a frozen trunk makes of the inputs, [N, ...]

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: slice | Tensor) -> "Samples":
        features = self.features and [tensor[index] for tensor in self.features]
        return Samples(self.inputs[index], self.outputs[index], self.grid, features)

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""
        return self.inputs.shape[1], self.outputs.shape[1]

    def restrict_to(self, grid: Grid) -> "Samples":
        """Returns the samples restricted to a coarser grid of the same hierarchy."""
        inputs = restrict_to(self.inputs, self.grid, grid)
        outputs = restrict_to(self.outputs, self.grid, grid)
        return Samples(inputs.contiguous(), outputs.contiguous(), grid)

    def to(self, device: torch.device) -> "Samples":
        """Returns the samples on a device."""
        return Samples(self.inputs.to(device), self.outputs.to(device), self.grid)

    def split(self, size: int) -> Iterator["Samples"]:
        """Yields the samples in order, at most ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def batches(self, indices: Sequence[Tensor]) -> Generator["Samples"]:
        """Yields a batch for each index tensor."""
        for index in indices:
            yield self[index.to(self.inputs.device)]


@dataclass(frozen=True)
class StreamedSamples:
    """Samples that are read when they are asked for, restricted to a grid, and not kept.

    Indexing gives the same bits as indexing the same samples held in memory.
    """

    load: Callable[[np.ndarray], Samples]  # reads samples by their numbers, in any order
    count: int
    num_channels: tuple[int, int]  # of inputs and of outputs
    stored_grid: Grid  # of what is read
    grid: Grid  # to restrict it to, of the same hierarchy
    device: torch.device = CPU  # where to put it

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: slice | Tensor) -> Samples:
        numbers = torch.arange(len(self))[index].numpy()
        inputs, outputs = (
            torch.empty(len(numbers), channels, *self.grid.shape) for channels in self.num_channels
        )
        size = block_size(self.stored_grid)
        for start in range(0, len(numbers), size):
            part = slice(start, start + size)
            samples = self.load(numbers[part]).restrict_to(self.grid)
            inputs[part], outputs[part] = samples.inputs, samples.outputs
        return Samples(inputs, outputs, self.grid).to(self.device)

    def to(self, device: torch.device) -> "StreamedSamples":
        """Returns the samples, to be put on a device when they are read."""
        return replace(self, device=device)

    def split(self, size: int) -> Iterator[Samples]:
        """Yields the samples in order, at most ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def batches(self, indices: Sequence[Tensor]) -> Generator[Samples]:
        """Yields a batch for each index tensor; a thread reads one ahead until the last is out."""
        with ThreadPoolExecutor(1, "samples") as reader:
            coming = reader.submit(self.__getitem__, indices[0])
            for index in indices[1:]:
                batch = coming.result()
                coming = reader.submit(self.__getitem__, index)
                yield batch
            yield coming.result()


TrainingSamples = Samples | StreamedSamples


# --- statistics ---


class ChannelStatistics:
    """Mean, standard deviation and range ``[C]`` of the channels of all fields seen, in float64.

    Blocks are combined by the formulas of Chan, Golub and LeVeque (The American Statistician 37,
    1983), which lose nothing where the mean is large.
    """

    def __init__(self, num_channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(num_channels, dtype=torch.float64)
        self.low = torch.full_like(self.mean, torch.inf)
        self.high = -self.low
        self._deviation = torch.zeros_like(self.mean)
        self.sample_sizes: list[Tensor] = []  # root mean square of each sample [N, C], by block

    def add(self, fields: Tensor) -> None:
        """Looks at fields ``[N, C, *grid]``."""
        values = fields.movedim(1, 0).flatten(1).to(torch.float64, copy=True)
        low, high = values.aminmax(dim=1)
        count, mean = values.shape[1], values.mean(1)
        norms = values.unflatten(1, (len(fields), -1)).norm(dim=2).T.cpu()
        self.sample_sizes.append(norms / (count / len(fields)) ** 0.5)
        deviation = values.sub_(mean[:, None]).square_().sum(1).cpu()
        step, total = mean.cpu() - self.mean, self.count + count
        self.mean = self.mean + step * (count / total)
        self._deviation += deviation + step.square() * (self.count * count / total)
        self.low, self.high = self.low.minimum(low.cpu()), self.high.maximum(high.cpu())
        self.count = total

    @property
    def std(self) -> Tensor:
        """Standard deviation."""
        return (self._deviation / (self.count - 1)).sqrt()

    @property
    def root_mean_square(self) -> Tensor:
        """Root of the mean square."""
        return (self._deviation / self.count + self.mean.square()).sqrt()

    def or_size(self, spread: Tensor) -> Tensor:
        """Returns a measure of the spread ``[C]``; of a constant channel its size, or 1 if zero."""
        size = self.low.abs().maximum(self.high.abs())
        return spread.where(spread > CONSTANT * size, size.where(size > 0, 1.0))


@dataclass(frozen=True)
class TrainingStatistics:
    """What scaling and the measurement of errors need to know of the training samples."""

    inputs: ChannelStatistics
    outputs: ChannelStatistics
    ratios: ChannelStatistics | None  # of the outputs over the root mean square of the input
    mean_output: Tensor  # over samples, [out, *grid], in float64

    @classmethod
    def of(
        cls, samples: TrainingSamples, ratios: bool = False, num_outputs: int | None = None
    ) -> "TrainingStatistics":
        """Takes the statistics of inputs and first outputs in one pass over the samples."""
        num_inputs, all_outputs = samples.num_channels
        inputs = ChannelStatistics(num_inputs)
        outputs = ChannelStatistics(all_outputs if num_outputs is None else num_outputs)
        mean = torch.zeros(len(outputs.mean), *samples.grid.shape, dtype=torch.float64)
        seen = cls(inputs, outputs, ChannelStatistics(len(outputs.mean)) if ratios else None, mean)
        for block in samples.split(block_size(samples.grid)):
            fields = block.outputs[:, :num_outputs]
            seen.inputs.add(block.inputs)
            seen.outputs.add(fields)
            mean += fields.sum(0, dtype=torch.float64).cpu() / len(samples)
            if seen.ratios is not None:
                size = block.inputs.double().square().flatten(1).mean(1).sqrt()
                size = size.where(size > 0, torch.inf)  # a zero input has no ratio
                size = size.reshape(-1, *(1,) * (fields.ndim - 1))
                seen.ratios.add(fields.double() / size)
        return seen

    @property
    def fields(self) -> tuple[FieldScale, ...]:
        """What is typical of each output field."""
        seen = self.outputs
        size = seen.root_mean_square.where(seen.root_mean_square > 0, 1.0)
        columns = (size, seen.or_size(seen.std), seen.low, seen.high)
        return tuple(map(FieldScale, *(column.tolist() for column in columns)))

    def unresolved(self, names: Sequence[str]) -> str | None:
        """Returns, of the first output field whose variation is lost in float32, what is so."""
        seen, stds = self.outputs, self.outputs.std.tolist()
        for name, std, low, high in zip(names, stds, seen.low, seen.high, strict=True):
            largest = max(abs(low.item()), abs(high.item()))
            if low < high and std <= CONSTANT * largest:
                return (
                    f"the output field '{name}' varies by {std:.3g} (standard deviation) around "
                    f"{largest:.3g}, which float32, in which samples are held, cannot tell apart; "
                    "subtract its mean in the file"
                )
        return None

    def negligible(self, names: Sequence[str]) -> dict[str, list[int]]:
        """Returns, by field, the training samples whose field counts as zero in errors."""
        sizes = torch.cat(self.outputs.sample_sizes)
        small = (sizes <= NEGLIGIBLE * self.outputs.root_mean_square).T
        numbers = (column.nonzero().flatten().tolist() for column in small)
        return {name: few for name, few in zip(names, numbers, strict=True) if few}
