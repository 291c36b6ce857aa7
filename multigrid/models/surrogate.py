"""A network with its normalisation: physical fields in, physical fields out."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from multigrid.data.samples import Samples
from multigrid.models.blocks import channels_last

NormalizationKind = Literal["none", "gaussian", "homogeneous"]


@dataclass(frozen=True)
class FieldScaling:
    """How fields are scaled on their way into and out of a network.

    Attributes:
        kind: ``none``; ``gaussian``: mean and standard deviation of each channel;
            ``homogeneous``: each sample is divided by the root mean square of its input, and the
            output multiplied by it, which is exact where the problem is homogeneous.
        input_mean, input_std: One number for each input channel.
        output_mean, output_std: One number for each output channel.
    """

    kind: NormalizationKind
    input_mean: tuple[float, ...]
    input_std: tuple[float, ...]
    output_mean: tuple[float, ...]
    output_std: tuple[float, ...]

    @classmethod
    def fit(cls, kind: NormalizationKind, samples: Samples) -> "FieldScaling":
        """Computes the statistics of training samples."""
        inputs, outputs = samples.inputs, samples.outputs
        if kind == "gaussian":
            return cls(kind, *_moments(inputs), *_moments(outputs))
        identity = cls.identity(inputs.shape[1], outputs.shape[1])
        if kind == "none":
            return identity
        ratio = outputs / root_mean_square(inputs)
        spread = ratio.square().mean([0, *range(2, ratio.ndim)]).sqrt()
        return replace(identity, kind=kind, output_std=tuple(spread.tolist()))

    @classmethod
    def identity(cls, in_channels: int, out_channels: int) -> "FieldScaling":
        """Returns the scaling that changes nothing."""
        zeros, ones = (0.0,) * in_channels, (1.0,) * in_channels
        return cls("none", zeros, ones, (0.0,) * out_channels, (1.0,) * out_channels)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FieldScaling":
        """Restores what :meth:`to_dict` gave."""
        kind = values["kind"]
        return cls(kind, *(tuple(values[key]) for key in cls.__annotations__ if key != "kind"))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain containers."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def _moments(fields: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel; 1 for the latter if it is constant."""
    dims = [0, *range(2, fields.ndim)]
    mean, std = fields.mean(dims), fields.std(dims)
    constant = std <= 1e-6 * fields.abs().amax(dims)
    return tuple(mean.tolist()), tuple(std.masked_fill(constant, 1.0).tolist())


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

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps input fields ``[N, in, *grid]`` to output fields ``[N, out, *grid]``."""
        scaling = self.scaling
        x = (inputs - _channels(scaling.input_mean, inputs)) / _channels(scaling.input_std, inputs)
        size = root_mean_square(x) if scaling.kind == "homogeneous" else None
        y = self.network(channels_last(x if size is None else x / size)).to(inputs.dtype)
        y = y if size is None else y * size
        y = y * _channels(scaling.output_std, y) + _channels(scaling.output_mean, y)
        return y if self.boundary is None else torch.where(self.boundary[0], self.boundary[1], y)


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).reshape(1, -1, *(1,) * (like.ndim - 2))
