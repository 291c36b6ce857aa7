"""Pictures of a run. Knows result files and arrays only, not torch."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from multigrid.history import Row
from multigrid.results import write_bytes

matplotlib.use("Agg")

# Okabe and Ito's palette, told apart also by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def plot_convergence(rows: Sequence[Row], path: Path, title: str, remarks: str = "") -> None:
    """Draws the validation error per level against epochs, training time and work units.

    Solid: on the level's own grid. Dotted: of the prediction prolonged to the finest grid.
    Vertical lines mark where a stage begins. ``remarks`` stand below the title.
    """
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    epochs = np.arange(len(rows)) - np.cumsum([row.epoch == 0 for row in rows]) + 1
    for axis, label, values in (
        (axes[0], "epochs", epochs),
        (axes[1], "training time [s]", [row.seconds for row in rows]),
        (axes[2], "work units (1 = an epoch on the finest grid)", [r.work_units for r in rows]),
    ):
        _draw_stages(axis, rows, np.asarray(values, dtype=float))
        axis.set_xlabel(label)
    axes[0].set_ylabel("validation error (mean relative L2)")
    axes[0].legend(title="level", frameon=False)
    own = Line2D([], [], color="0.3", label="on the level's own grid")
    finest = Line2D([], [], color="0.3", linestyle=":", label="prolonged to the finest grid")
    axes[1].legend(handles=[own, finest], frameon=False)
    figure.suptitle(f"{title}\n{remarks}" if remarks else title)
    save_figure(figure, path)


def _draw_stages(axis: Axes, rows: Sequence[Row], x: np.ndarray) -> None:
    levels_seen: set[int] = set()
    for stage in sorted({row.stage for row in rows}):
        part = [i for i, row in enumerate(rows) if row.stage == stage]
        row = rows[part[0]]
        colour = COLOURS[row.level % len(COLOURS)]
        label = None if row.level in levels_seen else f"{row.level}: {row.grid}"
        levels_seen.add(row.level)
        own = [rows[i].val_rel_l2 for i in part]
        finest = [rows[i].val_finest_rel_l2 for i in part]
        axis.plot(x[part], own, color=colour, marker=".", markersize=4, label=label)
        axis.plot(x[part], finest, color=colour, linestyle=":", linewidth=1)
        if stage:
            axis.axvline(x[part[0]], color="0.8", linewidth=0.8, zorder=0)
    axis.set_yscale("log")
    axis.grid(True, which="major", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def plot_predictions(
    inputs: np.ndarray, truth: np.ndarray, prediction: np.ndarray, path: Path, title: str
) -> None:
    """Draws input, truth, prediction and error of a few samples, one in each row.

    Args:
        inputs: First input field of each sample, ``[N, *grid]``.
        truth: First output field, ``[N, *grid]``.
        prediction: Its prediction, ``[N, *grid]``.
        path: File to write.
        title: Title of the figure.
    """
    num_samples = len(inputs)
    figure = Figure(figsize=(11, 2.6 * num_samples + 0.5), layout="constrained")
    axes = figure.subplots(num_samples, 4, squeeze=False)
    for row, fields in zip(axes, zip(inputs, truth, prediction, strict=True), strict=True):
        f, u, p = (_slice(field) for field in fields)
        limits = {"vmin": float(u.min()), "vmax": float(u.max())}
        error = p - u
        size = max(float(np.abs(error).max()), 1e-30)
        relative = np.linalg.norm(fields[2] - fields[1]) / np.linalg.norm(fields[1])
        panels: tuple[tuple[str, np.ndarray, str, dict[str, float]], ...] = (
            ("input", f, "viridis", {}),
            ("truth", u, "viridis", limits),
            ("prediction", p, "viridis", limits),
            (f"error (relative L2 {relative:.2%})", error, "RdBu_r", {"vmin": -size, "vmax": size}),
        )
        for axis, (name, field, colours, scale) in zip(row, panels, strict=True):
            image = axis.imshow(field.T, origin="lower", cmap=colours, **scale)
            figure.colorbar(image, ax=axis, shrink=0.85)
            axis.set_title(name, fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    figure.suptitle(title)
    save_figure(figure, path)


def _slice(field: np.ndarray) -> np.ndarray:
    """Returns a two-dimensional field, the middle slice of a three-dimensional one."""
    while field.ndim > 2:
        field = field[..., field.shape[-1] // 2]
    return field


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure, the same bytes whenever it is redrawn.

    Raises:
        UserError: If the file cannot be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, metadata={"Software": None})
    write_bytes(path, picture.getvalue())
