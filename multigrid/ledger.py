"""What a run has done so far, kept on disk so that it can continue."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multigrid.board import Board
from multigrid.checkpoint import load_checkpoint
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.history import Row, write_history
from multigrid.results import RunFolder

log = logging.getLogger(__name__)


class Ledger:
    """The rows of every epoch and the summaries of finished stages.

    Args:
        folder: Folder of the run.
        grids: Grids of the levels, coarsest first.
        board: Is shown every new row, or None.

    Attributes:
        rows: One row for each epoch so far.
        finished: One summary for each finished stage.
    """

    def __init__(
        self, folder: RunFolder, grids: Sequence[Grid], board: Board | None = None
    ) -> None:
        self.folder = folder
        self.board = board
        self.grids = grids
        self.rows: list[Row] = []
        self.finished: list[dict[str, Any]] = []

    def level_folder(self, level: int) -> Path:
        """Returns the folder of a level."""
        return self.folder.level(level, self.grids[level])

    def last_visit(self, level: int) -> dict[str, Any] | None:
        """Returns the summary of the latest finished stage on a level, or None."""
        visits = [stage for stage in self.finished if stage["level"] == level]
        return visits[-1] if visits else None

    def last_row_before(self, stage: int) -> Row:
        """Returns the last row of the stages before one; all zeros before the first."""
        rows = [row for row in self.rows if row.stage < stage]
        return rows[-1] if rows else Row.zero()

    def append(self, row: Row) -> None:
        """Adds a row and writes the metrics file."""
        self.rows.append(row)
        write_history(self.folder.metrics, self.rows)
        if self.board is not None:
            self.board.add(len(self.rows) - 1, row)

    def state_dict(self) -> dict[str, Any]:
        """Returns plain containers for a checkpoint."""
        return {"rows": [dict(row.__dict__) for row in self.rows], "finished": list(self.finished)}

    def restore(self, data_fingerprint: str) -> dict[str, Any] | None:
        """Restores rows and finished stages from the latest checkpoint of the run.

        Args:
            data_fingerprint: Fingerprint of the samples as they are now.

        Returns:
            The checkpoint, if its stage is unfinished; else None.

        Raises:
            UserError: If a checkpoint is damaged, or the samples have changed.
        """
        payloads = [load_checkpoint(path) for path in self.folder.path.glob("level_*_*/last.pt")]
        if not payloads:
            log.info("nothing was trained yet: starting from the beginning")
            return None
        latest = max(payloads, key=lambda payload: len(payload["rows"]))
        if latest["data_fingerprint"] != data_fingerprint:
            raise UserError(
                f"{self.folder.path}: cannot be resumed, as the samples have changed since the run "
                "began; use --overwrite to start anew"
            )
        self.rows = [Row(**row) for row in latest["rows"]]
        self.finished = latest["finished"]
        write_history(self.folder.metrics, self.rows)
        stage, epoch = latest["stage"], latest["trainer"]["progress"]["epoch"]
        log.info("resuming after epoch %d of stage %d", epoch, stage)
        return latest if stage == len(self.finished) else None
