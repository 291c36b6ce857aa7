"""What all figures share: colours, axes, and writing them."""

from collections.abc import Sequence
from io import BytesIO
from math import ceil, floor, log10
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from multigrid.files import write_file
from multigrid.records.examples import COLOURS as COLOURS

# A second distinction besides the colour.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
WRITING: Any = {"svg.hashsalt": "multigrid", "pdf.fonttype": 42}
MANTISSAS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0))


def plain(text: str) -> str:
    """Returns text to be drawn literally: dollar signs in names do not start a formula."""
    return text.replace("$", r"\$")


def panels(
    count: int, size: tuple[float, float], margins: tuple[float, float, float, float], gap: float
) -> tuple[Figure, list[Axes]]:
    """Returns a figure with panels side by side, in inches; margins: left, right, bottom, top.

    Fixed places take half the time of matplotlib's layout engines, which draw everything twice.
    """
    left, right, bottom, top = margins
    width = left + count * size[0] + (count - 1) * gap + right
    figure = Figure(figsize=(width, bottom + size[1] + top))
    axes = [
        inches(figure, left + number * (size[0] + gap), bottom, *size) for number in range(count)
    ]
    return figure, axes


def inches(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Adds axes with position and size in inches."""
    full, high = figure.get_size_inches()
    return figure.add_axes((x / full, y / high, width / full, height / high))


def title(figure: Figure, text: str) -> None:
    """Writes a title at the top, of one line or several."""
    figure.suptitle(plain(text), y=1 - 0.12 / figure.get_figheight(), va="top", fontsize=11)


def tidy(axis: Axes) -> None:
    """Gives axes the common style: a faint grid, no frame above and to the right."""
    axis.grid(True, which="major", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    for direction in (axis.xaxis, axis.yaxis):
        if direction.get_scale() == "log":
            direction.set_major_locator(FixedLocator(log_ticks(*direction.get_view_interval())))
            direction.set_major_formatter(FuncFormatter(lambda value, _: _label(value)))
            direction.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[float]:
    """Returns three to seven ticks of a logarithmic axis, however short or long its range is."""
    powers = range(floor(log10(low)) - 1, ceil(log10(high)) + 1)
    for mantissas in MANTISSAS:
        ticks = [m * 10.0**p for p in powers for m in mantissas if low <= m * 10.0**p <= high]
        if len(ticks) >= 3:
            return ticks[:: ceil(len(ticks) / 7)]
    return [float(tick) for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]


def _label(value: float) -> str:
    if 1e-3 <= value < 1e4:
        return f"{value:.4g}"
    power = floor(log10(value) + 1e-9)
    mantissa = value / 10.0**power
    factor = "" if np.isclose(mantissa, 1) else rf"{mantissa:.3g}\times"
    return f"${factor}10^{{{power}}}$"


def save_figure(figure: Figure, path: Path, formats: Sequence[str] = ()) -> list[Path]:
    """Writes a figure, the same bytes whenever it is drawn again, and returns the files written.

    ``formats`` are endings out of png, pdf and svg to write it with, instead of that of ``path``.
    """
    paths = [path.with_suffix(f".{ending}") for ending in formats] or [path]
    for target in paths:
        ending, content = target.suffix[1:], BytesIO()
        with matplotlib.rc_context(WRITING):
            figure.savefig(content, format=ending, dpi=120, metadata=METADATA[ending])
        write_file(target, content.getvalue())
    return paths
