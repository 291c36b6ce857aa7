"""Fields as series of sines, and shifting their modes."""

from collections.abc import Sequence
from functools import lru_cache, reduce

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from multigrid.fields import multiply
from multigrid.grid import Centering, Grid


def shift_solutions(inputs: Tensor, outputs: Tensor, grid: Grid, steps: Sequence[int]) -> Tensor:
    """Moves all waves of right-hand sides and solutions of ``-Laplace(u) = f`` to shorter ones.

    With u = 0 on the boundary of the unit box every sine is an eigenfunction of the Laplacian:

        f = sum_k f_k prod_d sin(pi k_d x_d),    u = sum_k f_k / (pi^2 |k|^2) prod_d sin(pi k_d x_d)

    and with the same f_k at the modes k + s instead of k this gives another solution. It is exact
    on every grid that tells apart all modes of the fields, whether the values are those at points
    or averages, restricted or not: these differ by a factor for each mode, which is the same for f
    and for u. Modes beyond those of the grid are left out of both.

    Args:
        inputs: The fields f ``[N, in, *grid]``.
        outputs: The fields u ``[N, out, *grid]``.
        grid: Their grid.
        steps: The number s for each axis.

    Returns:
        Both, concatenated: ``[N, in + out, *grid]``.
    """
    wavenumbers = [torch.arange(1.0, m + 1, device=inputs.device) for m in grid.num_sines]
    squares = reduce(lambda a, b: a[..., None] + b, [k**2 for k in wavenumbers])
    margins = [margin for step in reversed(steps) for margin in (step, -step)]
    f = _transform(inputs, grid, inverse=True)
    g = _transform(outputs, grid, inverse=True) * squares
    f, g = pad(f, margins), pad(g, margins)
    return _transform(torch.cat([f, g / squares], dim=1), grid, inverse=False)


def _transform(fields: Tensor, grid: Grid, inverse: bool) -> Tensor:
    """Returns the values of a series of sines, or the coefficients of values."""
    matrices = [
        _sines(n, h, grid.centering, inverse, fields.dtype, fields.device)
        for n, h in zip(grid.shape, grid.spacing, strict=True)
    ]
    return multiply(fields, matrices)


@lru_cache(maxsize=64)
def _sines(
    n: int,
    spacing: float,
    centering: Centering,
    inverse: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Returns the matrix from coefficients to values ``[n, m]``, or back ``[m, n]``."""
    line = Grid((n,), centering, (spacing,))
    (x,), (m,) = line.axes(), line.num_sines
    matrix = np.sin(np.pi * np.outer(x, np.arange(1, m + 1)))
    if inverse:
        matrix = matrix.T / np.sum(matrix**2, axis=0)[:, None]  # its columns are orthogonal
    return torch.as_tensor(matrix, dtype=dtype, device=device)
