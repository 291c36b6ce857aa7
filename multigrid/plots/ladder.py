"""The growing U: which parts of each level's network were transferred and which are new."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from multigrid.plots.style import inches, plain
from multigrid.records.history import COPIED, LevelParts

# Fill and hatch: blue and orange differ for colour-blind readers, the hatch also in grey.
LOOKS = {
    "transferred": ("#9CC9E8", ""),
    "mixed": ("#CFE3D8", "xx"),
    "new": ("#F2B35E", "////"),
}
LABELS = {"transferred": "transferred", "mixed": "transferred in part", "new": "new"}
EDGE = "0.25"
STEP = 0.62
UNIT = 0.8  # inches


def plot_ladder(levels: Sequence[LevelParts], title: str) -> Figure:
    """Draws the network of every level side by side, coarsest first.

    The scales stand one above the other, the finest on top: stem and encoder on the left, decoder
    and head on the right, the transitions between them as arrows. Networks whose parameters have
    other names than ``scales.<k>.<part>`` are drawn as a stack of their modules.
    """
    pyramid = all(level.parts() for level in levels)
    if pyramid:
        widths = [
            2 * _half_width(len(level.scale_grids)) + 0.11 * len(level.grid) for level in levels
        ]
        top = STEP * (max(len(level.scale_grids) for level in levels) - 1) + 0.3
    else:
        widths = [2.4] * len(levels)
        top = 0.34 * (max(len(level.modules()) for level in levels) - 1) + 0.3
    size = UNIT * (sum(widths) + 0.3), UNIT * (top + 1.4)
    figure = Figure(figsize=(max(size[0], 5.5), size[1] + 1.0))
    axis = inches(figure, max(0, 5.5 - size[0]) / 2, 0.6, *size)
    centre = -widths[0] / 2
    for level, width in zip(levels, widths, strict=True):
        centre += width / 2
        heading = f"level {level.level}: {level.grid}"
        if pyramid:
            _draw_u(axis, level, centre)
            height = STEP * (len(level.scale_grids) - 1) + 0.52
        else:
            height = _draw_stack(axis, level, centre)
        axis.text(centre, height, heading, ha="center", fontsize=10, fontweight="bold")
        axis.text(centre, -0.32, _caption(level), ha="center", va="top", fontsize=9)
        centre += width / 2
    axis.set(xlim=(-widths[0] / 2 - 0.3, centre), ylim=(-0.95, top + 0.45), aspect="equal")
    axis.axis("off")
    looks = {look for v in levels for look in (v.parts() if pyramid else v.modules()).values()}
    handles = [
        Patch(facecolor=fill, hatch=hatch, edgecolor=EDGE, label=LABELS[look])
        for look, (fill, hatch) in LOOKS.items()
        if look in looks
    ]
    height = figure.get_figheight()
    style: Any = {"ncols": 3, "frameon": False, "fontsize": 9, "loc": "lower center"}
    figure.legend(handles=handles, bbox_to_anchor=(0.5, 0.3 / height), **style)
    if all((k, "stem") in v.parts() for v in levels for k in range(len(v.scale_grids))):
        note = "each stem sees the input on its grid; the output is the sum of all heads, prolonged"
        figure.text(0.5, 0.1 / height, note, ha="center", fontsize=8, color="0.35")
    figure.suptitle(plain(title), y=1 - 0.12 / height, va="top", fontsize=11)
    return figure


def _caption(level: LevelParts) -> str:
    copied = level.count(*COPIED)
    lines = [f"{copied:,} transferred", f"{level.count('NEW'):,} new"]
    if frozen := level.count("FROZEN"):
        lines.insert(1, f"{frozen:,} of these frozen")
    if mismatched := level.count("MISMATCHED"):
        lines.append(f"{mismatched:,} of another shape, new")
    if unused := level.count("UNUSED"):
        lines.append(f"{unused:,} left over")
    return "\n".join(lines)


def _half_width(num_scales: int) -> float:
    return _offset(num_scales - 1) + 0.5


def _offset(scale: int) -> float:
    """Returns how far the encoder and the decoder of a scale stand from the middle."""
    return 0.3 + 0.26 * scale if scale else 0.0


def _draw_u(axis: Axes, level: LevelParts, centre: float) -> None:
    parts = level.parts()
    for k, grid in enumerate(level.scale_grids):
        y, x = k * STEP, _offset(k)
        left, right = centre - x, centre + x
        _box(axis, left, y, parts.get((k, "encoder")))
        if k:
            _box(axis, right, y, parts.get((k, "decoder")))
            ends = [left + 0.2, right - 0.2]
            axis.plot(ends, [y, y], color="0.7", linewidth=0.8, linestyle=(0, (4, 3)))
            inner = _offset(k - 1) + 0.05
            below = y - STEP + 0.15
            _arrow(axis, (left, y - 0.15), (centre - inner, below), parts.get((k, "down")))
            _arrow(axis, (centre + inner, below), (right, y - 0.15), parts.get((k, "up")))
        for name, place in (("stem", left - 0.3), ("head", right + 0.3)):
            if (k, name) in parts:
                _box(axis, place, y, parts[k, name], 0.13)
                if k + 1 == len(level.scale_grids):
                    axis.text(place, y + 0.2, name, ha="center", fontsize=7, color="0.35")
        axis.text(left - 0.42, y, grid, ha="right", va="center", fontsize=7.5, color="0.35")


def _box(axis: Axes, x: float, y: float, look: str | None, width: float = 0.36) -> None:
    if look is None:
        return
    fill, hatch = LOOKS[look]
    axis.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - 0.14),
            width,
            0.28,
            boxstyle="round,pad=0,rounding_size=0.04",
            facecolor=fill,
            hatch=hatch,
            edgecolor=EDGE,
            linewidth=0.9,
        )
    )


def _arrow(
    axis: Axes, start: tuple[float, float], end: tuple[float, float], look: str | None
) -> None:
    if look is None:
        return
    colour = {"transferred": "#0072B2", "mixed": "#009E73", "new": "#C46A00"}[look]
    axis.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=8,
            shrinkA=0,
            shrinkB=0,
            color=colour,
            linewidth=1.6,
            linestyle="-" if look == "transferred" else (0, (2, 1.2)),
        )
    )


def _draw_stack(axis: Axes, level: LevelParts, centre: float) -> float:
    """Draws the modules from the bottom up and returns where the heading goes."""
    modules = level.modules()
    for row, (name, look) in enumerate(modules.items()):
        _box(axis, centre, 0.34 * row, look, 1.9)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axis.text(centre, 0.34 * row, plain(name), ha="center", va="center", fontsize=8, bbox=box)
    return 0.34 * (len(modules) - 1) + 0.3
