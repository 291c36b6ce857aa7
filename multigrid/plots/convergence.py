"""Validation error against epochs, time and work."""

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from multigrid.plots.style import COLOURS, MARKERS, plain, tidy
from multigrid.records.history import Row

CHARACTERS = 150


def plot_convergence(rows: Sequence[Row], title: str, remarks: Sequence[str] = ()) -> Figure:
    """Draws the validation error per level against epochs, training time and work units.

    Solid: on the level's own grid. Dotted: of the prediction prolonged to the finest grid.
    Vertical lines mark where a stage begins. ``remarks`` stand below the title.
    """
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, label, values in (
        (axes[0], "epochs", epochs_so_far(rows)),
        (axes[1], "training time [s]", [row.seconds for row in rows]),
        (axes[2], "work units (1 = an epoch on the finest grid)", [r.work_units for r in rows]),
    ):
        _draw_stages(axis, rows, np.asarray(values, dtype=float))
        axis.set_xlabel(label)
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("validation error (mean relative L2)")
    axes[0].legend(title="level", frameon=False)
    own = Line2D([], [], color="0.3", label="on the level's own grid")
    finest = Line2D([], [], color="0.3", linestyle=":", label="prolonged to the finest grid")
    axes[1].legend(handles=[own, finest], frameon=False)
    figure.suptitle(plain("\n".join([title, *wrap("; ".join(remarks), CHARACTERS)])))
    return figure


def epochs_so_far(rows: Sequence[Row]) -> list[int]:
    """Returns the number of epochs trained at each row, all stages counted."""
    starts = np.cumsum([row.epoch == 0 for row in rows])
    return [int(n) for n in np.arange(len(rows)) - starts + 1]


def _draw_stages(axis: Axes, rows: Sequence[Row], x: np.ndarray) -> None:
    levels_seen: set[int] = set()
    for stage in sorted({row.stage for row in rows}):
        part = [i for i, row in enumerate(rows) if row.stage == stage]
        row = rows[part[0]]
        colour = COLOURS[row.level % len(COLOURS)]
        marker = MARKERS[row.level % len(MARKERS)]
        label = None if row.level in levels_seen else f"{row.level}: {row.grid}"
        levels_seen.add(row.level)
        own = [rows[i].val_rel_l2 for i in part]
        finest = [rows[i].val_finest_rel_l2 for i in part]
        axis.plot(x[part], finest, color=colour, linestyle=":", linewidth=1.2)
        axis.plot(x[part], own, color=colour, marker=marker, markersize=3.5, label=label)
        if stage:
            axis.axvline(x[part[0]], color="0.75", linewidth=0.8, zorder=0)
    axis.set_yscale("log")
    tidy(axis)
