"""The growing U: which parts of each level's network were transferred and which are new."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from multigrid.plots.style import Picture
from multigrid.records.history import COPIED, LevelParts

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
        places = {"encoder": left, "stem": left - 0.3, "head": right + 0.3}
        if k:
            places["decoder"] = right
            ends = [left + 0.2, right - 0.2]
            axis.plot(ends, [y, y], color="0.7", linewidth=0.8, linestyle=(0, (4, 3)))
            inner = _offset(k - 1) + 0.05
            below = y - STEP + 0.15
            _arrow(axis, (left, y - 0.15), (centre - inner, below), parts.get((k, "down")))
            _arrow(axis, (centre + inner, below), (right, y - 0.15), parts.get((k, "up")))
        for name, place in places.items():
            if (k, name) in parts:
                is_end = name in ("stem", "head")
                _box(axis, place, y, parts[k, name], 0.13 if is_end else 0.36)
                if is_end and k + 1 == len(level.scale_grids):
                    axis.text(place, y + 0.2, name, ha="center", fontsize=7, color="0.35")
        axis.text(left - 0.42, y, grid, ha="right", va="center", fontsize=7.5, color="0.35")


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
