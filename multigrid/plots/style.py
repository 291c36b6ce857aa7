"""What all figures share: colours, axes, and how they are written."""

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from multigrid.files import write_file

# Okabe and Ito's palette, told apart also by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# A second sign besides the colour.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

FORMATS = ("png", "pdf", "svg")
METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
WRITING: Any = {"svg.hashsalt": "multigrid", "pdf.fonttype": 42}


def plain(text: str) -> str:
    """Returns what is drawn as ``text`` itself: a name's dollar signs begin no formula."""
    return text.replace("$", r"\$")


def tidy(axis: Axes) -> None:
    """Gives an axis the look of all: a faint grid, no frame above and to the right."""
    axis.grid(True, which="major", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def figure_uri(figure: Figure) -> str:
    """Returns a figure as SVG within a ``data:`` address, for pages that stand alone."""
    buffer = BytesIO()
    with matplotlib.rc_context(WRITING):
        figure.savefig(buffer, format="svg", metadata=METADATA["svg"])
    return f"data:image/svg+xml;base64,{b64encode(buffer.getvalue()).decode('ascii')}"


def save_figure(figure: Figure, path: Path, formats: Sequence[str] = ()) -> list[Path]:
    """Writes a figure, the same bytes whenever it is redrawn.

    Args:
        figure: The figure.
        path: File to write.
        formats: Endings to write it with, out of ``png``, ``pdf`` and ``svg``, instead of the one
            that ``path`` has.

    Returns:
        The files written.

    Raises:
        UserError: If a file cannot be written.
    """
    paths = [path.with_suffix(f".{ending}") for ending in formats] or [path]
    for target in paths:
        ending = target.suffix[1:]
        picture = BytesIO()
        with matplotlib.rc_context(WRITING):
            figure.savefig(picture, format=ending, dpi=130, metadata=METADATA[ending])
        write_file(target, picture.getvalue())
    return paths
