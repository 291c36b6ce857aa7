"""What all figures share: colours, axes, and writing them."""

from collections.abc import Sequence
from io import BytesIO
from math import ceil, floor, log10
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator, NullLocator

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
SMALLEST = 0.65  # letters over those of the default size
MANTISSAS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0))


def plain(text: str) -> str:
    """Returns text to be drawn literally: dollar signs in names do not start a formula."""
    return text.replace("$", r"\$")


class Picture(Figure):
    """A figure that keeps its shape: it can be resized, and its PDFs hold fonts as TrueType.

    Whenever it is drawn, its titles and labels are wrapped, its legend gets as many columns as fit,
    and matplotlib's constrained layout places everything. Letters are smaller in a smaller figure.

    Args:
        size: Width and height in inches.
        compress: Whether axes of a fixed shape move together.
    """

    def __init__(self, size: tuple[float, float], compress: bool = False) -> None:
        width = 0.16 if compress else 0.08
        layout = ConstrainedLayoutEngine(w_pad=width, h_pad=0.05, compress=compress)
        super().__init__(figsize=size, layout=layout)
        self._default = size
        self._factors: dict[Artist, float] = {}
        self._below: tuple[Legend, Sequence[Artist], int] | None = None

    def savefig(self, *args: Any, **options: Any) -> None:
        """Saves the figure as matplotlib does, with fonts as TrueType in PDFs."""
        with matplotlib.rc_context(WRITING):
            super().savefig(*args, **options)

    def draw(self, renderer: Any) -> None:
        """Draws the figure as matplotlib does, with texts that fit."""
        self._fit_texts()
        super().draw(renderer)

    def entitle(self, text: str, part: FigureBase | None = None) -> None:
        """Writes a title at the top, or at that of a part, of one line or several."""
        (part or self).suptitle(plain(text), fontsize=11, wrap=True)

    def put_legend(self, more: Sequence[Artist] = (), width: float | None = None) -> None:
        """Puts one legend, of what has a label in the panels and of more, below all panels.

        It gets as many columns as a figure so many inches wide has room for.
        """
        entries = {
            label: handle
            for axis in self.axes
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        } | {str(handle.get_label()): handle for handle in more}
        columns = legend_columns(list(entries), self.get_figwidth() if width is None else width)
        style: Any = {"loc": "outside lower center", "ncols": columns, "frameon": False}
        style |= {"columnspacing": 1.2, "handlelength": 1.8, "fontsize": 9}
        self._below = self.legend(handles=list(entries.values()), **style), more, columns

    def _fit_texts(self) -> None:
        """Wraps labels of axes, and gives the legend as many columns as there is room for."""
        size = self.get_size_inches()
        shrunk = min(n / d for n, d in zip(size, self._default, strict=True))
        factor = max(SMALLEST, min(1.0, shrunk**0.5))
        width, height = size / factor  # in letters of the usual size
        if self._below is not None:
            legend, more, columns = self._below
            labels = [text.get_text() for text in legend.get_texts()]
            if legend in self.legends and columns != legend_columns(labels, width):
                legend.remove()
                self.put_legend(more, width)
        self._scale_letters(factor)
        for axis in self.axes:
            spec = axis.get_subplotspec()
            if spec is not None:
                rows, columns = spec.get_gridspec().get_geometry()
                _wrap(axis.xaxis.label, (width - 0.9) / columns - 0.2, 0.075)
                _wrap(axis.yaxis.label, (height - 1.4) / rows, 0.07)

    def _scale_letters(self, factor: float) -> None:
        """Makes letters smaller than in the default size; those that the user has set stay."""
        for axis in self.axes:  # makes the ticks' labels
            axis.get_xticklabels(), axis.get_yticklabels()
        texts: Any = self.findobj(Text)
        for text in texts:
            text.set_fontsize(text.get_fontsize() * (factor / self._factors.get(text, 1.0)))
            self._factors[text] = factor


def _wrap(text: Text, inches: float, letter: float) -> None:
    """Breaks the lines of a text that are longer than so many inches."""
    count = max(10, int(inches / letter))
    lines = [part for line in text.get_text().split("\n") for part in wrap(line, count) or [""]]
    text.set_text("\n".join(lines))


def legend_columns(labels: Sequence[str], width: float) -> int:
    """Returns how many columns a legend may have in a figure so many inches wide."""
    length = max(map(len, labels))
    return max(1, min(len(labels), int(width / (0.45 + 0.069 * length))))


def panels(count: int, size: tuple[float, float], more: float) -> tuple[Picture, list[Axes]]:
    """Returns a figure with panels side by side, which have one vertical axis.

    The ``size`` is width and height of one with its labels, in inches, ``more`` the height for
    title and legend.
    """
    figure = Picture((0.4 + count * size[0], size[1] + more))
    return figure, list(figure.subplots(1, count, squeeze=False, sharey=True)[0])


def tidy(axis: Axes) -> None:
    """Gives axes the common style: a faint grid, no frame above and to the right."""
    axis.grid(True, which="major", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    for direction in (axis.xaxis, axis.yaxis):
        if direction.get_scale() == "log":
            direction.set_major_locator(LogTicks())
            direction.set_major_formatter(FuncFormatter(lambda value, _: _label(value)))
            direction.set_minor_locator(NullLocator())


class LogTicks(Locator):
    """Places the ticks of a logarithmic axis: at least three, as many as there is room for."""

    def __call__(self) -> Any:
        """Returns the ticks within what is shown."""
        axis: Any = self.axis
        return self.tick_values(*sorted(axis.get_view_interval()))

    def tick_values(self, low: float, high: float) -> Any:
        """Returns the ticks within limits."""
        if not 0 < low < high:
            return []
        axis: Any = self.axis
        powers = range(floor(log10(low)) - 1, ceil(log10(high)) + 1)
        for mantissas in MANTISSAS:
            ticks = [m * 10.0**p for p in powers for m in mantissas if low <= m * 10.0**p <= high]
            if len(ticks) >= 3:
                return ticks[:: ceil(len(ticks) / min(7, max(2, axis.get_tick_space())))]
        return [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]


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
