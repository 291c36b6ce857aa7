"""Fields as pictures: test samples beside their predictions, and roll-outs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from multigrid.plots.style import COLOURS, inches, plain, tidy, title
from multigrid.records.examples import Examples, RollOut, colour_range

# Fields without a sign, with both signs, and errors.
COLOUR_MAPS = {"unsigned": "viridis", "signed": "RdBu_r", "error": "PuOr_r"}
MAX_ROWS = 8
LEFT, BAR, TOP = 0.4, 0.75, 0.7  # margins and the place of a colour bar, in inches


def plot_predictions(examples: Examples, heading: str) -> Figure:
    """Draws input, truth, prediction and error; one row for each sample, output field and slice.

    Truth and prediction share their colours; fields of both signs and errors have colours that
    are symmetric about zero. Further samples are left out where there would be more than eight
    rows.
    """
    rows = [
        (sample, channel, cut)
        for sample in range(len(examples.rel_l2))
        for channel in range(len(examples.output_names))
        for cut in examples.cuts
    ]
    a_sample = len(examples.output_names) * len(examples.cuts)
    rows = rows[: max(1, MAX_ROWS // a_sample) * a_sample]
    size = _size(examples.cuts[0].truth.shape[2:], 2.4)
    step = size[1] + 0.4
    width = LEFT + 4 * size[0] + 3 * BAR + 0.1
    figure = Figure(figsize=(width, step * len(rows) + TOP - 0.2))
    lefts = [LEFT, LEFT + size[0] + BAR, LEFT + 2 * size[0] + BAR + 0.1]
    lefts.append(lefts[-1] + size[0] + BAR)
    for row, (sample, channel, cut) in enumerate(rows):
        y = step * (len(rows) - 1 - row) + 0.15
        axes = [inches(figure, x, y, *size) for x in lefts]
        panels = examples.panels(sample, channel, cut)
        for number, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
            _draw(axis, *panel, bar=number != 1)  # truth and prediction share a colour bar
        axes[0].set_ylabel(plain(examples.title(sample, cut)), fontsize=9)
    title(figure, heading)
    return figure


def plot_rollout(
    rollout: RollOut,
    errors: Sequence[float] | np.ndarray,
    names: Sequence[str],
    heading: str,
    persistence: Sequence[float] | np.ndarray = (),
) -> Figure:
    """Draws truth, prediction and error of a trajectory at some steps, and the error over steps.

    ``errors`` and ``persistence`` are mean relative L2 errors after 1, 2, ... steps, of the
    surrogate and of the given state itself.
    """
    steps = len(rollout.steps)
    size = _size(rollout.truth.shape[2:], 1.75)
    row = size[1] + 0.1
    width = max(LEFT + steps * (size[0] + 0.1) + BAR, 6.0)
    curve = 2.9  # height of the lowest panel and its labels
    figure = Figure(figsize=(width, 3 * len(names) * row + curve + TOP))
    top = 3 * len(names) * row + curve
    for channel, name in enumerate(names):
        truth, prediction = rollout.truth[:, channel], rollout.prediction[:, channel]
        error = prediction - truth
        # the first state may be far rougher than all that follow
        scale = colour_range(truth[1:])
        lines = (
            (f"truth {name}", truth, scale),
            (f"prediction {name}", prediction, scale),
            (f"error {name}", error, colour_range(error, "error")),
        )
        for number, (label, fields, limits) in enumerate(lines):
            y = top - (3 * channel + number + 1) * row
            for index, (field, step) in enumerate(zip(fields, rollout.steps, strict=True)):
                if number == 2 and not step:
                    continue  # there is no error yet
                axis = inches(figure, LEFT + index * (size[0] + 0.1), y, *size)
                label_above = f"step {step}" if step else "given (other colours)"
                mapped = limits if step else colour_range(field)
                shown = label_above if not channel and not number else ""
                _draw(axis, shown, field, mapped, bar=index == steps - 1)
                if index == (number == 2):
                    axis.set_ylabel(plain(label), fontsize=9)
    axis = inches(figure, LEFT + 0.35, 0.5, min(width - 1.2, 7.0), curve - 0.95)
    numbers = range(1, len(errors) + 1)
    style: Any = {"color": COLOURS[0], "marker": "o", "markersize": 3.5}
    axis.plot(numbers, errors, label="surrogate, fed its outputs", **style)
    if len(persistence):
        style = {"color": "0.5", "linestyle": "--"}
        axis.plot(numbers, persistence, label="persistence: nothing changes", **style)
        axis.legend(frameon=False, fontsize=8)
    axis.set(xlabel="steps", ylabel="relative L2 error", ylim=(0, None))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axis)
    title(figure, heading)
    return figure


def _size(shape: tuple[int, ...], height: float) -> tuple[float, float]:
    """Returns width and height of a panel in inches."""
    ratio = 1.6 if len(shape) == 1 else min(2.0, max(0.5, shape[0] / shape[1]))
    return (height * ratio, height) if ratio < 1 else (height, height / ratio)


def _draw(
    axis: Axes,
    heading: str,
    field: np.ndarray,
    scale: tuple[str, float, float],
    bar: bool = False,
) -> None:
    """Draws a field ``[x, y]`` as an image, or ``[x]`` as a line."""
    kind, low, high = scale
    axis.set_title(plain(heading), fontsize=9, pad=3)
    axis.set_xticks([])
    if field.ndim == 1:
        axis.plot(field, color=COLOURS[1 if kind == "error" else 0], linewidth=1)
        margin = 0.05 * (high - low)
        axis.set_ylim(low - margin, high + margin)
        axis.tick_params(labelsize=7, labelleft=bar)
        axis.yaxis.tick_right()
        axis.tick_params(labelright=bar, labelleft=False)
        return
    axis.set_yticks([])
    colours: Any = COLOUR_MAPS[kind]
    image = axis.imshow(field.T, origin="lower", cmap=colours, vmin=low, vmax=high, aspect="auto")
    if bar:
        figure: Any = axis.figure
        place, width = axis.get_position(), figure.get_figwidth()
        beside = figure.add_axes((place.x1 + 0.07 / width, place.y0, 0.09 / width, place.height))
        colour_bar = figure.colorbar(image, cax=beside)
        beside.tick_params(labelsize=7)
        colour_bar.ax.ticklabel_format(scilimits=(-3, 4))
        beside.yaxis.get_offset_text().set_fontsize(7)
