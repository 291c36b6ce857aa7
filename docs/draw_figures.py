"""Draws ``images/pyramid.svg`` and ``images/folding.svg`` for the page on how it works.

python docs/draw_pyramid.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

IMAGES = Path(__file__).parent / "images"
OLD, NEW, FIELD, ARROW = "#c5cae9", "#ffe0b2", "#f5f5f5", "#546e7a"
STYLE = {"svg.fonttype": "path", "svg.hashsalt": "multigrid", "font.size": 9}


def box(
    axes: Axes, x: float, y: float, text: str, color: str, width: float = 1.5, height: float = 0.62
) -> None:
    """Draws a box with its centre at (x, y)."""
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0.02,rounding_size=0.09",
            facecolor=color,
            edgecolor=ARROW,
            linewidth=0.9,
        )
    )
    axes.text(x, y, text, ha="center", va="center", linespacing=1.2)


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str = "",
    side: float = 0.1,
    style: str = "-",
) -> None:
    """Draws an arrow, with a text beside its middle."""
    axes.annotate(
        "",
        xy=end,
        xytext=start,
        arrowprops={"arrowstyle": "->", "color": ARROW, "linewidth": 1.1, "linestyle": style},
    )
    if text:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        axes.text(x + side, y, text, ha="left" if side > 0 else "right", va="center", fontsize=8)


def figure(width: float, height: float, size: tuple[float, float]) -> tuple[plt.Figure, Axes]:
    """Returns an empty figure with data coordinates of the given extent."""
    drawing, axes = plt.subplots(figsize=size)
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    drawing.subplots_adjust(0, 0, 1, 1)
    return drawing, axes


def pyramid() -> plt.Figure:
    """The network of level 1: level 0's network, and one new scale around it."""
    drawing, axes = figure(15.2, 6.6, (10.2, 4.45))
    rows = [5.5, 3.5, 1.5]
    encoders, decoders, heads, outputs = [5.25, 6.0, 7.15], [9.05, 8.3, 7.15], 11.5, 14.1
    fields = [("input $a$", "output $u$"), (r"$R\,a$", "$u_1$"), (r"$R\,R\,a$", "$u_0$")]
    for index, y in enumerate(rows):
        color = NEW if index == 0 else OLD
        name = f"scale {2 - index}\n{32 // 2**index}x{32 // 2**index}"
        axes.text(0.1, y, name, fontsize=8, color=ARROW, va="center")
        box(axes, 2.0, y, fields[index][0], FIELD, 1.3)
        box(axes, 3.75, y, "stem", color, 1.0)
        arrow(axes, (2.67, y), (3.23, y))
        arrow(axes, (4.27, y), (encoders[index] - (0.67 if index < 2 else 0.82), y))
        source = decoders[index]
        if index < 2:
            below = rows[index + 1]
            box(axes, encoders[index], y, "encoder", color, 1.3)
            box(axes, source, y, "decoder", color, 1.3)
            arrow(axes, (encoders[index] + 0.67, y), (source - 0.67, y), style="--")
            axes.text((encoders[index] + source) / 2, y + 0.13, "skip", ha="center", fontsize=8)
            text = "down,\nstarts at 0" if index == 0 else "down"
            ends = (encoders[index] + 0.1, y - 0.34), (encoders[index + 1] - 0.1, below + 0.34)
            arrow(axes, *ends, text, -0.15)
            ends = (decoders[index + 1] + 0.1, below + 0.34), (source - 0.1, y - 0.34)
            arrow(axes, *ends, "up", 0.15)
            arrow(axes, (2.0, y - 0.34), (2.0, below + 0.34), "restrict $R$")
            arrow(axes, (outputs, below + 0.34), (outputs, y - 0.34), "prolong $P$", -0.1)
            axes.text(13.05, y + 0.12, "+", ha="center", fontsize=12)
        else:
            box(axes, source, y, "bottleneck", color, 1.6)
        text = "head,\nstarts at 0" if index == 0 else "head"
        box(axes, heads, y, text, color, 1.5, 0.8 if index == 0 else 0.62)
        arrow(axes, (source + (0.67 if index < 2 else 0.82), y), (heads - 0.77, y))
        arrow(axes, (heads + 0.77, y), (outputs - 0.67, y))
        box(axes, outputs, y, fields[index][1], FIELD, 1.3)
    axes.add_patch(
        plt.Rectangle((0.04, 0.98), 15.1, 3.2, facecolor="none", edgecolor=ARROW, linestyle=":")
    )
    axes.text(
        0.1,
        0.45,
        "Dotted: the network of the level below, as it was trained. Orange: the new scale.\n"
        r"The output is the sum of all heads: $u = \mathrm{head}_2 + P\,(\mathrm{head}_1 + "
        r"P\,\mathrm{head}_0)$.",
        va="center",
        linespacing=1.5,
    )
    return drawing


