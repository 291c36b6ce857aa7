"""Spectra of fields and errors by wavelength. Works on arrays; does not import torch."""

import numpy as np
from scipy import fft


def spectrum(fields: np.ndarray, periodic: bool = False) -> np.ndarray:
    """Returns the root mean square of fields by their number of half-waves across the box.

    Fields that do not wrap around are continued evenly (cosine transform of type 2), so that their
    edges do not count as short waves; periodic ones are Fourier-transformed. A coefficient counts
    for the largest number of half-waves among its axes, which a grid of n points can carry up to
    n. By Parseval's identity the squares of all entries add up to the mean square of the fields.

    Args:
        fields: Array ``[N, C, *grid]``.
        periodic: Whether the fields wrap around the box.

    Returns:
        Array ``[n]``, n being the largest number of points along an axis (``[n + 1]`` if periodic).
        Entry j belongs to j half-waves.
    """
    axes = tuple(range(2, fields.ndim))
    shape = fields.shape[2:]
    values = np.asarray(fields, dtype=np.float64)
    if periodic:
        coefficients = np.abs(np.fft.fftn(values, axes=axes, norm="ortho"))
        counts = [2 * np.abs(np.fft.fftfreq(n, 1 / n)).round().astype(int) for n in shape]
    else:
        coefficients = fft.dctn(values, axes=axes, norm="ortho")
        counts = [np.arange(n) for n in shape]
    half_waves = np.max(np.meshgrid(*counts, indexing="ij"), axis=0)
    energy = np.square(coefficients).mean(axis=(0, 1))
    length = max(shape) + periodic
    total = np.bincount(half_waves.ravel(), energy.ravel(), minlength=length)
    return np.sqrt(total / np.prod(shape))
