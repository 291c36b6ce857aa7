"""The samples of each step, augmented by the exact symmetries of a problem.

What is drawn is a pure function of the seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import combinations, permutations, product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from multigrid.data.samples import Samples
from multigrid.distributed import ALONE, Processes
from multigrid.fields import multiply
from multigrid.grid import Grid
from multigrid.problems.base import Symmetries

LARGEST_MODE_SHIFT = 1 / 4
"""As a fraction of the sines that the grid tells apart along an axis, whatever the samples have."""
LARGEST_TRANSLATION = 1 / 4
"""As a fraction of the points along an axis."""


@dataclass(frozen=True)
class Orientation:
    """Reflected axes of ``[N, C, *grid]``, its grid's axes in their new order, shift and sign."""

    flips: tuple[int, ...]
    axes: tuple[int, ...]
    distances: tuple[int, ...]
    sign: int = 1

    def apply(self, fields: Tensor) -> Tensor:
        """Returns fields ``[N, C, *grid]`` in this orientation."""
        fields = fields.flip(self.flips) if self.flips else fields
        if list(self.axes) != sorted(self.axes):
            fields = fields.permute(0, 1, *self.axes)
        if self.distances:
            fields = fields.roll(self.distances, tuple(sorted(self.axes)))
        return -fields if self.sign < 0 else fields


@dataclass(frozen=True)
class Augmentation:
    """What has been drawn for a batch of B samples.

    Linear problems: every sample becomes a random combination of itself and a mirrored other one,
    its partner in the batch, with normally distributed factors ``[2, B]``. The partners' waves may
    be made shorter, so that they lie on top of what occurs. Orientation and sign are those of the
    whole batch. Translations are how far to move each sample between its limits, ``[B, ndim]``.
    """

    orientation: Orientation
    mirror: Orientation | None
    partners: np.ndarray
    factors: np.ndarray
    mode_shifts: tuple[int, ...]
    sign: int = 1
    translations: np.ndarray | None = None

    def sources(self, places: np.ndarray) -> np.ndarray:
        """Returns, in rising order, what of the batch is needed to make some of its samples."""
        return np.union1d(places, self.partners[places]) if self.mirror else places

    def apply(self, samples: Samples, places: np.ndarray) -> Samples:
        """Returns new samples, made from those given."""
        fields = torch.cat([samples.inputs, samples.outputs], dim=1)
        num_inputs, sources = samples.inputs.shape[1], self.sources(places)
        if self.translations is not None:
            where = torch.from_numpy(self.translations[sources]).to(fields.device)
            fields = translate(fields, num_inputs, where)
        if self.mirror is not None:
            others = torch.from_numpy(np.searchsorted(sources, self.partners[places]))
            mirrored = self.mirror.apply(fields)[others.to(fields.device)]
            if self.mode_shifts:
                parts = mirrored[:, :num_inputs], mirrored[:, num_inputs:]
                mirrored = shift_solutions(*parts, samples.grid, self.mode_shifts)
            if len(places) < len(sources):
                here = torch.from_numpy(np.searchsorted(sources, places))
                fields = fields[here.to(fields.device)]
            factors = torch.from_numpy(self.factors[:, places]).to(fields.device)
            one, other = factors.reshape(2, -1, *(1,) * (fields.ndim - 1))
            fields = one * fields + other * mirrored
        fields = self.orientation.apply(fields)
        fields = -fields if self.sign < 0 else fields
        return Samples(fields[:, :num_inputs], fields[:, num_inputs:], samples.grid)


@dataclass(frozen=True)
class Batch:
    """One process's part of the batch of a step, which has its samples at ``places``.

    ``share`` is the part of the batch they stand for: 0 for a process that has no samples and
    borrows one, so as to keep in step with the others.
    """

    indices: Tensor
    places: np.ndarray
    share: float
    augmentation: Augmentation | None

    @property
    def sources(self) -> Tensor:
        """Numbers of the samples that this process needs."""
        if len(self.places) == len(self.indices):
            return self.indices
        drawn = self.augmentation
        places = drawn.sources(self.places) if drawn else self.places
        return self.indices[torch.from_numpy(places)]