def cells(axes: Axes, x: float, y: float, count: int, size: float, colors: list[str]) -> None:
    """Draws ``count`` x ``count`` cells; ``colors`` repeat over blocks of 2 x 2."""
    for row in range(count):
        for column in range(count):
            color = colors[(row % 2) * 2 + column % 2] if len(colors) == 4 else colors[0]
            axes.add_patch(
                plt.Rectangle(
                    (x + column * size, y - (row + 1) * size),
                    size,
                    size,
                    facecolor=color,
                    edgecolor="white",
                )
            )


def folding() -> plt.Figure:
    """What a restricted and a folded stem see of a fine field."""
    drawing, axes = figure(15.2, 5.6, (10.2, 3.75))
    colors = ["#5c6bc0", "#ffb74d", "#81c784", "#e57373"]
    axes.text(1.55, 5.05, "fine input, 4x4", ha="center")
    cells(axes, 0.35, 4.5, 4, 0.6, colors)
    arrow(axes, (3.2, 4.1), (5.4, 4.55))
    axes.text(4.1, 4.6, "restrict", ha="center", fontsize=8)
    arrow(axes, (3.2, 2.7), (5.4, 2.0))
    axes.text(4.1, 2.0, "fold", ha="center", fontsize=8)
    cells(axes, 5.6, 5.2, 2, 0.6, ["#a6a09a"])
    axes.text(
        7.1,
        4.6,
        "2x2, one channel: the mean of each block.\nWhat varies within a block is gone.",
        va="center",
    )
    for index, color in enumerate(colors):
        cells(axes, 5.6 + 1.45 * index, 2.6, 2, 0.6, [color])
    axes.text(11.6, 2.0, "2x2, four channels:\nevery fine value is kept.", va="center")
    axes.text(
        0.35,
        0.55,
        "The head of a folded level gives four values for each coarse cell, which are laid out "
        "again on the fine grid.\nThe convolutions work on 2x2 cells in both cases, so that a step "
        "costs nearly the same.",
        va="center",
    )
    return drawing


def floors() -> plt.Figure:
    """Where the ladder stalls: error against operations on the wave equation, 64x64.

    The numbers are those of the lab notebook.
    """
    drawing, axes = plt.subplots(figsize=(7.2, 4.0), layout="constrained")
    curves = (
        ("direct training on 64x64", [3.7, 20.0], [18.6, 3.2], "o--", "#546e7a"),
        ("restricted 16x16 alone", [2.1], [9.2], "s", "#e57373"),
        ("ladder of restricted levels", [3.6], [9.5], "D", "#c62828"),
        ("folded 16x16 alone", [0.9, 1.4, 2.3, 3.7], [7.2, 5.3, 3.9, 2.7], "^-", "#3949ab"),
    )
    for label, operations, errors, style, color in curves:
        axes.plot(operations, errors, style, color=color, label=label)
    axes.axhline(9.5, color="#c62828", linestyle=":", linewidth=1)
    axes.text(20, 9.9, "floor of the 16x16 grid", ha="right", fontsize=8)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="training operations [TFLOP]",
        ylabel="relative L2 error on 64x64 [%]",
    )
    axes.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axes.set_yticks([2, 5, 10, 20], ["2", "5", "10", "20"])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return drawing


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        for name, draw in (("pyramid", pyramid), ("folding", folding), ("floors", floors)):
            draw().savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
