"""Errors of predicted fields, one value for each sample.

All functions take a prediction and the truth as ``[N, C, *grid]`` and return ``[N]``; norms run
over channels and grid points together. Means over samples are left to the caller.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from multigrid.grid import Grid


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)


def rel_l2(prediction: Tensor, truth: Tensor) -> Tensor:
    """Relative L2 error ``||p - u|| / ||u||``."""
    return _norm(prediction - truth) / _norm(truth)


def rel_l1(prediction: Tensor, truth: Tensor) -> Tensor:
    """Relative L1 error ``sum |p - u| / sum |u|``."""
    return (prediction - truth).abs().flatten(1).sum(1) / truth.abs().flatten(1).sum(1)


def rel_h1(prediction: Tensor, truth: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """Relative H1 error ``||p - u||_1 / ||u||_1`` with ``||e||_1^2 = ||e||^2 + ||grad e||^2``.

    The gradient is taken by differences between neighbouring points, inside the box only.
    """
    return _h1(prediction - truth, spacing) / _h1(truth, spacing)


def _h1(x: Tensor, spacing: tuple[float, ...]) -> Tensor:
    parts = [x, *(x.diff(dim=axis) / h for axis, h in enumerate(spacing, start=2))]
    # A norm of norms, as the square root of a sum has no gradient where the error is zero.
    return torch.stack([_norm(part) / part[0].numel() ** 0.5 for part in parts]).norm(dim=0)


def mse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error."""
    return (prediction - truth).square().flatten(1).mean(1)


def rmse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Root of the mean squared error."""
    return mse(prediction, truth).sqrt()


def max_error(prediction: Tensor, truth: Tensor) -> Tensor:
    """Largest absolute error."""
    return (prediction - truth).abs().flatten(1).amax(1)


def boundary_rmse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Root of the mean squared error over the outermost points of the grid."""
    squares = (prediction - truth).square()
    mask = torch.ones_like(squares[0], dtype=torch.bool)
    mask[(slice(None), *[slice(1, -1)] * (squares.ndim - 2))] = False
    return squares[:, mask].mean(1).sqrt()


def spectral_errors(prediction: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Relative L2 error by wavelength: ``low``, ``mid`` and ``high`` thirds up to Nyquist.

    The error's discrete Fourier coefficients are sorted by the largest wavenumber among the axes,
    over that axis's Nyquist wavenumber. By Parseval's identity the squares of the three add up to
    the square of the relative L2 error.
    """
    axes = list(range(2, truth.ndim))
    coefficients = torch.fft.fftn(prediction - truth, dim=axes, norm="ortho").abs()
    wavenumber = torch.zeros(truth.shape[2:], device=truth.device)
    for i, n in enumerate(truth.shape[2:]):
        shape = [1] * len(axes)
        shape[i] = n
        part = 2 * torch.fft.fftfreq(n, device=truth.device).abs()
        wavenumber = torch.maximum(wavenumber, part.reshape(shape))
    bands = {"low": (0, 1 / 3), "mid": (1 / 3, 2 / 3), "high": (2 / 3, 2)}
    return {
        name: _norm(coefficients * ((wavenumber >= first) & (wavenumber < last))) / _norm(truth)
        for name, (first, last) in bands.items()
    }


def min_max_rel_l1(
    prediction: Tensor, truth: Tensor, low: Sequence[float], high: Sequence[float]
) -> Tensor:
    """Relative L1 error in percent after scaling fields to [0, 1] by given ranges.

    The metric of Raonic et al., arXiv:2302.01178, who report its median over samples; the ranges
    are those of the training outputs.

    Args:
        prediction: Tensor ``[N, C, *grid]``.
        truth: Tensor ``[N, C, *grid]``.
        low: Smallest value of each channel.
        high: Largest value of each channel.
    """
    shape = (1, -1, *(1,) * (truth.ndim - 2))
    minimum = torch.tensor(low, device=truth.device).reshape(shape)
    span = (torch.tensor(high, device=truth.device).reshape(shape) - minimum).clamp_min(1e-30)
    return 100 * rel_l1((prediction - minimum) / span, (truth - minimum) / span)


def field_errors(prediction: Tensor, truth: Tensor, grid: Grid) -> dict[str, Tensor]:
    """Returns every metric by its name, each ``[N]``."""
    return {
        "rel_l2": rel_l2(prediction, truth),
        "rel_l1": rel_l1(prediction, truth),
        "rel_h1": rel_h1(prediction, truth, grid.spacing),
        "rmse": rmse(prediction, truth),
        "max": max_error(prediction, truth),
        "boundary_rmse": boundary_rmse(prediction, truth),
        **{f"rel_l2_{k}": v for k, v in spectral_errors(prediction, truth).items()},
    }