@dataclass(frozen=True)
class Batches:
    """The batches of every epoch of a stage; ``key`` is the seed and the number of the stage.

    All processes draw the same for the whole batch, and each takes its share.
    """

    count: int
    grid: Grid
    size: int
    key: tuple[int, int]
    symmetries: Symmetries | None
    processes: Processes = ALONE
    mode_shifts: float = 0.0

    @property
    def num_steps(self) -> int:
        """Number of steps of an epoch."""
        return math.ceil(self.count / self.size)

    def epoch(self, epoch: int, first: int = 0) -> list[Batch]:
        """Returns the batches of an epoch, from step ``first`` on."""
        order = torch.from_numpy(self.rng(epoch).permutation(self.count))
        parts = list(enumerate(order.split(self.size)))
        return [self._batch(epoch, step, indices) for step, indices in parts[first:]]

    def rng(self, *key: int) -> np.random.Generator:
        """Returns random numbers that depend on seed, stage and key alone."""
        seed, stage = self.key
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stage, *key)))

    def _batch(self, epoch: int, step: int, indices: Tensor) -> Batch:
        places = np.arange(len(indices))[self.processes.share(len(indices))]
        share = len(places) / len(indices)
        drawn = None
        if self.symmetries is not None:
            rng = self.rng(epoch, step)
            drawn = draw(len(indices), self.grid, self.symmetries, rng, self.mode_shifts)
        return Batch(indices, places if share else np.arange(1), share, drawn)


def draw(
    count: int,
    grid: Grid,
    symmetries: Symmetries,
    rng: np.random.Generator,
    mode_shifts: float = 0.0,
) -> Augmentation:
    """Draws the augmentation of a batch."""
    assert not mode_shifts or (symmetries.linear and symmetries.mode_shifts)
    mirror, partners, factors = None, np.arange(count), np.ones((2, count), dtype=np.float32)
    if symmetries.linear:
        mirror = _orientation(grid, symmetries, rng)
        partners = rng.permutation(count)
        factors = rng.standard_normal((2, count), dtype=np.float32)
    orientation, steps = _orientation(grid, symmetries, rng), tuple[int, ...]()
    if mode_shifts and rng.random() < mode_shifts:
        largest = [int(LARGEST_MODE_SHIFT * m) for m in grid.num_sines]
        steps = tuple(int(rng.integers(step + 1)) for step in largest)
    sign = -1 if symmetries.odd and rng.random() < 0.5 else 1
    far = rng.random((count, grid.ndim)) if symmetries.translations else None
    return Augmentation(orientation, mirror, partners, factors, steps, sign, far)


def _orientation(grid: Grid, symmetries: Symmetries, rng: np.random.Generator) -> Orientation:
    exact = _mirrors_and_orders(grid, symmetries)
    flips, order = exact[rng.integers(len(exact))]
    sign, distances = _sign(flips, order, symmetries), tuple[int, ...]()
    if symmetries.shifts:
        turned = _turn(symmetries.wave, flips, order) < 0
        drawn = _distances(grid, symmetries, turned, sign, rng)
        if drawn is None:  # the grid has no point for it
            (flips, order), sign, drawn = exact[0], 1, [0] * grid.ndim
        distances = tuple(drawn)
    return Orientation(flips, order, distances, sign)


