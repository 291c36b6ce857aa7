"""Floors: what a coarse grid cannot know of the fields, measured before anything is trained.

A network on restricted fields of a grid of m points cannot beat the *output floor*
``|u - P R u| / |u|`` of the outputs u, with the restriction R to the grid and the prolongation P
from it. Where the floors lie above the error that is wanted, coarse levels must see the whole fine
fields (``model.fields: folded``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from multigrid.config import Config
from multigrid.data.samples import Samples
from multigrid.fields import Periodic
from multigrid.grid import Grid
from multigrid.ladder.locality import WINDOW, measure_locality
from multigrid.models.layers import wraps
from multigrid.tables import table
from multigrid.training.evaluation import interpolation_error

FOLD_ABOVE = 5e-3
"""Output floor of the coarsest level above which ``model.fields: auto`` folds."""


@dataclass(frozen=True)
class Floor:
    """Mean relative L2 errors of a level's restricted and prolonged outputs, and of its inputs."""

    grid: Grid
    output: float
    input: float

    @property
    def is_high(self) -> bool:
        """Whether restricted levels on the grid lack too much to start with."""
        return self.output > FOLD_ABOVE

    def __str__(self) -> str:
        limit = f"{'more' if self.is_high else 'not more'} than {FOLD_ABOVE:g}"
        return f"{self.grid} lacks {self.output:.2g} of the outputs, {limit}"


def floors(
    samples: Samples, levels: Sequence[Grid], degree: int, periodic: Periodic
) -> list[Floor]:
    """Returns the floors of levels, for a prolongation of a degree that may be ``periodic``."""

    def lost(fields: Tensor, grid: Grid) -> float:
        return interpolation_error(fields, samples.grid, grid, degree, periodic)

    return [Floor(grid, lost(samples.outputs, grid), lost(samples.inputs, grid)) for grid in levels]


def measure_floors(config: Config, samples: Samples) -> list[Floor]:
    """Returns the floors of the levels of an experiment, on samples of its finest grid."""
    model, levels = config.model, config.hierarchy().levels
    return floors(samples, levels, model.prolongation, wraps(model.padding))


def choose_fields(measured: Sequence[Floor]) -> tuple[str, str]:
    """Returns what ``model.fields: auto`` becomes, and why in words."""
    fields = "folded" if measured[0].is_high else "restricted"
    return fields, f"{fields}, as {measured[0]}"


def choose_cycle(measured: Sequence[Floor], samples: Samples) -> tuple[str, str]:
    """Returns what ``schedule.cycle: auto`` becomes by floors and samples, and why in words."""
    if not measured[0].is_high:
        return "half-v", f"half-v, level by level, as {measured[0]}"
    if WINDOW * min(samples.grid.shape) < 1:
        why = f"{samples.grid} is too small to tell near from far"
        return "half-v", f"half-v, level by level, as {why}"
    locality = measure_locality(samples, [floor.grid for floor in measured])
    if locality.is_local:
        return "single", f"single, the finest level alone, as {locality}"
    return "half-v", f"half-v, level by level, as {locality}"


def advice(measured: Sequence[Floor]) -> str:
    """Returns in a sentence what the floors say about a ladder."""
    coarsest = measured[0]
    if not coarsest.is_high:
        return (
            f"{coarsest.grid} holds the outputs up to {coarsest.output:.2g}: restricted levels do "
            "for errors above that"
        )
    enough = [floor.grid for floor in measured[:-1] if not floor.is_high]
    start = f", or start restricted levels at {enough[0]}" if enough else ""
    return (
        f"{coarsest.grid} lacks {coarsest.output:.2g} of the outputs, which no restricted level on "
        f"it can learn: use model.fields=folded{start}"
    )


def floors_table(measured: Sequence[Floor]) -> str:
    """Returns the floors as a table."""
    rows = [[str(f.grid), f"{f.output:.2g}", f"{f.input:.2g}"] for f in measured]
    return table(["Level", "Output floor", "Input floor"], rows)
