"""Augmentation by what is exact for a problem: more samples, and no error."""

import numpy as np
import torch
from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.grid import Grid
from multigrid.problems.base import Symmetries


def augment(batch: Samples, symmetries: Symmetries, rng: np.random.Generator) -> Samples:
    """Returns a batch of as many new samples, made from those given.

    Linear problems: every sample becomes a random combination of itself and a mirrored other one,
    with normally distributed factors. Reflections, exchanges of axes and shifts are drawn once for
    the whole batch.

    Args:
        batch: Samples to start from; left untouched.
        symmetries: What is exact for them.
        rng: Source of randomness.
    """
    fields = torch.cat([batch.inputs, batch.outputs], dim=1)
    if symmetries.linear:
        fields = _superpose(fields, _reorient(fields, batch.grid, symmetries, rng), rng)
    fields = _reorient(fields, batch.grid, symmetries, rng)
    num_inputs = batch.inputs.shape[1]
    return Samples(fields[:, :num_inputs], fields[:, num_inputs:], batch.grid)


def _superpose(fields: Tensor, others: Tensor, rng: np.random.Generator) -> Tensor:
    order = torch.from_numpy(rng.permutation(len(fields))).to(fields.device)
    factors = torch.from_numpy(rng.standard_normal((2, len(fields)), dtype=np.float32))
    factors = factors.to(fields.device).reshape(2, -1, *(1,) * (fields.ndim - 1))
    return factors[0] * fields + factors[1] * others[order]


def _reorient(
    fields: Tensor, grid: Grid, symmetries: Symmetries, rng: np.random.Generator
) -> Tensor:
    axes = list(range(2, fields.ndim))
    free = [axis for axis in axes if axis - 2 not in symmetries.fixed_axes]
    if symmetries.reflections:
        mirrors = [axis for axis in free if grid.is_symmetric(axis - 2)]
        flips = [axis for axis in mirrors if rng.random() < 0.5]
        fields = fields.flip(flips) if flips else fields
    if symmetries.rotations:
        fields = fields.permute(0, 1, *_exchange(axes, free, fields.shape, rng))
    if symmetries.shifts:
        distances = [int(rng.integers(fields.shape[axis])) for axis in axes]
        fields = fields.roll(distances, axes)
    return fields


def _exchange(
    axes: list[int], free: list[int], shape: torch.Size, rng: np.random.Generator
) -> list[int]:
    """Returns the axes with those free ones of equal length in random order."""
    result = list(axes)
    for length in {shape[axis] for axis in free}:
        places = [axis for axis in free if shape[axis] == length]
        for place, axis in zip(places, rng.permutation(places), strict=True):
            result[place - 2] = int(axis)
    return result