@lru_cache(maxsize=64)
def _mirrors_and_orders(
    grid: Grid, symmetries: Symmetries
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Returns all mirrored axes with orders of the axes that are exact; first what changes none."""
    axes = tuple(range(2, 2 + grid.ndim))
    free = [axis for axis in axes if axis - 2 not in symmetries.fixed_axes]
    mirrors = [axis for axis in free if symmetries.reflections and grid.is_symmetric(axis - 2)]
    flips = [some for n in range(len(mirrors) + 1) for some in combinations(mirrors, n)]
    orders = [axes]
    if symmetries.rotations:
        alike = {(a, b) for a in free for b in free if grid.shape[a - 2] == grid.shape[b - 2]}
        allowed = alike | {(axis, axis) for axis in axes}
        orders = [o for o in permutations(axes) if allowed.issuperset(zip(axes, o, strict=True))]
    return [
        (some, order)
        for some, order in product(flips, orders)
        if _turn(symmetries.drift, some, order) == 1 and _turn(symmetries.wave, some, order)
    ]


def _turn(vector: Sequence[int], flips: Sequence[int], order: Sequence[int]) -> int:
    """Returns 1 if an orientation leaves a vector as it is, -1 if it reverses it, else 0."""
    flipped = [-k if axis in flips else k for axis, k in enumerate(vector, start=2)]
    image, before = [flipped[axis - 2] for axis in order], list(vector[: len(order)])
    return 1 if image == before else -1 if image == [-k for k in before] else 0


def _sign(flips: Sequence[int], order: Sequence[int], symmetries: Symmetries) -> int:
    """Returns what fields are multiplied by when they are mirrored and their axes exchanged."""
    signs = [symmetries.mirror_signs[axis - 2] for axis in flips]
    swaps = sum(a > b for a, b in combinations(order, 2))
    return math.prod(signs) * (min(symmetries.mirror_signs) if swaps % 2 else 1)


def _distances(
    grid: Grid, symmetries: Symmetries, turned: bool, sign: int, rng: np.random.Generator
) -> list[int] | None:
    """Draws by how many points to move along each axis; None if that would change a force.

    A shift by d keeps ``cos(2 pi k . x - p)`` if k . d is a whole number; it makes up for a change
    of sign if that is one half more, and for waves that run the other way if it is p / pi more.
    """
    distances = [int(rng.integers(n)) for n in grid.shape]
    if symmetries.force is None:
        return distances
    wave, phase = symmetries.force
    turns = (0.5 if sign < 0 else 0.0) + (phase / math.pi if turned else 0.0)
    *_, axis = (axis for axis, k in enumerate(wave) if k)
    for other, (k, n) in enumerate(zip(wave, grid.shape, strict=True)):
        turns -= k * distances[other] / n if other != axis else 0.0
    turns += int(rng.integers(wave[axis]))
    step = grid.shape[axis] * turns / wave[axis]
    distances[axis] = round(step) % grid.shape[axis]
    return distances if math.isclose(step, round(step), abs_tol=1e-9) else None


def translate(fields: Tensor, num_inputs: int, where: Tensor) -> Tensor:
    """Moves each sample's fields ``[N, C, *grid]``, inputs and then outputs, by whole points.

    Inputs stay within the box, and nothing is moved away from an edge that it touches, as it may go
    on beyond; outputs may leave. ``where`` is how far between both limits, ``[N, ndim]``, 0 to 1.
    """
    for axis in range(2, fields.ndim):
        n, others = fields.shape[axis], [a for a in range(1, fields.ndim) if a != axis]
        taken, edges = ((x != 0).amax(others) for x in (fields[:, :num_inputs], fields))  # [N, n]
        first, last = taken.int().argmax(1), n - 1 - taken.int().flip(1).argmax(1)
        reach = int(LARGEST_TRANSLATION * n) * taken.any(1)
        down = torch.minimum(first, reach) * ~edges[:, -1]
        up = torch.minimum(n - 1 - last, reach) * ~edges[:, 0]
        step = (where[:, axis - 2] * (down + up + 1)).long() - down
        source = torch.arange(n, device=fields.device) - step[:, None]
        source = source.reshape(-1, *(n if a == axis else 1 for a in range(1, fields.ndim)))
        inside = (source >= 0) & (source < n)
        fields = fields.take_along_dim(source.clamp(0, n - 1), axis) * inside
    return fields


def shift_solutions(inputs: Tensor, outputs: Tensor, grid: Grid, steps: Sequence[int]) -> Tensor:
    """Moves all waves of right-hand sides and solutions of ``-Laplace(u) = f`` to shorter ones.

    With u = 0 on the boundary of the unit box every sine is an eigenfunction of the Laplacian:

        f = sum_k f_k prod_d sin(pi k_d x_d),    u = sum_k f_k / (pi^2 |k|^2) prod_d sin(pi k_d x_d)

    and with the same f_k at the modes k + s instead of k this gives another solution. It is exact
    on every grid that tells apart all modes of the fields, whether the values are those at points
    or averages, restricted or not: these differ by a factor for each mode, which is the same for f
    and for u. Modes beyond those of the grid are left out. Returns both fields, concatenated.
    """
    wavenumbers = [torch.arange(1.0, m + 1, device=inputs.device) for m in grid.num_sines]
    squares = reduce(lambda a, b: a[..., None] + b, [k**2 for k in wavenumbers])
    margins = [margin for step in reversed(steps) for margin in (step, -step)]
    f = _sine_transform(inputs, grid, inverse=True)
    g = _sine_transform(outputs, grid, inverse=True) * squares
    f, g = pad(f, margins), pad(g, margins)
    return _sine_transform(torch.cat([f, g / squares], dim=1), grid, inverse=False)


def add_noise(fields: Tensor, size: float) -> Tensor:
    """Adds Gaussian noise to fields ``[N, C, *grid]``, over each one's standard deviation.

    It comes from torch's random numbers.
    """
    if not size:
        return fields
    spread = fields.std(list(range(2, fields.ndim)), correction=0, keepdim=True)
    return fields + size * spread * torch.randn_like(fields)


def _sine_transform(fields: Tensor, grid: Grid, inverse: bool) -> Tensor:
    """Returns the values of a series of sines, or the coefficients of values."""
    lines = [
        Grid((n,), grid.centering, (h,)) for n, h in zip(grid.shape, grid.spacing, strict=True)
    ]
    return multiply(fields, [_sines(x, inverse, fields.dtype, fields.device) for x in lines])


@lru_cache(maxsize=64)
def _sines(line: Grid, inverse: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns the matrix from coefficients to values ``[n, m]``, or back ``[m, n]``."""
    (x,), (m,) = line.axes(), line.num_sines
    matrix = np.sin(np.pi * np.outer(x, np.arange(1, m + 1)))
    if inverse:
        matrix = matrix.T / np.sum(matrix**2, axis=0)[:, None]  # its columns are orthogonal
    return torch.as_tensor(matrix, dtype=dtype, device=device)
