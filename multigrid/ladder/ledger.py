"""What a run has done so far, kept on disk so that it can continue."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from multigrid.distributed.processes import ALONE, Processes
from multigrid.errors import UserError
from multigrid.files import rename
from multigrid.grid import Grid
from multigrid.ladder.board import Board
from multigrid.records.history import Row, write_history
from multigrid.records.run_folder import RunFolder
from multigrid.training.checkpoint import DamagedError, load_checkpoint, save_checkpoint
from multigrid.training.weight_files import ABOUT

log = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "last.pt", "last.previous.pt", "best.pt"
SHARED = ("stage", *ABOUT, "data_fingerprint", "environment")
KEYS = {
    "rows",
    "finished",
    "loaded",
    "best",
    "network",
    "trainer",
    "start",
    "epochs",
    "data_fingerprint",
}


class Ledger:
    """The rows of every epoch and the summaries of finished stages.

    Args:
        folder: Folder of the run.
        grids: Grids of the levels, coarsest first.
        board: Is shown every new row, or None.
        writes: Whether this process is the one that writes files.

    Attributes:
        rows: One row for each epoch so far.
        finished: One summary for each finished stage.
        loaded: Weights that the user wants to start from, kept here as their file may change.
        best: Best state of the latest finished stage on a level, as far as stages to come need it
            and of the last one in any case.
        saving_seconds: Time spent on saving checkpoints.
    """

    def __init__(
        self,
        folder: RunFolder,
        grids: Sequence[Grid],
        board: Board | None = None,
        writes: bool = True,
    ) -> None:
        self.folder = folder
        self.writes = writes
        self.board = board
        self.grids = grids
        self.rows: list[Row] = []
        self.finished: list[dict[str, Any]] = []
        self.loaded: Mapping[str, Tensor] = {}
        self.best: dict[int, dict[str, Any]] = {}
        self.saving_seconds = 0.0

    def level_folder(self, level: int) -> Path:
        """Returns the folder of a level."""
        return self.folder.level(level, self.grids[level], make=self.writes)

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
        if self.writes:
            write_history(self.folder.metrics, self.rows)
        if self.board is not None:
            self.board.add(len(self.rows) - 1, row)

    def finish(
        self, summary: dict[str, Any], best: dict[str, Any], later_levels: Collection[int]
    ) -> None:
        """Adds a finished stage.

        Args:
            summary: Its summary.
            best: Its best state.
            later_levels: Levels of the stages to come.
        """
        level = summary["level"]
        self.finished.append(summary)
        kept = {k: state for k, state in self.best.items() if k in later_levels}
        self.best = {**kept, level: to_cpu(best)}

    def state_dict(self, level: int, later_levels: Collection[int]) -> dict[str, Any]:
        """Returns what a checkpoint of a stage must hold, as tensors and plain containers.

        Args:
            level: Level of the stage, whose own best state the checkpoint holds anyway.
            later_levels: Levels of the stages to come.
        """
        return {
            "rows": [dict(row.__dict__) for row in self.rows],
            "finished": list(self.finished),
            "loaded": dict(self.loaded) if later_levels else {},
            "earlier_best": {
                k: state for k, state in self.best.items() if k != level and k in later_levels
            },
            "saving_seconds": self.saving_seconds,
        }

    def restore(self, data_fingerprint: str, processes: Processes = ALONE) -> dict[str, Any] | None:
        """Restores rows, finished stages and best states from the latest sound checkpoint.

        A damaged checkpoint is named, put aside and left out; where none is left, the run starts
        from the beginning.

        Args:
            data_fingerprint: Fingerprint of the samples as they are now.
            processes: The processes that go on together; the first one reads for all.

        Returns:
            The checkpoint, or None if there is none.

        Raises:
            UserError: If the samples have changed.
        """
        latest = processes.from_first(lambda: self._latest(data_fingerprint))
        if latest is None:
            log.info("nothing was saved yet: starting from the beginning")
            return None
        self.rows = [Row(**row) for row in latest["rows"]]
        self.finished = latest["finished"]
        self.loaded = latest["loaded"]
        self.best = dict(latest["earlier_best"])
        self.saving_seconds = latest["saving_seconds"]
        if is_finished(latest):
            self.best[latest["level"]] = latest["best"]
        if self.writes:
            write_history(self.folder.metrics, self.rows)
        _, stage, epoch, _, step = _place(latest)
        log.info("resuming after epoch %d, step %d of stage %d", epoch, step, stage)
        return latest

    def _latest(self, data_fingerprint: str) -> dict[str, Any] | None:
        """Reads all checkpoints and returns the one that is furthest, or None."""
        latest, folder = None, self.folder.path
        files = [path for name in (LAST, PREVIOUS) for path in folder.glob(f"level_*_*/{name}")]
        for path in files:
            payload = self._load(path)
            if payload is not None and path.name == LAST and is_finished(payload):
                mend_best(path.with_name(BEST), payload)
            if payload is not None and (latest is None or _place(payload) > _place(latest)):
                latest = payload
        if latest is not None and latest["data_fingerprint"] != data_fingerprint:
            raise UserError(
                f"{self.folder.path}: cannot be resumed, as the samples have changed since the run "
                "began; use --overwrite to start anew"
            )
        return latest

    def _load(self, path: Path) -> dict[str, Any] | None:
        """Returns a checkpoint; puts it aside if it is damaged."""
        try:
            payload = load_checkpoint(path)
            if payload.keys() >= KEYS:
                return payload
            problem = f"{path}: holds no state of a run"
        except DamagedError as error:
            problem = str(error)
        aside = path.with_name(path.name + ".damaged")
        log.warning("%s; it is put aside as %s, and the one before is used", problem, aside.name)
        self.folder.journal.note("damaged checkpoint", problem=problem)
        try:
            rename(path, aside)
        except OSError as error:
            raise UserError(f"{path}: cannot be put aside: {error.strerror}") from None
        return None


def save_best(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Writes the best state in a run's checkpoint as a file of its own, for users."""
    save_checkpoint(path, {**{key: checkpoint[key] for key in SHARED}, **checkpoint["best"]})


def mend_best(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Writes the best state anew if a kill or damage has left the file behind."""
    try:
        there = load_checkpoint(path)
        progress = checkpoint["best"]["trainer"]["progress"]
        if there["stage"] == checkpoint["stage"] and there["trainer"]["progress"] == progress:
            return
    except UserError as error:
        log.warning("%s; it is written anew", error)
    save_best(path, checkpoint)


def is_finished(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint was taken at the end of its stage."""
    return bool(checkpoint["stage"] < len(checkpoint["finished"]))


def to_cpu(state: Any) -> Any:
    """Returns nested containers with all tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {key: to_cpu(value) for key, value in state.items()}
    return state


def _place(checkpoint: dict[str, Any]) -> tuple[int, int, int, int, int]:
    """Returns where a run stood: finished stages, stage, epoch, faults so far and step.

    A fault begins the epoch anew, so it counts for more than a step.
    """
    trainer = checkpoint["trainer"]
    epoch, step = trainer["progress"]["epoch"], len(trainer["sums"]["losses"])
    faults = len(trainer["guard"]["faults"])
    return len(checkpoint["finished"]), checkpoint["stage"], epoch, faults, step
