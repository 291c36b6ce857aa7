"""Statistics of the channels of samples, computed block by block, so that they may be on disk."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multigrid.data.samples import TrainingSamples, block_size
from multigrid.metrics import CONSTANT, NEGLIGIBLE, FieldScale


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
                size = size.where(size > 0, torch.inf)  # the ratio to a zero input is zero
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
