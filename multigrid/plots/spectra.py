"""Where in the spectrum the errors of the levels lie."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from multigrid.plots.style import COLOURS, MARKERS, plain, tidy


@dataclass(frozen=True)
class LevelSpectrum:
    """The error of one level by wavelength.

    Attributes:
        level: The level.
        grid: Its grid.
        error: Root mean square error of its predictions, prolonged to the finest grid, by their
            number of half-waves across the box.
    """

    level: int
    grid: tuple[int, ...]
    error: Sequence[float]


def plot_spectra(truth: Sequence[float], levels: Sequence[LevelSpectrum], title: str) -> Figure:
    """Draws the error's spectrum of each level beside that of the truth.

    Args:
        truth: Root mean square of the true outputs by their number of half-waves across the box.
        levels: The errors, coarsest level first.
        title: Title of the figure.
    """
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axis = figure.subplots()
    size = float(np.linalg.norm(truth))
    edges = _bands(len(truth))
    centres = np.sqrt(edges[:-1] * (edges[1:] - 1))
    amplitudes = _sum(truth, edges) / size
    seen = amplitudes > 0  # periodic fields have even numbers of half-waves only
    axis.plot(centres[seen], amplitudes[seen], color="0.7", linewidth=5, label="truth")
    for item in levels:
        colour = COLOURS[item.level % len(COLOURS)]
        amplitudes = _sum(item.error, edges) / size
        seen = amplitudes > 0
        axis.plot(
            centres[seen],
            amplitudes[seen],
            color=colour,
            marker=MARKERS[item.level % len(MARKERS)],
            markersize=4,
            label=f"error, level {item.level}: {'x'.join(map(str, item.grid))}",
        )
        axis.axvline(max(item.grid), color=colour, linestyle=":", linewidth=1)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="half-waves across the box (dotted: the most that a level's grid carries)",
        ylabel="part of the truth's norm, per band",
    )
    axis.xaxis.set_major_locator(LogLocator(base=2))
    axis.xaxis.set_major_formatter(FormatStrFormatter("%d"))
    axis.xaxis.set_minor_locator(NullLocator())
    tidy(axis)
    axis.legend(frameon=False, fontsize=9)
    axis.set_title(plain(title), fontsize=11)
    return figure


def _bands(length: int) -> np.ndarray:
    """Returns the first entries of bands of half an octave, from one half-wave on, and the end."""
    count = int(2 * np.log2(max(length - 1, 2))) + 1
    return np.unique([*np.ceil(2 ** (np.arange(count) / 2)), length]).astype(int)


def _sum(amplitudes: Sequence[float], edges: np.ndarray) -> np.ndarray:
    """Returns the root of the sum of squares in each band."""
    return np.sqrt(np.add.reduceat(np.square(amplitudes), edges[:-1]))
