"""Errors as curves: of one run, of several runs, and by wavelength."""

from collections.abc import Mapping, Sequence
from math import ceil
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from multigrid.plots.style import COLOURS, MARKERS, panels, plain, tidy, title
from multigrid.records.history import LevelSpectrum, Row, epochs_so_far

STYLES = ("-", "--", "-.", ":")
COSTS = {
    "seconds": "training time [s]",
    "work_units": "work units (1 = an epoch on the finest grid)",
    "flops": "floating-point operations",
}


def plot_convergence(
    rows: Sequence[Row], heading: str, remarks: Sequence[str] = (), direct: Sequence[Row] = ()
) -> Figure:
    """Draws the validation error per level against epochs, training time and work units.

    Solid: on the level's grid. Dotted: of the prediction prolonged to the finest grid. Vertical
    lines mark where a stage begins. ``remarks`` stand below the title. ``direct``: a training on
    the finest grid alone, drawn against time and work.
    """
    lines = [heading, *wrap("; ".join(remarks), 130)]
    figure, axes = panels(3, (3.7, 3.2), (0.75, 0.15, 0.95, 0.3 + 0.22 * len(lines)), 0.3)
    costs = {"epochs": epochs_so_far(rows)}
    costs |= {label: [getattr(r, name) for r in rows] for name, label in list(COSTS.items())[:2]}
    handles: dict[int, Line2D] = {}
    for axis, (label, values) in zip(axes, costs.items(), strict=True):
        _draw_stages(axis, rows, np.asarray(values, dtype=float), handles)
        axis.set(xlabel=label, yscale="log")
    lines_of_direct: list[Line2D] = []
    for axis, quantity in zip(axes[1:], COSTS, strict=False) if direct else ():
        x, errors = zip(*((getattr(r, quantity), r.val_finest_rel_l2) for r in direct), strict=True)
        style: Any = {"color": "0.35", "linestyle": "--", "marker": "x", "markersize": 4}
        style["label"] = f"direct training on {direct[0].grid}"
        lines_of_direct = axis.plot(x, errors, **style)
    _share_errors(axes)
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("validation error (mean relative L2)")
    styles: dict[str, Any] = {"on the level's grid": "-", "prolonged to the finest grid": ":"}
    styled = [Line2D([], [], color="0.3", linestyle=s, label=n) for n, s in styles.items()]
    _legend(figure, [*handles.values(), *styled, *lines_of_direct])
    title(figure, "\n".join(lines))
    return figure


def _draw_stages(
    axis: Axes, rows: Sequence[Row], x: np.ndarray, handles: dict[int, Line2D]
) -> None:
    width, last_label = np.ptp(x) or 1.0, -np.inf
    for stage in sorted({row.stage for row in rows}):
        indices = [i for i, row in enumerate(rows) if row.stage == stage]
        level, grid = rows[indices[0]].level, rows[indices[0]].grid
        colour, marker = COLOURS[level % len(COLOURS)], MARKERS[level % len(MARKERS)]
        finest = [rows[i].val_finest_rel_l2 for i in indices]
        axis.plot(x[indices], finest, color=colour, linestyle=":", linewidth=1.2)
        errors = [rows[i].val_rel_l2 for i in indices]
        (line,) = axis.plot(x[indices], errors, color=colour, marker=marker, markersize=3.5)
        line.set_label(f"level {level}: {grid}")
        handles.setdefault(level, line)
        start = x[indices[0]]
        if stage:
            axis.axvline(start, color="0.75", linewidth=0.8, zorder=0)
        if stage and start - last_label > 0.05 * width:  # those of shorter stages would overlap
            style: Any = {"ha": "right", "va": "top", "fontsize": 7.5, "color": "0.35"}
            place = axis.get_xaxis_transform()
            axis.text(start, 0.99, grid, transform=place, rotation=90, **style)
            last_label = start
    axis.margins(x=0.03)


