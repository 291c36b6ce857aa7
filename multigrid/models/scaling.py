"""A network with its normalisation: physical fields in, physical fields out."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from multigrid.data.samples import block_size
from multigrid.data.statistics import ChannelStatistics
from multigrid.data.streaming import TrainingSamples
from multigrid.grid import Grid
from multigrid.models.layers import channels_last
from multigrid.problems.base import Problem

NormalizationKind = Literal["none", "gaussian", "min-max", "homogeneous"]


@dataclass(frozen=True)
class FieldScaling:
    """How fields are scaled on their way into and out of a network.

    Attributes:
        kind: ``none``; ``gaussian``: each channel to mean 0 and standard deviation 1;
            ``min-max``: each channel to the range [0, 1]; ``homogeneous``: each sample is divided
            by the root mean square of its input, and the output multiplied by it, which is exact
            where the problem is homogeneous.
        input_shift, input_scale: What each input channel is lessened by, then divided by.
        output_shift, output_scale: The same of each output channel.
    """

    kind: NormalizationKind
    input_shift: tuple[float, ...]
    input_scale: tuple[float, ...]
    output_shift: tuple[float, ...]
    output_scale: tuple[float, ...]

    @classmethod
    def fit(cls, kind: NormalizationKind, samples: TrainingSamples) -> "FieldScaling":
        """Computes the statistics of training samples, block by block.

        The scale of a channel that has one value everywhere is 1.
        """
        if kind == "none":
            return cls.identity(*samples.num_channels)
        if kind == "homogeneous":
            return cls._fit_homogeneous(samples)
        fields = [ChannelStatistics(channels) for channels in samples.num_channels]
        for block in samples.split(block_size(samples.grid)):
            fields[0].add(block.inputs)
            fields[1].add(block.outputs)
        pick = _standardisation if kind == "gaussian" else _unit_range
        return cls(kind, *pick(fields[0]), *pick(fields[1]))

    @classmethod
    def identity(cls, in_channels: int, out_channels: int) -> "FieldScaling":
        """Returns the scaling that changes nothing."""
        zeros, ones = (0.0,) * in_channels, (1.0,) * in_channels
        return cls("none", zeros, ones, (0.0,) * out_channels, (1.0,) * out_channels)

    @classmethod
    def _fit_homogeneous(cls, samples: TrainingSamples) -> "FieldScaling":
        in_channels, out_channels = samples.num_channels
        ratios = ChannelStatistics(out_channels)
        for block in samples.split(block_size(samples.grid)):
            ratios.add(block.outputs.double() / root_mean_square(block.inputs.double()))
        return replace(
            cls.identity(in_channels, out_channels),
            kind="homogeneous",
            output_scale=tuple(ratios.root_mean_square.tolist()),
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FieldScaling":
        """Restores what :meth:`to_dict` gave."""
        kind = values["kind"]
        return cls(kind, *(tuple(values[key]) for key in cls.__annotations__ if key != "kind"))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain containers."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def _standardisation(seen: ChannelStatistics) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(seen.mean.tolist()), tuple(seen.or_one(seen.std).tolist())


def _unit_range(seen: ChannelStatistics) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(seen.low.tolist()), tuple(seen.or_one(seen.high - seen.low).tolist())


def root_mean_square(fields: Tensor) -> Tensor:
    """Returns the root mean square of each sample, ``[N, 1, ..., 1]``, never zero."""
    dims = list(range(1, fields.ndim))
    return fields.square().mean(dims, keepdim=True).sqrt().clamp_min(1e-30)


class Surrogate(nn.Module):
    """A network that takes and gives fields in physical units.

    Args:
        network: Maps scaled input fields to scaled output fields.
        scaling: How the fields are scaled.
        boundary: Where outputs are known, boolean ``[out, *grid]``, and their values there; they
            replace the network's output.
    """

    def __init__(
        self,
        network: nn.Module,
        scaling: FieldScaling,
        boundary: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.scaling = scaling
        self.boundary = boundary

    @classmethod
    def of(
        cls,
        network: nn.Module,
        scaling: FieldScaling,
        problem: Problem,
        grid: Grid,
        device: torch.device,
    ) -> "Surrogate":
        """Returns the surrogate of a problem on a device, with the boundary values it knows."""
        known = problem.boundary_values(grid)
        boundary = None
        if known is not None:
            where, values = (torch.from_numpy(array).to(device) for array in known)
            boundary = where, values.float()
        return cls(network.to(device), scaling, boundary)

    def forward(self, inputs: Tensor, network: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Maps input fields ``[N, in, *grid]`` to output fields ``[N, out, *grid]``.

        Args:
            inputs: The fields.
            network: What to call instead of the network, with scaled inputs, to the same effect.
        """
        scaling = self.scaling
        x, size = self.scaled(inputs)
        y = (self.network if network is None else network)(x).to(inputs.dtype)
        y = y if size is None else y * size
        y = y * _channels(scaling.output_scale, y) + _channels(scaling.output_shift, y)
        return y if self.boundary is None else torch.where(self.boundary[0], self.boundary[1], y)

    def scaled(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns what the network is given, and what it was divided by where that counts.

        Args:
            inputs: Physical fields ``[N, in, *grid]``.

        Returns:
            Fields of the same shape; the size of each sample ``[N, 1, ...]`` for a homogeneous
            problem, else None.
        """
        scaling = self.scaling
        x = inputs - _channels(scaling.input_shift, inputs)
        x = x / _channels(scaling.input_scale, inputs)
        size = root_mean_square(x) if scaling.kind == "homogeneous" else None
        return channels_last(x if size is None else x / size), size


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).reshape(1, -1, *(1,) * (like.ndim - 2))
