"""The figures of a run, drawn from its result files. Knows no torch."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from multigrid.errors import UserError
from multigrid.plots.convergence import plot_convergence
from multigrid.plots.ladder import plot_ladder
from multigrid.plots.predictions import plot_predictions, plot_rollout
from multigrid.plots.spectra import plot_spectra
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


def draw_convergence(record: RunRecord) -> Figure | None:
    """Draws the errors of the epochs so far."""
    return plot_convergence(record.rows, record.config.name, record.remarks)


def draw_ladder(record: RunRecord) -> Figure | None:
    """Draws the growing network, from the transfer reports."""
    name = record.config.name
    title = f"{name}: the network of each level, on entering it"
    return plot_ladder(record.levels, title) if record.levels else None


def draw_predictions(record: RunRecord) -> Figure | None:
    """Draws some test samples; nothing for an unfinished run."""
    if not record.folder.examples.is_file():
        return None
    grid = "x".join(map(str, record.examples.grid))
    title = f"{record.config.name}: test samples on the {grid} grid"
    return plot_predictions(record.examples, title)


def draw_rollout(record: RunRecord) -> Figure | None:
    """Draws a roll-out; nothing for a run without, or an unfinished one."""
    if not record.is_finished or not record.folder.examples.is_file():
        return None
    if record.examples.rollout is None:
        return None
    return plot_rollout(
        record.examples.rollout,
        record.summary["rollout"],
        record.examples.output_names,
        f"{record.config.name}: a trajectory, rolled out",
    )


def draw_spectra(record: RunRecord) -> Figure | None:
    """Draws the spectra of the errors; nothing for an unfinished run."""
    if not record.folder.spectra.is_file():
        return None
    title = f"{record.config.name}: where the error of each level lies"
    return plot_spectra(*record.spectra, title)


FIGURES: dict[str, Callable[[RunRecord], Figure | None]] = {
    "convergence": draw_convergence,
    "ladder": draw_ladder,
    "predictions": draw_predictions,
    "rollout": draw_rollout,
    "spectra": draw_spectra,
}