def plot_comparison(
    by_method: Mapping[str, Sequence[Sequence[Row]]], target: float | None, heading: str
) -> Figure:
    """Draws the lowest error so far of every method against time, work and operations.

    Of a method's runs, one for each seed, the median is drawn, with the range over the seeds; a
    dashed line marks ``target``.
    """
    rows = ceil(len(by_method) / _columns([f"{name} (9 seeds)" for name in by_method], 13.5))
    figure, axes = panels(3, (3.9, 3.4), (0.9, 0.35, 0.7 + 0.2 * rows, 0.45), 0.3)
    for axis, (quantity, label) in zip(axes, COSTS.items(), strict=True):
        for index, (name, histories) in enumerate(by_method.items()):
            style = STYLES[index // len(COLOURS) % len(STYLES)]
            many = f" ({len(histories)} seeds)" if len(histories) > 1 else ""
            colour = COLOURS[index % len(COLOURS)]
            draw_method(axis, histories, quantity, colour, name + many, style)
        if target is not None:
            axis.axhline(target, color="0.5", linewidth=0.9, linestyle="--", zorder=0)
        axis.set(xscale="log", yscale="log", xlabel=label)
    _share_errors(axes)
    axes[0].set_ylabel("lowest validation error so far,\non the finest grid (mean relative L2)")
    _legend(figure, axes[0].get_lines()[: len(by_method)])
    title(figure, heading)
    return figure


def draw_method(
    axis: Axes,
    histories: Sequence[Sequence[Row]],
    quantity: str,
    colour: str,
    label: str,
    style: str = "-",
) -> None:
    """Draws the lowest error so far: the median over histories, and their range."""
    costs = [np.array([getattr(row, quantity) for row in rows]) for rows in histories]
    errors = [np.minimum.accumulate([row.val_finest_rel_l2 for row in rows]) for rows in histories]
    start = max(cost[cost > 0].min() for cost in costs)
    end = min(cost.max() for cost in costs)
    x = np.geomspace(start, end, 200)
    x[[0, -1]] = start, end
    curves = np.stack(
        [e[np.searchsorted(c, x, "right") - 1] for c, e in zip(costs, errors, strict=True)]
    )
    axis.plot(x, np.median(curves, axis=0), color=colour, linestyle=style, label=plain(label))
    axis.fill_between(x, curves.min(0), curves.max(0), color=colour, alpha=0.2, linewidth=0)


def plot_spectra(truth: Sequence[float], levels: Sequence[LevelSpectrum], heading: str) -> Figure:
    """Draws the spectrum of each level's error beside that of the truth.

    Spectra are root mean squares by the number of half-waves across the box.
    """
    figure, (axis,) = panels(1, (5.6, 3.4), (0.95, 0.2, 1.15, 0.45), 0)
    size = float(np.linalg.norm(truth)) or 1.0
    edges = _bands(len(truth))
    centres = np.sqrt(edges[:-1] * (edges[1:] - 1))

    def draw(amplitudes: Sequence[float], **style: Any) -> None:
        values = np.sqrt(np.add.reduceat(np.square(amplitudes), edges[:-1])) / size
        seen = values > 0  # periodic fields have even numbers of half-waves only
        axis.plot(centres[seen], values[seen], **style)

    draw(truth, color="0.7", linewidth=5, label="truth")
    for item in levels:
        number, grid = item.level, "x".join(map(str, item.grid))
        style: Any = {"color": COLOURS[number % len(COLOURS)], "markersize": 4}
        style["marker"] = MARKERS[number % len(MARKERS)]
        draw(item.error, label=f"error of level {number}: {grid}", **style)
        axis.axvline(max(item.grid), color=style["color"], linestyle=":", linewidth=1)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="wavenumber (half-waves across the box)",
        ylabel="amplitude in each half octave,\nrelative to the norm of the truth",
    )
    tidy(axis)
    octaves = [2**k for k in range(int(np.log2(len(truth))) + 1)]
    axis.xaxis.set_major_locator(FixedLocator(octaves))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    limit = Line2D([], [], color="0.4", linestyle=":", label="shortest wave on a level's grid")
    lines = [line for line in axis.get_lines() if str(line.get_label())[:1] != "_"]
    _legend(figure, [*lines, limit])
    title(figure, heading)
    return figure


def _bands(length: int) -> np.ndarray:
    """Returns the first entries of bands of half an octave, from one half-wave on, and the end."""
    count = int(2 * np.log2(max(length - 1, 2))) + 1
    return np.unique([*np.ceil(2 ** (np.arange(count) / 2)), length]).astype(int)


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Puts one legend below all panels."""
    columns = _columns([str(line.get_label()) for line in handles], figure.get_figwidth())
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=9)


def _columns(labels: Sequence[str], width: float) -> int:
    """Returns how many columns a legend may have in a figure so many inches wide."""
    length = sum(map(len, labels)) / len(labels)
    return max(1, min(len(labels), int(width / (0.6 + 0.075 * length))))


def _share_errors(axes: Sequence[Axes]) -> None:
    """Gives panels the same vertical axis, labelled on the left."""
    limits = [limit for axis in axes for limit in axis.get_ylim()]
    for axis in axes:
        axis.set_ylim(min(limits), max(limits))
        tidy(axis)
        axis.tick_params(labelleft=axis is axes[0])
