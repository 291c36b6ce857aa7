"""Divergence: losses that are not finite or explode are caught before they reach the weights."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from multigrid.errors import UserError

NUM_EXPLODED = 5
NUM_NAMED = 64


class DivergedError(UserError):
    """Training has failed: going back with a lower rate did not help."""


@dataclass(frozen=True)
class RecoveryOptions:
    """How often to go back, with what factor on the rate, and when a loss counts as exploded.

    It does if it stays above ``explosion`` times the lowest for :data:`NUM_EXPLODED` steps.
    """

    tries: int = 3
    factor: float = 0.3
    explosion: float | None = 1000.0


class Divergence(Exception):  # noqa: N818 (an event that is handled, not an error for the user)
    """A step or a validation that must not count."""

    def __init__(self, reason: str, step: int | None = None, samples: Sequence[int] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.step = step
        self.samples = sorted(samples)

    def describe(self, grid: object, epoch: int) -> str:
        """Returns what happened, where, and with which samples."""
        if self.step is None:
            return f"{self.reason} on the {grid} grid after epoch {epoch}"
        named = ", ".join(map(str, self.samples[:NUM_NAMED]))
        more = len(self.samples) - NUM_NAMED
        tail = f" and {more} more" if more > 0 else ""
        return (
            f"{self.reason} on the {grid} grid in epoch {epoch}, step {self.step + 1}, with the "
            f"training samples {named}{tail}"
        )


@dataclass
class DivergenceDetector:
    """Checks losses, and counts how often the training went back. A function of losses alone."""

    options: RecoveryOptions = RecoveryOptions()
    rate_factor: float = 1.0
    lowest: float = math.inf
    num_exploded: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def check(self, loss: float, norm: float, step: int, samples: Sequence[int]) -> None:
        """Raises Divergence if a loss or gradient is not finite, or the loss has exploded."""
        reason = self._reason(loss, norm)
        if reason is not None:
            raise Divergence(reason, step, samples)

    def lower_rate(self, divergence: Divergence, epoch: int) -> bool:
        """Counts a divergence and lowers the rate; returns False if there were too many."""
        if len(self.events) >= self.options.tries:
            return False
        self.rate_factor *= self.options.factor
        self.num_exploded = 0
        self.events.append(
            {
                "epoch": epoch,
                "step": None if divergence.step is None else divergence.step + 1,
                "reason": divergence.reason,
                "samples": divergence.samples,
                "rate_factor": self.rate_factor,
            }
        )
        return True

    def state_dict(self) -> dict[str, Any]:
        """Returns plain containers for a checkpoint."""
        state = asdict(self)
        del state["options"]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where :meth:`state_dict` was taken."""
        for key, value in state.items():
            setattr(self, key, value)

    def _reason(self, loss: float, norm: float) -> str | None:
        if not math.isfinite(loss):
            return f"the loss became {loss}"
        if not math.isfinite(norm):
            return f"the gradient became {norm}"
        limit = self.options.explosion
        # a loss that may be negative, such as an energy, has no scale to explode from
        if limit is not None and self.lowest > 0 and loss > limit * self.lowest:
            self.num_exploded += 1
        else:
            self.num_exploded = 0
        self.lowest = min(self.lowest, loss)
        if self.num_exploded < NUM_EXPLODED:
            return None
        return (
            f"the loss exploded to {loss:.3g}, for {NUM_EXPLODED} steps more than {limit:g} times "
            f"its lowest value {self.lowest:.3g},"
        )
