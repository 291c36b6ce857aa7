"""On which of the grids of a trained ladder an input is."""

from collections.abc import Mapping, Sequence

from multigrid.errors import UserError
from multigrid.grid import Grid, halvings_between


def find_level(shape: Sequence[int], grids: Mapping[int, Grid], names: Sequence[str]) -> int:
    """Returns the level whose grid a batch ``[N, in, *grid]`` is on.

    Args:
        shape: Shape of the batch.
        grids: Grids by their level, coarsest first.
        names: Names of the input fields.

    Raises:
        UserError: If there is none; the sentence says what to do.
    """
    finest, count = grids[max(grids)], len(names)
    wanted = f"[N, {count}, {', '.join('xyz'[: finest.ndim])}]"
    if len(shape) == finest.ndim + 1 and count == 1:
        raise UserError(
            f"the input has the shape {list(shape)}, but {wanted} is needed: add an axis for "
            "the one input field, as in x[:, None]"
        )
    if len(shape) != finest.ndim + 2:
        raise UserError(f"the input has the shape {list(shape)}, but {wanted} is needed")
    if shape[1] != count:
        raise UserError(
            f"the input has {shape[1]} fields, but {count} are needed: {', '.join(names)}"
        )
    if min(shape[2:]) < 2:
        raise UserError(
            f"the input has the shape {list(shape)}, but every axis needs 2 points at least"
        )
    for level, grid in grids.items():
        if grid.shape == tuple(shape[2:]):
            return level
    raise UserError(_what_to_do(Grid(tuple(shape[2:]), finest.centering), grids))


def names_of(grids: Mapping[int, Grid]) -> str:
    """Returns the names of all grids."""
    return ", ".join(str(grid) for grid in grids.values())


def _what_to_do(grid: Grid, grids: Mapping[int, Grid]) -> str:
    """Returns what to do with fields on a grid that was not trained."""
    text = f"the input is on a {grid} grid, but trained are {names_of(grids)}"
    for known in reversed(list(grids.values())):
        if halvings_between(known, grid):
            how = "averages of 2 points" if grid.centering == "cell" else "every second point"
            return f"{text}; restrict it to {known} ({how} along each axis, repeatedly)"
        if halvings_between(grid, known):
            return f"{text}; give the input on {known}, or train with {grid} among the levels"
    return f"{text}; resample it to one of these, or train on its own grid"
