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

from multigrid.errors import UserError, nearest
from multigrid.plots.style import COLOURS, MARKERS, legend_columns, panels, plain, tidy
from multigrid.records.history import COSTS, Row, epochs_so_far

STYLES = ("-", "--", "-.", ":")


def plot_convergence(
    rows: Sequence[Row],
    heading: str,
    remarks: Sequence[str] = (),
    direct: Sequence[Row] = (),
    against: str | None = None,
) -> Figure:
    """Draws the validation error per level, by default against epochs, training time and work.

    Solid: on the level's grid. Dotted: of the prediction prolonged to the finest grid. Vertical
    lines mark where a stage begins. ``remarks`` stand below the title. ``direct``: a training on
    the finest grid alone, drawn against time and work.
    """
    lines = [heading, *wrap("; ".join(remarks), 130)]
    quantities = _chosen(against, ("epochs", "seconds", "work_units"))
    figure, axes = panels(len(quantities), (4.0, 3.7), 0.5 + 0.22 * len(lines))
    for axis, quantity in zip(axes, quantities, strict=True):
        costs = epochs_so_far(rows) if quantity == "epochs" else _column(rows, quantity)
        _draw_stages(axis, rows, np.asarray(costs, dtype=float))
        axis.set(xlabel=COSTS[quantity], yscale="log")
        if quantity == "epochs":
            axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        elif direct:
            style: Any = {"color": "0.35", "linestyle": "--", "marker": "x", "markersize": 4}
            style["label"] = f"direct training on {direct[0].grid}"
            axis.plot(_column(direct, quantity), _column(direct, "val_finest_rel_l2"), **style)
        tidy(axis)
    axes[0].set_ylabel("validation error\n(mean relative L2)")
    styled = []
    if any(row.val_rel_l2 != row.val_finest_rel_l2 for row in rows):
        styles: dict[str, Any] = {"on its own grid": "-", "on the finest grid": ":"}
        styled = [Line2D([], [], color="0.3", linestyle=s, label=n) for n, s in styles.items()]
    figure.put_legend(styled)
    figure.entitle("\n".join(lines))
    return figure


def _chosen(against: str | Sequence[str] | None, names: Sequence[str]) -> Sequence[str]:
    """Returns what panels are drawn against: some quantities, or all by default."""
    chosen = names if against is None else (against,) if isinstance(against, str) else against
    for name in chosen:
        if name not in names:
            raise UserError(
                f"against: '{name}' is not one of {', '.join(names)}{nearest(name, names)}"
            )
    return chosen


def _column(rows: Sequence[Row], name: str) -> list[float]:
    return [getattr(row, name) for row in rows]


def _draw_stages(axis: Axes, rows: Sequence[Row], x: np.ndarray) -> None:
    width, last_label = np.ptp(x) or 1.0, -np.inf
    for stage in sorted({row.stage for row in rows}):
        here = [row for row in rows if row.stage == stage]
        places = x[[row.stage == stage for row in rows]]
        level, grid, start = here[0].level, here[0].grid, places[0]
        colour, marker = COLOURS[level % len(COLOURS)], MARKERS[level % len(MARKERS)]
        finest, errors = _column(here, "val_finest_rel_l2"), _column(here, "val_rel_l2")
        if finest != errors:
            axis.plot(places, finest, color=colour, linestyle=":", linewidth=1.2)
        style: Any = {"color": colour, "marker": marker, "markersize": 3.5}
        axis.plot(places, errors, label=f"level {level}: {grid}", **style)
        if stage:
            axis.axvline(start, color="0.75", linewidth=0.8, zorder=0)
        if stage and start - last_label > 0.05 * width:  # those of shorter stages would overlap
            style = {"ha": "right", "va": "top", "fontsize": 7.5, "color": "0.35"}
            place = axis.get_xaxis_transform()
            axis.text(start, 0.99, grid, transform=place, rotation=90, **style)
            last_label = start
    axis.margins(x=0.03)


