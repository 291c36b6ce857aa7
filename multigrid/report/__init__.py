"""A run's figures and page, drawn from its result files alone."""

from collections.abc import Sequence
from pathlib import Path


def write_report(
    run: str | Path,
    figures: bool = True,
    folder: Path | None = None,
    formats: Sequence[str] = ("png",),
    page: bool = True,
) -> list[Path]:
    """Draws what the result files of a run allow, finished or not.

    Args:
        run: Folder of the run.
        figures: Whether to draw figures, which takes about a second.
        folder: Where to write, by default into the run's folder.
        formats: What the figures are written as: ``png``, ``pdf`` or ``svg``.
        page: Whether to write ``report.html``.

    Returns:
        The files written.

    Raises:
        UserError: If there is no run, a result file is damaged or a file cannot be written.
    """
    from multigrid.report.record import RunRecord

    record, written = RunRecord.open(run), []
    if figures:
        from multigrid.report.figures import draw_run  # imports matplotlib

        written += draw_run(record, folder, formats)
    if page:
        from multigrid.report.page import write_page

        written.append(write_page(record, folder))
    return written
