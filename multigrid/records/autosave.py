"""When it is time to save: every so many epochs, steps or minutes."""

import time
from dataclasses import dataclass, field


@dataclass
class Autosave:
    """Tells when a checkpoint is due.

    Attributes:
        epochs: Save after every so many epochs.
        steps: Save after every so many steps since the last time, or None.
        minutes: Save when so many minutes have passed since the last time, or None.
    """

    epochs: int
    steps: int | None = None
    minutes: float | None = None
    _steps_since: int = 0
    _saved_at: float = field(default_factory=time.monotonic)

    def after_step(self) -> bool:
        """Counts a step and returns whether a checkpoint is due."""
        self._steps_since += 1
        return self._too_many_steps or self._too_late

    def after_epoch(self, epoch: int) -> bool:
        """Returns whether a checkpoint is due after an epoch, counted from 1."""
        return epoch % self.epochs == 0 or self._too_late

    def saved(self) -> None:
        """Starts anew."""
        self._steps_since, self._saved_at = 0, time.monotonic()

    @property
    def _too_many_steps(self) -> bool:
        return self.steps is not None and self._steps_since >= self.steps

    @property
    def _too_late(self) -> bool:
        return self.minutes is not None and time.monotonic() - self._saved_at >= 60 * self.minutes
