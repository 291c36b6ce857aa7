"""The history as TensorBoard shows it."""

from pathlib import Path
from typing import Any

from multigrid.errors import UserError
from multigrid.records.history import Row


class Board:
    """Writes rows of the history as TensorBoard events; the step is the number of the row.

    Args:
        folder: Where the events go; nothing is written before the first row.

    Raises:
        UserError: If TensorBoard is not installed.
    """

    QUANTITIES = ("val_rel_l2", "val_finest_rel_l2", "train_loss", "learning_rate", "gradient_norm")

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "output.tensorboard: the package 'tensorboard' is not installed; install it with "
                "`pip install tensorboard`, or set it to false"
            ) from None
        self._open: Any = SummaryWriter
        self._writer: Any = None
        self.folder = folder

    def add(self, step: int, row: Row) -> None:
        """Adds a row; the first of a process hides whatever was written from its step on."""
        if self._writer is None:
            self._writer = self._open(str(self.folder), purge_step=step)
        for name in self.QUANTITIES:
            value = getattr(row, name)
            if value is not None:
                self._writer.add_scalar(f"{name}/level_{row.level}", value, step)
        for name in ("work_units", "seconds"):
            self._writer.add_scalar(f"cost/{name}", getattr(row, name), step)
        self._writer.flush()
