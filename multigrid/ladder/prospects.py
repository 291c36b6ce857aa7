"""Prospects of a ladder, measured on a few samples before anything is trained.

*Floors*: a network on restricted fields of a grid of m points cannot beat the output floor
``|u - P R u| / |u|`` of the outputs u, with the restriction R to the grid and the prolongation P
from it. Where the floors lie above the error that is wanted, coarse levels must see the whole fine
fields (``model.fields: folded``).

*Locality*: where each output value depends on the whole input, as for elliptic problems and waves,
a coarse level learns most of the map at a fraction of the cost. Where it depends on the
surroundings of a point alone, as for most problems of one step in time, it does not pay: such a map
is the same everywhere, which a network on the finest grid has built in and a folded level has to
learn. Two linear, shift-invariant maps are compared: one whose kernel is as large as the grid, and
one whose kernel is a window around its peak, wherever that lies. Fields are taken as periodic or
continued as sine or cosine series, whichever suits best.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fft import fftn, ifftn

from multigrid.config import Config
from multigrid.data.samples import Samples
from multigrid.grid import Grid
from multigrid.models.layers import wraps
from multigrid.tables import table
from multigrid.training.evaluation import interpolation_error

FOLD_ABOVE = 5e-3
"""Output floor of the coarsest level above which ``model.fields: auto`` folds."""
WINDOW = 1 / 32
"""Half the width of the window over that of the domain."""
LOCAL_ABOVE = 0.9
"""Share of what the whole input explains above which a window is all that counts.

Tried on 23 problems: those in space alone and waves have 0.08 to 0.73, the others 0.94 to 1.
"""
MAX_SIZE = 2**15
"""Most points of a grid that is looked at."""
RIDGE = 1e-8
SMALLEST = 1e-60
"""What to divide by instead of zero."""


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


def measure_floors(config: Config, samples: Samples) -> list[Floor]:
    """Returns the floors of the levels of an experiment, on samples of its finest grid."""
    how = config.model.prolongation, wraps(config.model.padding)

    def lost(fields: Tensor, grid: Grid) -> float:
        return interpolation_error(fields, samples.grid, grid, *how)

    return [
        Floor(grid, lost(samples.outputs, grid), lost(samples.inputs, grid))
        for grid in config.hierarchy().levels
    ]


def choose_fields(measured: Sequence[Floor]) -> tuple[str, str]:
    """Returns what ``model.fields: auto`` becomes, and why in words."""
    fields = "folded" if measured[0].is_high else "restricted"
    return fields, f"{fields}, as {measured[0]}"


def choose_cycle(measured: Sequence[Floor], samples: Samples) -> tuple[str, str]:
    """Returns what ``schedule.cycle: auto`` becomes by floors and samples, and why in words."""
    reason = str(measured[0])
    if measured[0].is_high and WINDOW * min(samples.grid.shape) < 1:
        reason = f"{samples.grid} is too small to tell near from far"
    elif measured[0].is_high:
        locality = measure_locality(samples, [floor.grid for floor in measured])
        if locality.is_local:
            return "single", f"single, the finest level alone, as {locality}"
        reason = str(locality)
    return "half-v", f"half-v, level by level, as {reason}"


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


class Locality(NamedTuple):
    """The shares of the outputs' variance that a window explains, and the whole input."""

    window: float
    whole: float

    @property
    def is_local(self) -> bool:
        """Whether the outputs depend on what is near alone."""
        return self.window > LOCAL_ABOVE * self.whole

    def __str__(self) -> str:
        where = "near alone" if self.is_local else "far, too"
        return (
            f"the outputs depend on what is {where}: linear maps explain {self.window:.2f} of the "
            f"variance from a window, {self.whole:.2f} from the whole input"
        )