def plot_comparison(
    by_method: Mapping[str, Sequence[Sequence[Row]]],
    target: float | None,
    heading: str,
    against: str | Sequence[str] | None = None,
) -> Figure:
    """Draws the lowest error so far of every method, by default against time, work and operations.

    Of a method's runs, one for each seed, the median is drawn, with the range over the seeds; a
    dashed line marks ``target``, if there is one.
    """
    quantities = _chosen(against, ("seconds", "work_units", "flops"))
    rows = ceil(len(by_method) / legend_columns([f"{name} (9 seeds)" for name in by_method], 13.5))
    figure, axes = panels(len(quantities), (4.2, 4.0), 0.3 + 0.2 * rows)
    for axis, quantity in zip(axes, quantities, strict=True):
        for index, (name, histories) in enumerate(by_method.items()):
            style = STYLES[index // len(COLOURS) % len(STYLES)]
            many = f" ({len(histories)} seeds)" if len(histories) > 1 else ""
            colour = COLOURS[index % len(COLOURS)]
            draw_method(axis, histories, quantity, colour, name + many, style)
        if target is not None:
            axis.axhline(target, color="0.5", linewidth=0.9, linestyle="--", zorder=0)
        axis.set(xscale="log", yscale="log", xlabel=COSTS[quantity])
        tidy(axis)
    axes[0].set_ylabel("lowest validation error\nso far, finest grid\n(mean relative L2)")
    figure.put_legend()
    figure.entitle(heading)
    return figure


def draw_method(
    axis: Axes,
    histories: Sequence[Sequence[Row]],
    quantity: str,
    colour: str,
    label: str,
    style: str,
) -> None:
    """Draws the lowest error so far: the median over histories, and their range.

    Of an even number the median is what at least half of them have reached, as for speed-ups.
    """
    costs = [np.array(_column(rows, quantity)) for rows in histories]
    errors = [np.minimum.accumulate(_column(rows, "val_finest_rel_l2")) for rows in histories]
    start = max(cost[cost > 0].min() for cost in costs)
    end = min(cost.max() for cost in costs)
    x = np.geomspace(start, end, 200)
    x[[0, -1]] = start, end
    pairs = zip(costs, errors, strict=True)
    curves = np.stack([error[np.searchsorted(c, x, "right") - 1] for c, error in pairs])
    median = np.quantile(curves, 0.5, axis=0, method="higher")
    axis.plot(x, median, color=colour, linestyle=style, label=plain(label))
    axis.fill_between(x, curves.min(0), curves.max(0), color=colour, alpha=0.2, linewidth=0)


def plot_spectra(
    truth: Sequence[float], levels: Sequence[Mapping[str, Any]], heading: str
) -> Figure:
    """Draws the spectrum of each level's ``error`` beside that of the truth.

    Spectra are root mean squares by the number of half-waves across the box.
    """
    figure, (axis,) = panels(1, (6.4, 4.0), 1.0)
    size = float(np.linalg.norm(truth)) or 1.0
    edges = _bands(len(truth))
    centres = np.sqrt(edges[:-1] * (edges[1:] - 1))

    def draw(amplitudes: Sequence[float], **style: Any) -> None:
        values = np.sqrt(np.add.reduceat(np.square(amplitudes), edges[:-1])) / size
        seen = values > 0  # periodic fields have even numbers of half-waves only
        axis.plot(centres[seen], values[seen], **style)

    draw(truth, color="0.7", linewidth=5, label="truth")
    for item in levels:
        number, grid = item["level"], "x".join(map(str, item["grid"]))
        style: Any = {"color": COLOURS[number % len(COLOURS)], "markersize": 4}
        style["marker"] = MARKERS[number % len(MARKERS)]
        draw(item["error"], label=f"error of level {number}: {grid}", **style)
        axis.axvline(max(item["grid"]), color=style["color"], linestyle=":", linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="wavenumber (half-waves across the box)")
    axis.set_ylabel("amplitude in each half octave\nover the norm of the truth")
    tidy(axis)
    octaves = [2**k for k in range(int(np.log2(len(truth))) + 1)]
    axis.xaxis.set_major_locator(FixedLocator(octaves))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    limit = Line2D([], [], color="0.4", linestyle=":", label="shortest wave on a level's grid")
    figure.put_legend([limit])
    figure.entitle(heading)
    return figure


def _bands(length: int) -> np.ndarray:
    """Returns the first entries of bands of half an octave, from one half-wave on, and the end."""
    count = int(2 * np.log2(max(length - 1, 2))) + 1
    return np.unique([*np.ceil(2 ** (np.arange(count) / 2)), length]).astype(int)
