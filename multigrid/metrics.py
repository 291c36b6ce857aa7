"""Errors of predicted fields, one value for each sample.

Metrics take a prediction and the truth as ``[N, C, *grid]`` and return ``[N]``; norms run over
channels and grid points together. :func:`field_errors` calls them once for each output field, in
float64, so that a small field counts as much as a large one and no unit over- or underflows.

A field that is zero, or smaller than rounding errors, has no size to relate an error to. Where the
norm of a sample's field is at most :data:`NEGLIGIBLE` times what is typical of that field over the
training samples, its error is relative to the typical norm instead.

Users add metrics with ``multigrid.register_metric(name)``, or hand them in as ``metrics={name:
function}``. A function that takes ``grid`` or ``field`` as well is given the :class:`Grid` or the
:class:`FieldScale`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.registry import METRICS
from multigrid.tables import listed

Metric = Callable[..., Tensor]

NEGLIGIBLE = 1e-6
"""A field of less than this times its typical size counts as zero in relative errors."""

CONSTANT = 2.0**-23
"""A field that varies by less than this times its size is constant: float32 holds no more."""

BANDS = {"low": (0.0, 1 / 3), "mid": (1 / 3, 2 / 3), "high": (2 / 3, 2.0)}
"""Wavenumbers over Nyquist's."""

BLOCK_VALUES = 2**21
NUM_NAMED = 20


@dataclass(frozen=True)
class FieldScale:
    """What is typical of an output field over the training samples, in its unit.

    Root mean square (1 if the field is zero in all samples), standard deviation (the size if the
    field has one value everywhere) and range. All zeros if that is unknown; the relative error of
    a zero field is then infinite.
    """

    size: float = 0.0
    spread: float = 0.0
    low: float = 0.0
    high: float = 0.0


UNKNOWN = FieldScale()


@METRICS.register("rel_l2")
def rel_l2(prediction: Tensor, truth: Tensor, field: FieldScale = UNKNOWN) -> Tensor:
    """Relative L2 error ``||p - u|| / ||u||``."""
    return _over(_norm(prediction - truth), _norm(truth), field.size * truth[0].numel() ** 0.5)


@METRICS.register("rel_l1")
def rel_l1(prediction: Tensor, truth: Tensor, field: FieldScale = UNKNOWN) -> Tensor:
    """Relative L1 error ``sum |p - u| / sum |u|``."""
    error, size = (x.abs().flatten(1).sum(1) for x in (prediction - truth, truth))
    return _over(error, size, field.size * truth[0].numel())


@METRICS.register("rel_h1")
def rel_h1(prediction: Tensor, truth: Tensor, grid: Grid, field: FieldScale = UNKNOWN) -> Tensor:
    """Relative H1 error ``||p - u||_1 / ||u||_1`` with ``||e||_1^2 = ||e||^2 + ||grad e||^2``.

    The gradient is taken by differences between neighbouring points, inside the box only.
    """
    return _over(_h1(prediction - truth, grid), _h1(truth, grid), field.size)


@METRICS.register("vrmse")
def vrmse(prediction: Tensor, truth: Tensor, field: FieldScale = UNKNOWN) -> Tensor:
    """Error relative to the fluctuation, ``sqrt(mean (p - u)^2 / var u)``, the variance in space.

    It does not become small where u has a large offset, as ``rel_l2`` does. After Ohana et al.,
    The Well, NeurIPS 2024, who add 1e-7 to the variance instead of the rule for zero fields.
    """
    spread = truth.flatten(1).var(1, correction=0).sqrt()
    return _over(rmse(prediction, truth), spread, field.spread)


@METRICS.register("rmse")
def rmse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Root of the mean squared error."""
    return mse(prediction, truth).sqrt()


def mse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error."""
    return (prediction - truth).square().flatten(1).mean(1)


@METRICS.register("max")
def max_error(prediction: Tensor, truth: Tensor) -> Tensor:
    """Largest absolute error."""
    return (prediction - truth).abs().flatten(1).amax(1)