def measure_locality(samples: Samples, levels: Sequence[Grid]) -> Locality:
    """Measures on the finest of some levels that is not too large to be looked at.

    The maps are fitted to one half of the samples and tested on the other.
    """
    grid = next((level for level in reversed(levels) if level.size <= MAX_SIZE), levels[0])
    samples = samples.restrict_to(grid)
    shares = [_explained(samples, sign) for sign in (0, -1, 1)]
    window, whole = (max(0.0, *column) for column in zip(*shares, strict=True))
    return Locality(window, max(window, whole))


def _explained(samples: Samples, sign: int) -> tuple[float, float]:
    """Returns both shares for one continuation: periodic (0), odd (-1) or even (1)."""
    fields = samples.inputs.double(), samples.outputs.double()
    inputs, outputs = (_standardised(_continued(field, sign)) for field in fields)
    shape, half = inputs.shape[2:], len(inputs) // 2
    x, y = (fftn(field, dim=_axes(field)).flatten(2) for field in (inputs, outputs))
    power = torch.einsum("nik,njk->kij", x[:half].conj(), x[:half])
    cross = torch.einsum("nik,njk->kij", x[:half].conj(), y[:half])

    def share(kernel: Tensor) -> float:
        error = y[half:] - torch.einsum("nik,kij->njk", x[half:], kernel)
        total = y[half:].abs().square().sum().clamp_min(SMALLEST)
        return 1 - float(error.abs().square().sum() / total)

    whole = share(torch.linalg.solve(_regular(power), cross))
    reach = [max(1, round(WINDOW * points)) for points in samples.grid.shape]
    return share(_window_kernel(power, cross, shape, reach)), whole


def _window_kernel(power: Tensor, cross: Tensor, shape: torch.Size, reach: Sequence[int]) -> Tensor:
    """Returns the spectrum ``[K, in, out]`` of the best kernel that reaches so many points."""
    channels, size = power.shape[1], torch.tensor(shape)
    lags = _lags(cross, shape)
    peak = lags.square().sum((0, 1)).argmax()
    centre = torch.stack(torch.unravel_index(peak, shape))
    steps = torch.tensor(list(product(*(range(-r, r + 1) for r in reach))))
    places = tuple(((centre + steps) % size).T)
    between = tuple(((steps[:, None] - steps) % size).movedim(-1, 0))
    own = _lags(power, shape)
    normal = own[:, :, *between].movedim(1, 2).flatten(2).flatten(0, 1)
    right = lags[:, :, *places].movedim(1, 2).flatten(0, 1)
    weights = torch.linalg.solve(_regular(normal), right).unflatten(0, (channels, -1))
    kernel = torch.zeros_like(lags)
    kernel[:, :, *places] = weights.movedim(1, 2)
    return fftn(kernel, dim=_axes(kernel)).flatten(2).movedim(-1, 0)


def _regular(matrices: Tensor) -> Tensor:
    """Returns symmetric matrices with a small multiple of the identity added."""
    scale = matrices.diagonal(dim1=-2, dim2=-1).real.mean().clamp_min(SMALLEST)
    return matrices + RIDGE * scale * torch.eye(matrices.shape[-1], dtype=matrices.dtype)


def _standardised(fields: Tensor) -> Tensor:
    axes = 0, *_axes(fields)
    centred = fields - fields.mean(axes, keepdim=True)
    return centred / centred.std(axes, keepdim=True).clamp_min(SMALLEST)


def _continued(fields: Tensor, sign: int) -> Tensor:
    for axis in _axes(fields) if sign else ():
        fields = torch.cat([fields, sign * fields.flip(axis)], axis)
    return fields


def _lags(spectrum: Tensor, shape: torch.Size) -> Tensor:
    """Returns correlations ``[A, B, *shape]`` by lag from their spectra ``[K, A, B]``."""
    by_wave = spectrum.movedim(0, -1).unflatten(-1, shape)
    return ifftn(by_wave, dim=_axes(by_wave)).real


def _axes(fields: Tensor) -> tuple[int, ...]:
    return tuple(range(2, fields.ndim))
