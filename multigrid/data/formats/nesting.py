"""How the same fields on two grids nest."""

from typing import Any, Literal

import numpy as np

Restriction = Literal["average", "stride"]

ROUNDING = 1e-5


def detect_restriction(coarse_outputs: np.ndarray, fine_outputs: np.ndarray) -> Restriction | None:
    """Finds out how the same fields on two grids nest.

    Args:
        coarse_outputs: Fields ``[N, channels, *coarse]``.
        fine_outputs: The same fields ``[N, channels, *fine]``.

    Returns:
        ``average`` if each coarse value is the mean of the fine cells in it, ``stride`` if it is
        the fine value at the same place, both up to rounding in float32; None if neither or
        both fit.
    """
    coarse, fine = coarse_outputs.astype(np.float64), fine_outputs.astype(np.float64)
    num_fine, num_coarse = fine.shape[-1], coarse.shape[-1]
    ratio = round(num_fine / num_coarse)
    stride = round((num_fine - 1) / (num_coarse - 1)) if num_fine % 2 and num_coarse > 1 else ratio
    if min(ratio, stride) < 2:
        return None
    tolerance = ROUNDING * float(np.abs(fine).max(initial=0))
    strided: tuple[Any, ...] = (..., *(slice(None, None, stride),) * (fine.ndim - 2))
    candidates: dict[Restriction, np.ndarray] = {
        "average": _average(fine, ratio),
        "stride": fine[strided],
    }
    fits = [
        name
        for name, fields in candidates.items()
        if fields.shape == coarse.shape and np.allclose(fields, coarse, rtol=0, atol=tolerance)
    ]
    return fits[0] if len(fits) == 1 else None


def _average(fields: np.ndarray, ratio: int) -> np.ndarray:
    """Returns the means over ``ratio`` points along each axis; what is left over is dropped."""
    for axis in range(2, fields.ndim):
        whole = fields.shape[axis] // ratio
        fields = np.moveaxis(fields, axis, -1)[..., : whole * ratio]
        fields = np.moveaxis(fields.reshape(*fields.shape[:-1], whole, ratio).mean(-1), -1, axis)
    return fields
