"""Several runs side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from multigrid.plots.style import COLOURS, plain, tidy
from multigrid.records.history import Row

STYLES = ("-", "--", "-.", ":")
QUANTITIES = (
    ("seconds", "training time [s]"),
    ("work_units", "work units (1 = an epoch on the finest grid)"),
    ("flops", "floating-point operations"),
)


def plot_comparison(
    by_method: Mapping[str, Sequence[Sequence[Row]]], target: float | None, title: str
) -> Figure:
    """Draws the lowest error so far of every method against time, work and operations.

    Args:
        by_method: The histories of each method's runs, one for each seed: the median is drawn,
            with the range over the seeds.
        target: An error to mark, or None.
        title: Title of the figure.
    """
    figure = Figure(figsize=(14, 4.6), layout="constrained")
    axes = figure.subplots(1, len(QUANTITIES), sharey=True)
    for axis, (quantity, label) in zip(axes, QUANTITIES, strict=True):
        for index, (name, histories) in enumerate(by_method.items()):
            style = STYLES[index // len(COLOURS) % len(STYLES)]
            many = f" ({len(histories)} seeds)" if len(histories) > 1 else ""
            draw_method(
                axis, histories, quantity, COLOURS[index % len(COLOURS)], name + many, style
            )
        if target is not None:
            axis.axhline(target, color="0.5", linewidth=0.9, linestyle="--", zorder=0)
        axis.set(xscale="log", yscale="log", xlabel=label)
        tidy(axis)
    axes[0].set_ylabel("lowest validation error so far,\non the finest grid (mean relative L2)")
    axes[0].legend(frameon=False, fontsize=9)
    figure.suptitle(plain(title))
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
