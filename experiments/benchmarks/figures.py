"""The figure of a suite: error against training time and against FLOPs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.benchmarks.analysis import CostRecord, SpeedUp
from experiments.benchmarks.suites import DIRECT
from multigrid.plots.curves import STYLES, draw_method
from multigrid.plots.style import COLOURS, save_figure, tidy


def plot_speed_up(
    by_method: Mapping[str, Sequence[CostRecord]],
    labels: Mapping[str, str],
    speed_up: SpeedUp | None,
    path: Path,
) -> None:
    """Draws the lowest error so far of every method, median and range over seeds.

    A horizontal line marks direct training's best error, and an arrow along it the distance
    between the two methods.

    Args:
        by_method: Runs of each method; the first is the ladder.
        labels: What each method is.
        speed_up: The comparison at direct training's best error, if there is one to mark.
        path: File to write.
    """
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, quantity, label in (
        (axes[0], "seconds", "training time [s]"),
        (axes[1], "flops", "floating-point operations"),
    ):
        for number, (name, runs) in enumerate(by_method.items()):
            again, place = divmod(number, len(COLOURS))
            style = STYLES[again % len(STYLES)]
            histories = [[row for row in run.rows if row.flops] for run in runs]
            draw_method(axis, histories, quantity, COLOURS[place], labels[name], style)
        if speed_up is not None:
            ladder = next(iter(by_method.values()))
            _mark(axis, (ladder, by_method[DIRECT]), quantity, speed_up)
        axis.set(xscale="log", yscale="log", xlabel=label)
        tidy(axis)
    axes[0].set_ylabel("validation error on the finest grid\n(mean relative L2)")
    lines, names = axes[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    save_figure(figure, path)


def _mark(
    axis: Axes, runs: Sequence[Sequence[CostRecord]], quantity: str, speed_up: SpeedUp
) -> None:
    errors = {run.seed: speed_up.factor * run.best for run in runs[1]}
    ladder, direct = (
        float(np.median([run.cost_to(errors[run.seed], quantity) for run in group]))
        for group in runs
    )
    axis.axhline(speed_up.error, color="0.6", linewidth=0.8, linestyle="--")
    if math.isfinite(ladder) and math.isfinite(direct):
        arrow = {"arrowstyle": "<->", "color": "black"}
        axis.annotate("", (ladder, speed_up.error), (direct, speed_up.error), arrowprops=arrow)
        ratio = getattr(speed_up, quantity)
        place = (math.sqrt(ladder * direct), speed_up.error * 1.1)
        axis.annotate(f"{ratio:.0f}x", place, ha="center", fontsize=12)
