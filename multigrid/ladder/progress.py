"""What a stage shows while it runs: a bar on a terminal or in a notebook, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Sequence

from tqdm.auto import tqdm

from multigrid.schedule import Stage
from multigrid.training.epoch import EpochRecord

log = logging.getLogger(__name__)


class TimeLeft:
    """Estimates the time left from the work left, at the pace of the stage that runs.

    A unit of work takes longer on coarse grids, so the total is overestimated at first.

    Args:
        work: Work of every stage, in any unit.
        index: The stage that runs.
    """

    def __init__(self, work: Sequence[float], index: int) -> None:
        self.work = work
        self.index = index
        self._began: tuple[float, float] | None = None

    def estimate(self, part: float) -> tuple[float, float] | None:
        """Returns the seconds left for the stage and for the whole run; None when first asked.

        Args:
            part: How much of the stage is done, from 0 to 1.
        """
        now = time.perf_counter()
        if self._began is None:
            self._began = part, now
            return None
        begun, started = self._began
        done = (part - begun) * self.work[self.index]
        if done <= 0:
            return None
        pace = (now - started) / done
        stage = (1 - part) * self.work[self.index] * pace
        return stage, stage + sum(self.work[self.index + 1 :]) * pace


class ProgressPrinter:
    """Shows the progress of one stage.

    Args:
        stage: The stage.
        num_levels: Number of levels of the ladder.
        grid: Grid of the level.
        work: Work of every stage of the run, for the time left.
        shown: Whether this process is the one that shows anything.
    """

    def __init__(
        self, stage: Stage, num_levels: int, grid: str, work: Sequence[float], shown: bool = True
    ) -> None:
        self.stage = stage
        self.head = f"[level {stage.level}/{num_levels - 1} | {grid}]"
        self.bar: tqdm | None = None
        self.left = TimeLeft(work, stage.index)
        self.shown = shown and (sys.stderr.isatty() or "ipykernel" in sys.modules)

    def banner(self) -> str:
        """Returns the line that opens the stage."""
        stage = self.stage
        return (
            f"{self.head} stage {stage.index}: {stage.epochs} epochs, batch {stage.batch_size}, "
            f"rate {stage.learning_rate:.1e}"
        )

    def entered(self, error: float, finest_error: float) -> None:
        """Tells the error before the first step."""
        self.left.estimate(0.0)
        log.info(
            "%s on entering  val_rel_l2=%.4g  on the finest grid %.4g",
            self.head,
            error,
            finest_error,
        )

    def step(self, epoch: int, step: int, num_steps: int) -> None:
        """Moves the bar."""
        steps = (epoch - 1) * num_steps + step
        left = self.left.estimate(steps / (self.stage.epochs * num_steps))
        if not self.shown:
            return
        if self.bar is None:
            self.bar = tqdm(
                desc=f"{self.head} epoch {epoch}/{self.stage.epochs}",
                total=self.stage.epochs * num_steps,
                initial=steps - 1,
                bar_format="{desc} |{bar}| {n_fmt}/{total_fmt} steps{postfix}",
                leave=False,
            )
        if left is not None:
            text = f"{duration(left[0])} left, all levels {duration(left[1])}"
            self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(steps - self.bar.n)

    def epoch(self, record: EpochRecord) -> None:
        """Tells what an epoch gave."""
        self.close()
        left = self.left.estimate(record.epoch / self.stage.epochs)
        log.info(
            "%s epoch %d/%d  train_loss=%.4g  val_rel_l2=%.4g  lr=%.1e  |g|=%.2g  %.1fs  "
            "(data %.0f%%)%s",
            self.head,
            record.epoch,
            self.stage.epochs,
            record.train_loss,
            record.val_rel_l2,
            record.learning_rate,
            record.gradient_norm,
            record.seconds,
            100 * record.data_fraction,
            f"  left={duration(left[0])}  total_left={duration(left[1])}" if left else "",
        )

    def close(self) -> None:
        """Removes the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def duration(seconds: float) -> str:
    """Returns a time as text: ``45s``, ``1m30s``, ``2h05m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
