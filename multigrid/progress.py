"""What a stage shows while it runs: a bar on a terminal, plain lines elsewhere."""

import logging
import sys

from tqdm import tqdm

from multigrid.schedule import Stage
from multigrid.trainer import EpochRecord

log = logging.getLogger(__name__)


class ProgressPrinter:
    """Shows the progress of one stage.

    Args:
        stage: The stage.
        num_levels: Number of levels of the ladder.
        grid: Grid of the level.
    """

    def __init__(self, stage: Stage, num_levels: int, grid: str) -> None:
        self.stage = stage
        self.head = f"[level {stage.level}/{num_levels - 1} | {grid}]"
        self.bar: tqdm | None = None

    def banner(self) -> str:
        """Returns the line that opens the stage."""
        stage = self.stage
        return (
            f"{self.head} stage {stage.index}: {stage.epochs} epochs, batch {stage.batch_size}, "
            f"rate {stage.learning_rate:.1e}"
        )

    def entered(self, error: float, finest_error: float) -> None:
        """Tells the error before the first step."""
        log.info(
            "%s on entering  val_rel_l2=%.4g  on the finest grid %.4g",
            self.head,
            error,
            finest_error,
        )

    def step(self, epoch: int, step: int, num_steps: int) -> None:
        """Moves the bar."""
        if self.bar is None or self.bar.total != num_steps or step == 1:
            self.close()
            self.bar = tqdm(
                total=num_steps,
                desc=f"{self.head} epoch {epoch}/{self.stage.epochs}",
                disable=not sys.stderr.isatty(),
                leave=False,
            )
        self.bar.update(step - self.bar.n)

    def epoch(self, record: EpochRecord) -> None:
        """Tells what an epoch gave."""
        self.close()
        log.info(
            "%s epoch %d/%d  train_loss=%.4g  val_rel_l2=%.4g  lr=%.1e  |g|=%.2g  %.1fs  "
            "(data %.0f%%)",
            self.head,
            record.epoch,
            self.stage.epochs,
            record.train_loss,
            record.val_rel_l2,
            record.learning_rate,
            record.gradient_norm,
            record.seconds,
            100 * record.data_fraction,
        )

    def close(self) -> None:
        """Removes the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
