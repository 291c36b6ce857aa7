"""A network with its scaling: physical fields in, physical fields out."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from multigrid.data.samples import ChannelStatistics, TrainingSamples, TrainingStatistics
from multigrid.grid import Grid
from multigrid.metrics import UNKNOWN, FieldScale
from multigrid.models.layers import channels_last
from multigrid.problems.base import Problem

NormalizationKind = Literal["none", "gaussian", "min-max", "homogeneous"]

SHIFTS_AND_SCALES = ("input_shift", "input_scale", "output_shift", "output_scale")


@dataclass(frozen=True)
class FieldScaling:
    """How fields are scaled on their way into and out of a network.

    ``none``; ``gaussian``: each channel to mean 0 and standard deviation 1; ``min-max``: each
    channel to the range [0, 1]; ``homogeneous``: each sample is divided by the root mean square of
    its input, and the output multiplied by it, which is exact where the problem is homogeneous. The
    shift of a channel is subtracted, then it is divided by its scale; that of a constant one is its
    absolute value, or 1. ``fields`` is what is typical of each output field.
    """

    kind: NormalizationKind
    input_shift: tuple[float, ...]
    input_scale: tuple[float, ...]
    output_shift: tuple[float, ...]
    output_scale: tuple[float, ...]
    fields: tuple[FieldScale, ...]

    @classmethod
    def fit(cls, kind: NormalizationKind, samples: TrainingSamples) -> "FieldScaling":
        """Computes the scaling for training samples, block by block in float64."""
        return cls.of(kind, TrainingStatistics.of(samples, kind == "homogeneous"))

    @classmethod
    def of(cls, kind: NormalizationKind, seen: TrainingStatistics) -> "FieldScaling":
        """Returns the scaling for statistics of training samples, with ratios if homogeneous."""
        in_channels, out_channels = len(seen.inputs.mean), len(seen.outputs.mean)
        unscaled = cls.identity(in_channels, out_channels, seen.fields)
        if kind == "none":
            return unscaled
        if kind == "homogeneous":
            assert seen.ratios is not None
            unit = binary_unit(seen.inputs.root_mean_square.square().mean().sqrt().item())
            ratios = seen.ratios.root_mean_square
            scale = tuple((ratios * unit).where(ratios > 0, 1.0).tolist())
            units = (unit,) * in_channels
            return replace(unscaled, kind=kind, input_scale=units, output_scale=scale)

        def pick(part: ChannelStatistics) -> tuple[tuple[float, ...], tuple[float, ...]]:
            is_range = kind == "min-max"
            shift, size = (part.low, part.high - part.low) if is_range else (part.mean, part.std)
            return tuple(shift.tolist()), tuple(part.or_size(size).tolist())

        return cls(kind, *pick(seen.inputs), *pick(seen.outputs), seen.fields)

    @classmethod
    def identity(
        cls, in_channels: int, out_channels: int, fields: tuple[FieldScale, ...] = ()
    ) -> "FieldScaling":
        """Returns the scaling that changes nothing."""
        zeros, ones = (0.0,) * in_channels, (1.0,) * in_channels
        fields = fields or (UNKNOWN,) * out_channels
        return cls("none", zeros, ones, (0.0,) * out_channels, (1.0,) * out_channels, fields)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FieldScaling":
        """Restores what :meth:`to_dict` returned, or what a run before version 0.2 saved."""
        scaling = {name: tuple(values[name]) for name in SHIFTS_AND_SCALES}
        unknown: list[dict[str, float]] = [{}] * len(values["output_scale"])
        fields = tuple(FieldScale(**field) for field in values.get("fields", unknown))
        return cls(kind=values["kind"], fields=fields, **scaling)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain containers."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def binary_unit(size: float) -> float:
    """Returns the largest power of two up to a positive number, 1 for zero: it changes no digit."""
    return math.ldexp(1.0, math.frexp(size)[1] - 1) if size else 1.0


def root_mean_square(fields: Tensor) -> Tensor:
    """Returns the root mean square of each sample, ``[N, 1, ..., 1]``, never zero.

    Of float32 fields in any unit: squares are taken of the fields over a power of two.
    """
    dims = list(range(1, fields.ndim))
    largest = fields.detach().abs().amax(dims, keepdim=True)
    largest = largest.masked_fill(~(largest > 0), 2.0**-60)
    unit = largest / (2 * torch.frexp(largest).mantissa)
    squares = (fields / unit).square().mean(dims, keepdim=True)
    return unit * squares.clamp_min(2.0**-60).sqrt()


class Surrogate(nn.Module):
    """A network that takes and returns fields in physical units.

    Scaling and boundary values are buffers: they move with the network, but are not part of the
    state dictionary.

    Args:
        network: Maps scaled input fields to scaled output fields.
        scaling: How the fields are scaled.
        boundary: Where outputs are prescribed, boolean ``[out, *grid]``, and their values there;
            they replace the network's output.
        mask_channel: The input that is zero where all fields count as zero.
    """

    input_shift: Tensor
    input_scale: Tensor
    output_shift: Tensor
    output_scale: Tensor
    on_boundary: Tensor | None
    boundary_values: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        scaling: FieldScaling,
        boundary: tuple[Tensor, Tensor] | None = None,
        mask_channel: int | None = None,
    ) -> None:
        super().__init__()
        self.mask_channel = mask_channel
        self.network = network
        self.scaling = scaling
        place = next((p.device for p in network.parameters()), None)
        buffers: dict[str, Tensor | None] = {
            name: torch.tensor(getattr(scaling, name), dtype=torch.float32)
            for name in SHIFTS_AND_SCALES
        }
        buffers["on_boundary"], buffers["boundary_values"] = boundary or (None, None)
        for name, values in buffers.items():
            self.register_buffer(name, values if values is None else values.to(place), False)
        # all processes hold the same, so there is nothing to send before each step
        self._ddp_params_and_buffers_to_ignore = list(buffers)

    @classmethod
    def of(
        cls,
        network: nn.Module,
        scaling: FieldScaling,
        problem: Problem,
        grid: Grid,
        device: torch.device,
    ) -> "Surrogate":
        """Returns the surrogate of a problem on a device, with the problem's boundary values."""
        boundary = None
        if (prescribed := problem.boundary_values(grid)) is not None:
            boundary = torch.from_numpy(prescribed[0]), torch.from_numpy(prescribed[1]).float()
        return cls(network, scaling, boundary, problem.mask_channel).to(device)

    def forward(self, inputs: Tensor, network: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Maps input fields ``[N, in, *grid]`` to output fields ``[N, out, *grid]``."""
        inside = None
        if self.mask_channel is not None:
            inside = inputs[:, self.mask_channel].unsqueeze(1) != 0
            inputs = inputs.where(inside, 0.0)
        x, size = self.scaled(inputs)
        y = (self.network if network is None else network)(x).to(inputs.dtype)
        y = y if size is None else y * size
        shape = (1, -1, *(1,) * (y.ndim - 2))
        y = y * self.output_scale.reshape(shape) + self.output_shift.reshape(shape)
        y = y if inside is None else y.where(inside, 0.0)
        if self.on_boundary is None or self.boundary_values is None:
            return y
        return torch.where(self.on_boundary, self.boundary_values, y)

    def scaled(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns scaled fields ``[N, in, *grid]``; if homogeneous, their sizes ``[N, 1, ...]``."""
        shape = (1, -1, *(1,) * (inputs.ndim - 2))
        x = (inputs - self.input_shift.reshape(shape)) / self.input_scale.reshape(shape)
        size = root_mean_square(x) if self.scaling.kind == "homogeneous" else None
        return channels_last(x if size is None else x / size), size
