"""Test samples beside their predictions, roll-outs, and the growing network as pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from matplotlib.ticker import MaxNLocator

from multigrid.plots.style import COLOURS, Picture, plain, tidy
from multigrid.records.examples import Examples, RollOut, colour_range, compared
from multigrid.records.history import COPIED, LevelParts

# Fields without a sign, with both signs, and errors.
COLOUR_MAPS = {"unsigned": "viridis", "signed": "RdBu_r", "error": "PuOr_r"}
MAX_ROWS = 8
BAR = 0.75  # the place of a colour bar, in inches

# Label, fill, hatch and colour of arrows: blue and orange differ for colour-blind readers, the
# hatch also in grey.
LOOKS = {
    "transferred": ("transferred", "#9CC9E8", "", "#0072B2"),
    "mixed": ("transferred in part", "#CFE3D8", "xx", "#009E73"),
    "new": ("new", "#F2B35E", "////", "#C46A00"),
}
EDGE = "0.25"
STEP = 0.62
UNIT = 0.8  # inches


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


def plot_ladder(levels: Sequence[LevelParts], caption: str, folded: bool = False) -> Figure:
    """Draws the network of every level side by side, coarsest first.

    The scales stand one above the other, the finest on top: stem and encoder on the left, decoder
    and head on the right, the transitions between them as arrows.
    """
    widths = [2 * _offset(len(v.scale_grids) - 1) + 1 + 0.11 * len(v.grid) for v in levels]
    top = STEP * (max(len(level.scale_grids) for level in levels) - 1) + 0.3
    size = UNIT * (sum(widths) + 0.3), UNIT * (top + 1.4)
    figure = Picture((max(size[0], 5.5), size[1] + 1.0))
    axis = figure.subplots()
    centre = -widths[0] / 2
    for level, width in zip(levels, widths, strict=True):
        centre += width / 2
        _draw_u(axis, level, centre)
        height = STEP * (len(level.scale_grids) - 1) + 0.52
        heading: Any = {"ha": "center", "fontsize": 10, "fontweight": "bold"}
        axis.text(centre, height, f"level {level.level}: {level.grid}", **heading)
        axis.text(centre, -0.32, _caption(level), ha="center", va="top", fontsize=9)
        centre += width / 2
    axis.set(xlim=(-widths[0] / 2 - 0.3, centre), ylim=(-0.95, top + 0.45), aspect="equal")
    axis.axis("off")
    looks = {look for level in levels for look in level.parts().values()}
    handles = [
        Patch(facecolor=fill, hatch=hatch, edgecolor=EDGE, label=label)
        for look, (label, fill, hatch, _) in LOOKS.items()
        if look in looks
    ]
    figure.put_legend(handles)
    lines = [caption]
    if all((k, "stem") in v.parts() for v in levels for k in range(len(v.scale_grids))):
        note = "each stem sees the input on its grid; the output is the sum of all heads, prolonged"
        if folded:
            note = f"from {levels[0].grid} on, stems see the finest input folded; all heads add up"
        lines.append(note)
    figure.entitle("\n".join(lines))
    return figure


def _caption(level: LevelParts) -> str:
    counts = {
        "of these frozen": level.count("FROZEN"),
        "new": level.count("NEW"),
        "of another shape, new": level.count("MISMATCHED"),
        "left over": level.count("UNUSED"),
    }
    shown = [f"{count:,} {what}" for what, count in counts.items() if count or what == "new"]
    return "\n".join([f"{level.count(*COPIED):,} transferred", *shown])


def _offset(scale: int) -> float:
    """Returns how far the encoder and the decoder of a scale stand from the middle."""
    return 0.3 + 0.26 * scale if scale else 0.0


def _draw_u(axis: Axes, level: LevelParts, centre: float) -> None:
    parts = level.parts()
    for k, grid in enumerate(level.scale_grids):
        y, x = k * STEP, _offset(k)
        left, right = centre - x, centre + x
        places = {"encoder": left, "decoder": right, "stem": left - 0.3, "head": right + 0.3}
        for name, place in places.items():
            if (k, name) in parts:
                is_end = name in ("stem", "head")
                _box(axis, place, y, parts[k, name], 0.13 if is_end else 0.36)
                if is_end and k + 1 == len(level.scale_grids):
                    axis.text(place, y + 0.2, name, ha="center", fontsize=7, color="0.35")
        axis.text(left - 0.42, y, grid, ha="right", va="center", fontsize=7.5, color="0.35")
        if k:
            ends = [left + 0.2, right - 0.2]
            axis.plot(ends, [y, y], color="0.7", linewidth=0.8, linestyle=(0, (4, 3)))
            inner = _offset(k - 1) + 0.05
            below = y - STEP + 0.15
            _arrow(axis, (left, y - 0.15), (centre - inner, below), parts.get((k, "down")))
            _arrow(axis, (centre + inner, below), (right, y - 0.15), parts.get((k, "up")))


def _box(axis: Axes, x: float, y: float, look: str, width: float) -> None:
    _, fill, hatch, _ = LOOKS[look]
    style: Any = {"boxstyle": "round,pad=0,rounding_size=0.04", "linewidth": 0.9}
    style |= {"facecolor": fill, "hatch": hatch, "edgecolor": EDGE}
    axis.add_patch(FancyBboxPatch((x - width / 2, y - 0.14), width, 0.28, **style))


def _arrow(
    axis: Axes, start: tuple[float, float], end: tuple[float, float], look: str | None
) -> None:
    if look is None:
        return
    style: Any = {"arrowstyle": "-|>", "mutation_scale": 8, "shrinkA": 0, "shrinkB": 0}
    style["linestyle"] = "-" if look == "transferred" else (0, (2, 1.2))
    axis.add_patch(FancyArrowPatch(start, end, color=LOOKS[look][3], linewidth=1.6, **style))