@METRICS.register("boundary_rmse")
def boundary_rmse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Root of the mean squared error over the outermost points of the grid."""
    squares = (prediction - truth).square()
    mask = torch.ones_like(squares[0], dtype=torch.bool)
    mask[(slice(None), *[slice(1, -1)] * (squares.ndim - 2))] = False
    return squares[:, mask].mean(1).sqrt()


def band_error(
    prediction: Tensor, truth: Tensor, field: FieldScale = UNKNOWN, band: str = "low"
) -> Tensor:
    """Relative L2 error by wavelength: ``low``, ``mid`` and ``high`` thirds up to Nyquist.

    The error's discrete Fourier coefficients are sorted by the largest wavenumber among the axes,
    over that axis's Nyquist wavenumber. By Parseval's identity the squares of the three add up to
    the square of the relative L2 error.
    """
    grid = truth.shape[2:]
    axes = list(range(2, truth.ndim))
    coefficients = torch.fft.fftn(prediction - truth, dim=axes, norm="ortho").abs()
    along = [2 * torch.fft.fftfreq(n, device=truth.device).abs() for n in grid]
    wavenumber = torch.stack(torch.meshgrid(along, indexing="ij")).amax(0)
    first, last = BANDS[band]
    error = _norm(coefficients * ((wavenumber >= first) & (wavenumber < last)))
    return _over(error, _norm(truth), field.size * truth[0].numel() ** 0.5)


for _band in BANDS:
    METRICS.register(f"rel_l2_{_band}")(partial(band_error, band=_band))


@METRICS.register("min_max_rel_l1")
def min_max_rel_l1(prediction: Tensor, truth: Tensor, field: FieldScale) -> Tensor:
    """Relative L1 error in percent of fields scaled to [0, 1] by the range of training outputs.

    The metric of Raonic et al., arXiv:2302.01178, who report its median over samples.
    """
    span = field.high - field.low
    span = span if span > CONSTANT * field.size else field.size
    if not span:
        return torch.full_like(truth.flatten(1)[:, 0], torch.nan)
    prediction, truth = ((fields - field.low) / span for fields in (prediction, truth))
    return 100 * rel_l1(prediction, truth, FieldScale(size=1.0))


def registered_metrics() -> dict[str, Metric]:
    """Returns all metrics by name."""
    return {name: METRICS.get(name) for name in METRICS.names()}


def field_errors(
    prediction: Tensor,
    truth: Tensor,
    grid: Grid,
    fields: Sequence[FieldScale] = (),
    metrics: Mapping[str, Metric] | None = None,
) -> dict[str, Tensor]:
    """Returns errors of each output field ``[N, C]`` in float64, by default of all metrics."""
    metrics = registered_metrics() if metrics is None else metrics
    num_samples, num_fields = truth.shape[:2]
    size = max(1, BLOCK_VALUES // max(1, truth[0, 0].numel())) if num_samples else 1
    errors = {name: truth.new_zeros(truth.shape[:2], dtype=torch.float64) for name in metrics}
    for channel, field in enumerate(fields or [UNKNOWN] * num_fields):
        bound = {name: bind(fn, grid=grid, field=field) for name, fn in metrics.items()}
        for start in range(0, num_samples, size):
            part = (slice(start, start + size), slice(channel, channel + 1))
            p, u = prediction[part].double(), truth[part].double()
            for name, metric in bound.items():
                values = metric(p, u)
                if not isinstance(values, Tensor) or values.shape != (len(u),):
                    is_tensor = isinstance(values, Tensor)
                    what = f"the shape {tuple(values.shape)}" if is_tensor else repr(values)
                    raise UserError(
                        f"metrics: '{name}' returns {what}, but must return one value for each "
                        f"of the {len(u)} samples"
                    )
                errors[name][part[0], channel] = values
    return errors


def per_field(errors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Returns errors over samples as ``{metric: {field: value}}``.

    Means over samples; the largest value for ``max``, the median for ``min_max_rel_l1``.
    """
    reductions: dict[str, Callable[[Tensor], Tensor]] = {
        "max": lambda values: values.amax(0),
        "min_max_rel_l1": lambda values: values.quantile(0.5, dim=0),
    }
    reduced = {m: reductions.get(m, lambda v: v.mean(0))(values) for m, values in errors.items()}
    return {m: dict(zip(names, row.tolist(), strict=True)) for m, row in reduced.items()}


def mean_over_fields(table: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of each metric over the fields; the largest value for ``max``."""
    return {
        metric: max(row.values()) if metric == "max" else sum(row.values()) / len(row)
        for metric, row in table.items()
    }


def over_fields(errors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns ``[N]`` of each metric's ``[N, C]``: means over fields, the largest for ``max``."""
    return {
        metric: values.amax(1) if metric == "max" else values.mean(1)
        for metric, values in errors.items()
    }


def rel_l2_by_field(prediction: Tensor, truth: Tensor, fields: Sequence[FieldScale] = ()) -> Tensor:
    """Returns the relative L2 error of each sample and field, ``[N, C]`` in float64."""
    grid = Grid(tuple(truth.shape[2:]))
    return field_errors(prediction, truth, grid, fields, {"rel_l2": rel_l2})["rel_l2"]


def mean_rel_l2(prediction: Tensor, truth: Tensor, fields: Sequence[FieldScale] = ()) -> Tensor:
    """Returns the relative L2 error of each sample, the mean over its fields, ``[N]``, float64."""
    return rel_l2_by_field(prediction, truth, fields).mean(1)


def negligible_fields(
    truth: Tensor, fields: Sequence[FieldScale], names: Sequence[str]
) -> dict[str, list[int]]:
    """Returns the numbers of the samples whose field counts as zero, by field if there are any."""
    sizes = [block.double().square().flatten(1).mean(1).sqrt() for block in truth.unbind(1)]
    numbers = {
        name: (size <= NEGLIGIBLE * field.size).nonzero().flatten().tolist()
        for name, size, field in zip(names, sizes, fields, strict=True)
    }
    return {name: samples for name, samples in numbers.items() if samples}


def negligible_notes(numbers: Mapping[str, Sequence[int]]) -> list[str]:
    """Returns a line on what :func:`negligible_fields` has found in each output field."""
    notes = []
    for name, samples in numbers.items():
        notes.append(
            f"samples {listed(samples, NUM_NAMED)}: the field {name} is zero, or less than "
            f"{NEGLIGIBLE:g} of its usual size; their errors are relative to the usual size"
        )
    return notes


def bind(function: Callable[..., Any], **context: Any) -> Callable[..., Any]:
    """Returns a function that is given those arguments of a context that it has parameters for."""
    return partial(function, **{k: v for k, v in context.items() if takes(function, k)})


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of a name."""
    try:
        return name in signature(function).parameters
    except ValueError:  # written in C
        return False


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)


def _h1(x: Tensor, grid: Grid) -> Tensor:
    terms = [x, *(x.diff(dim=axis) / h for axis, h in enumerate(grid.spacing, start=2))]
    # A norm of norms, as the square root of a sum has no gradient where the error is zero.
    return torch.stack([_norm(term) / term[0].numel() ** 0.5 for term in terms]).norm(dim=0)


def _over(error: Tensor, size: Tensor, typical: float) -> Tensor:
    """Returns ``error / size``, with the typical size in place of negligible ones."""
    return error / size.where(size > NEGLIGIBLE * typical, typical)
