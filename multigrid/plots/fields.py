"""Fields as pictures: test samples beside their predictions, and roll-outs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from multigrid.plots.style import COLOURS, Picture, plain, tidy
from multigrid.records.examples import Examples, RollOut, colour_range, compared

# Fields without a sign, with both signs, and errors.
COLOUR_MAPS = {"unsigned": "viridis", "signed": "RdBu_r", "error": "PuOr_r"}
MAX_ROWS = 8
BAR = 0.75  # the place of a colour bar, in inches


def plot_predictions(examples: Examples, heading: str) -> Figure:
    """Draws input, truth, prediction and error; one row for each sample, output field and slice.

    Truth and prediction share their colours; fields of both signs and errors have colours that
    are symmetric about zero. Further samples are left out where there would be more than eight
    rows.
    """
    a_sample = len(examples.output_names) * len(examples.cuts)
    rows = list(examples.rows())[: max(1, MAX_ROWS // a_sample) * a_sample]
    width, height = _size(examples.cuts[0].truth.shape[2:], 2.4)
    size = 4 * width + 3 * BAR + 0.5, (height + 0.35) * len(rows) + 0.4
    figure = Picture(size, compress=True)
    grid = figure.subplots(len(rows), 4, squeeze=False)
    for axes, (sample, channel, cut) in zip(grid, rows, strict=True):
        panels = examples.panels(sample, channel, cut)
        for number, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
            axis.set_box_aspect(height / width)
            _draw(axis, *panel, bar=number != 1)  # truth and prediction share a colour bar
        axes[0].set_ylabel(plain(examples.title(sample, cut)), fontsize=9)
    figure.entitle(heading)
    return figure


def plot_rollout(
    rollout: RollOut,
    names: Sequence[str],
    heading: str,
    errors: Sequence[float] | np.ndarray,
    persistence: Sequence[float] | np.ndarray = (),
) -> Figure:
    """Draws truth, prediction and error of a trajectory at some steps, and the error over steps.

    ``errors`` and ``persistence`` are mean relative L2 errors after 1, 2, ... steps, of the
    surrogate and of the given state itself.
    """
    steps, rows = len(rollout.steps), 3 * len(names)
    width, height = _size(rollout.truth.shape[2:], 1.75)
    pictures, curve = rows * (height + 0.1) + 0.4, 2.6
    figure = Picture((max(steps * (width + 0.1) + 2 * BAR, 6.0), pictures + curve), compress=True)
    halves: Any = figure.subfigures(2, 1, height_ratios=[pictures, curve])
    upper, lower = halves
    grid = upper.subplots(rows, steps, squeeze=False)
    for channel, name in enumerate(names):
        truth, prediction = rollout.truth[:, channel], rollout.prediction[:, channel]
        # the first state may be far rougher than all that follow, so it has its own colours
        lines = compared(name, truth, prediction, colour_range(truth[1:]), f"error {name}")
        for row, (label, fields, limits) in enumerate(lines, start=3 * channel):
            axes, is_error = grid[row], limits[0] == "error"
            for axis, field, step in zip(axes, fields, rollout.steps, strict=True):
                axis.set_box_aspect(height / width)
                if is_error and not step:
                    axis.axis("off")  # there is no error yet
                    continue
                mapped = limits if step else colour_range(field)
                shown = f"step {step}" if step else "given"
                _draw(axis, "" if row else shown, field, mapped, bar=axis is axes[-1] or not step)
            axes[int(is_error)].set_ylabel(plain(label), fontsize=9)
    axis = lower.subplots()
    numbers = range(1, len(errors) + 1)
    style: Any = {"color": COLOURS[0], "marker": "o", "markersize": 3.5}
    axis.plot(numbers, errors, label="surrogate, fed its outputs", **style)
    if len(persistence):
        style = {"color": "0.5", "linestyle": "--"}
        axis.plot(numbers, persistence, label="persistence: nothing changes", **style)
        axis.legend(frameon=False, fontsize=8)
    positive = np.concatenate([errors, persistence])
    if (positive > 0).any():  # persistence is far above
        axis.set_yscale("log")
    axis.set(xlabel="steps", ylabel="relative L2 error")
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    tidy(axis)
    figure.entitle(heading, upper)
    return figure


def _size(shape: tuple[int, ...], height: float) -> tuple[float, float]:
    """Returns width and height of a panel in inches."""
    ratio = 1.6 if len(shape) == 1 else min(2.0, max(0.5, shape[0] / shape[1]))
    return (height * ratio, height) if ratio < 1 else (height, height / ratio)


def _draw(
    axis: Axes, heading: str, field: np.ndarray, scale: tuple[str, float, float], bar: bool
) -> None:
    """Draws a field ``[x, y]`` as an image, or ``[x]`` as a line."""
    kind, low, high = scale
    axis.set_title(plain(heading), fontsize=9, pad=3)
    axis.set_xticks([])
    if field.ndim == 1:
        axis.plot(field, color=COLOURS[1 if kind == "error" else 0], linewidth=1)
        margin = 0.05 * (high - low)
        axis.set_ylim(low - margin, high + margin)
        axis.yaxis.tick_right()
        axis.tick_params(labelsize=7, labelright=bar, labelleft=False)
        return
    axis.set_yticks([])
    colours: Any = COLOUR_MAPS[kind]
    image = axis.imshow(field.T, origin="lower", cmap=colours, vmin=low, vmax=high, aspect="auto")
    if bar:
        beside = axis.inset_axes((1.03, 0, 0.04, 1))
        colour_bar = axis.figure.colorbar(image, cax=beside)
        beside.tick_params(labelsize=7)
        colour_bar.ax.ticklabel_format(scilimits=(-3, 4))
        beside.yaxis.get_offset_text().set_fontsize(7)
