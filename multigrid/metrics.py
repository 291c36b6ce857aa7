"""Errors of predicted fields, one value for each sample.

All functions take a prediction and the truth as ``[N, C, *grid]`` and return ``[N]``; norms run
over channels and grid points together. Means over samples are left to the caller.
"""

from collections.abc import Callable

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
    total = x.flatten(1).square().mean(1)
    for axis, h in enumerate(spacing, start=2):
        total = total + (x.diff(dim=axis) / h).flatten(1).square().mean(1)
    return total.sqrt()


def mse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error."""
    return (prediction - truth).square().flatten(1).mean(1)


def rmse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Root of the mean squared error."""
    return mse(prediction, truth).sqrt()


def max_error(prediction: Tensor, truth: Tensor) -> Tensor:
    """Largest absolute error."""
    return (prediction - truth).abs().flatten(1).amax(1)


def field_errors(prediction: Tensor, truth: Tensor, grid: Grid) -> dict[str, Tensor]:
    """Returns every metric by its name, each ``[N]``."""
    return {
        "rel_l2": rel_l2(prediction, truth),
        "rel_l1": rel_l1(prediction, truth),
        "rel_h1": rel_h1(prediction, truth, grid.spacing),
        "rmse": rmse(prediction, truth),
        "max": max_error(prediction, truth),
    }


Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(name: str, grid: Grid) -> Loss:
    """Returns a loss: the mean of a metric over the samples of a batch."""
    metric: Loss
    if name == "rel_h1":
        spacing = grid.spacing

        def metric(prediction: Tensor, truth: Tensor) -> Tensor:
            return rel_h1(prediction, truth, spacing)
    else:
        metric = {"rel_l2": rel_l2, "rel_l1": rel_l1, "mse": mse}[name]
    return lambda prediction, truth: torch.mean(metric(prediction, truth))
