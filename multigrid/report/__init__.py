"""A run's figures and page, drawn from its result files alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from multigrid.errors import UserError
from multigrid.report.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(
    run: str | Path,
    figures: bool = True,
    folder: Path | None = None,
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Draws what the result files of a run allow, finished or not, and returns the files written.

    ``figures``, which take about a second, may be left out, and are written in some ``formats`` out
    of png, pdf and svg; all goes into ``folder``, by default the run's own.

    Raises:
        UserError: If there is no run, a result file is damaged or a file cannot be written.
    """
    from multigrid.report.page import write_page

    record, written = RunRecord.open(run), []
    folder = record.folder.path if folder is None else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    if figures:
        from multigrid.plots.style import save_figure

        for name, figure in draw_figures(record).items():
            written += save_figure(figure, folder / f"{name}.png", formats)
    return [*written, write_page(record, folder)]


def figures(run: str | Path, against: str | None = None) -> "dict[str, Figure]":
    """Returns the figures of a run as matplotlib's, to be changed, resized and saved.

    Args:
        run: Folder of the run, finished or not.
        against: One panel of ``convergence`` alone, against ``epochs``, ``seconds`` or
            ``work_units``.

    Returns:
        ``convergence``, ``ladder``, ``predictions``, ``rollout`` and ``spectra``, those that the
        result files allow.

    Raises:
        UserError: If there is no run, or a result file is damaged.

    Example:
        >>> convergence = figures("results/tiny", against="seconds")["convergence"]
        >>> convergence.set_size_inches(3.5, 2.6)
        >>> _ = convergence.axes[0].set_ylim(1e-3, 2)
        >>> convergence.savefig("convergence.pdf")
    """
    return draw_figures(RunRecord.open(run), against)


def draw_figures(record: RunRecord, against: str | None = None) -> "dict[str, Figure]":
    """Returns the figures that the result files allow, by name; see :func:`figures`."""
    import numpy as np

    from multigrid.plots.curves import plot_convergence, plot_spectra
    from multigrid.plots.pictures import plot_ladder, plot_predictions, plot_rollout

    name, examples = record.config.name, record.examples
    direct = () if record.direct is None else record.direct.rows
    convergence = plot_convergence(record.rows, name, record.remarks, direct, against)
    figures = {"convergence": convergence}
    if record.levels and all(level.parts() for level in record.levels):
        title = f"{name}: the network of each level, on entering it"
        folded = record.config.model.fields == "folded"
        figures["ladder"] = plot_ladder(record.levels, title, folded)
    if examples is not None:
        grid = "x".join(map(str, examples.grid))
        figures["predictions"] = plot_predictions(examples, f"{name}: test samples on {grid}")
    if examples is not None and (rollout := examples.rollout) is not None and record.is_finished:
        keys = "rollout", "rollout_persistence"
        errors = (np.array(record.summary.get(key, ()), dtype=float) for key in keys)  # null is NaN
        title = f"{name}: {rollout.label or 'a trajectory'}, rolled out"
        figures["rollout"] = plot_rollout(rollout, examples.output_names, title, *errors)
    if record.spectra is not None:
        title = f"{name}: error of each level by wavelength"
        figures["spectra"] = plot_spectra(record.spectra["truth"], record.spectra["levels"], title)
    return figures
