"""Statistics of the channels of samples, taken block by block, so that they may be on disk."""

import torch
from torch import Tensor

from multigrid.data.samples import block_size
from multigrid.data.streaming import TrainingSamples

CONSTANT = 1e-6


class ChannelStatistics:
    """Mean, standard deviation and range of each channel of all fields seen, in float64.

    Blocks are combined by the formulas of Chan, Golub and LeVeque (The American Statistician 37,
    1983), which lose nothing where the mean is large.

    Args:
        num_channels: Number of channels C; all statistics are ``[C]``.
    """

    def __init__(self, num_channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(num_channels, dtype=torch.float64)
        self.low = torch.full_like(self.mean, torch.inf)
        self.high = -self.low
        self._deviation = torch.zeros_like(self.mean)

    def add(self, fields: Tensor) -> None:
        """Looks at fields ``[N, C, *grid]``."""
        values = fields.movedim(1, 0).flatten(1).double()
        count, mean = values.shape[1], values.mean(1)
        deviation = (values - mean[:, None]).square().sum(1).cpu()
        low, high = values.aminmax(dim=1)
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

    def or_one(self, spread: Tensor) -> Tensor:
        """Returns a measure of the spread ``[C]``, with 1 for channels of a single value."""
        size = self.low.abs().maximum(self.high.abs())
        return spread.where(spread > CONSTANT * size, torch.ones_like(spread))


def output_range(samples: TrainingSamples) -> tuple[list[float], list[float]]:
    """Returns the smallest and the largest value of each output channel."""
    statistics = ChannelStatistics(samples.num_channels[1])
    for block in samples.split(block_size(samples.grid)):
        statistics.add(block.outputs)
    return statistics.low.tolist(), statistics.high.tolist()
