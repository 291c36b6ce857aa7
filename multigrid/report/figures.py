"""The figures of a run, drawn from its result files. Imports no torch."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from multigrid.errors import UserError
from multigrid.plots.curves import plot_convergence, plot_spectra
from multigrid.plots.fields import plot_predictions, plot_rollout
from multigrid.plots.ladder import plot_ladder
from multigrid.plots.style import save_figure
from multigrid.report.record import RunRecord


def draw_run(
    record: RunRecord, folder: Path | None = None, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Draws all figures that the result files allow.

    Args:
        record: The run.
        folder: Where the figures go, by default the folder of the run.
        formats: Out of ``png``, ``pdf`` and ``svg``.

    Returns:
        The files written.

    Raises:
        UserError: If a result file is damaged, or a figure cannot be written.
    """
    folder = folder or record.folder.path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    written = []
    for name, draw in FIGURES.items():
        figure = draw(record)
        if figure is not None:
            written += save_figure(figure, folder / f"{name}.png", formats)
    return written


def convergence(record: RunRecord) -> Figure:
    """Draws the errors of the epochs so far."""
    return plot_convergence(record.rows, record.config.name, record.remarks)


def ladder(record: RunRecord) -> Figure | None:
    """Draws the growing network, from the transfer reports."""
    title = f"{record.config.name}: the network of each level, on entering it"
    return plot_ladder(record.levels, title) if record.levels else None


def predictions(record: RunRecord) -> Figure | None:
    """Draws some test samples, unless the run is unfinished."""
    examples = record.examples
    if examples is None:
        return None
    grid = "x".join(map(str, examples.grid))
    return plot_predictions(examples, f"{record.config.name}: test samples on the {grid} grid")


def rollout(record: RunRecord) -> Figure | None:
    """Draws a roll-out, if the run is finished and has one."""
    examples = record.examples
    if not record.is_finished or examples is None or examples.rollout is None:
        return None
    title = f"{record.config.name}: a trajectory, rolled out"
    errors, persistence = (
        np.array(record.summary.get(key, ()), dtype=float)  # NaN for null
        for key in ("rollout", "rollout_persistence")
    )
    return plot_rollout(examples.rollout, errors, examples.output_names, title, persistence)


def spectra(record: RunRecord) -> Figure | None:
    """Draws the spectra of the errors, unless the run is unfinished."""
    if record.spectra is None:
        return None
    return plot_spectra(*record.spectra, f"{record.config.name}: error of each level by wavelength")


FIGURES: dict[str, Callable[[RunRecord], Figure | None]] = {
    "convergence": convergence,
    "ladder": ladder,
    "predictions": predictions,
    "rollout": rollout,
    "spectra": spectra,
}
