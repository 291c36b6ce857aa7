"""``python -m experiments.benchmarks.darcy_solver``: the Darcy solver against a sparse direct one.

Both solve the same finite-volume systems for two-phase coefficients on one thread: ours as one
block, as in the generation of samples, ``scipy.sparse.linalg.spsolve`` one matrix after the other,
whose assembly is not counted. In seconds of processor time a sample, which other work on the
machine disturbs least.
"""

import argparse
import statistics
import time
from functools import reduce
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from multigrid.grid import Grid
from multigrid.hardware import keep_large_buffers
from multigrid.problems.elliptic import TwoPhaseDarcy
from multigrid.solvers.finite_volumes import solve_diffusion
from multigrid.tables import table

SIZES = (64, 128, 256)
REPEATS = 5


def main() -> None:
    """Prints a table of medians."""
    parser = argparse.ArgumentParser(description="Times the Darcy solver next to spsolve.")
    parser.add_argument("--samples", type=int, default=8, help="samples per grid (default 8)")
    num_samples = parser.parse_args().samples
    keep_large_buffers()
    header = ["grid", "iterations", "ours / ms", "spsolve / ms", "ratio", "difference"]
    print(table(header, [_row(Grid((n, n)), num_samples) for n in SIZES]))


def _row(grid: Grid, num_samples: int) -> list[str]:
    rngs = [np.random.default_rng(seed) for seed in range(num_samples)]
    a = TwoPhaseDarcy().sample(grid, rngs)[0][:, 0]
    source = np.ones_like(a)
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        solution = solve_diffusion(a, source, grid)
        seconds.append((time.process_time() - start) / num_samples)
    ours = statistics.median(seconds)
    direct, references = zip(*(_solve_directly(each, grid) for each in a), strict=True)
    errors = [
        np.linalg.norm(u - reference) / np.linalg.norm(reference)
        for u, reference in zip(solution.values, references, strict=True)
    ]
    return [
        str(grid),
        f"{statistics.median(solution.iterations.tolist()):g}",
        f"{1e3 * ours:.2f}",
        f"{1e3 * statistics.median(direct):.1f}",
        f"{statistics.median(direct) / ours:.1f}",
        f"{max(errors):.1e}",
    ]


def _solve_directly(a: np.ndarray, grid: Grid) -> tuple[float, np.ndarray]:
    """Returns the seconds that spsolve takes and its solution."""
    matrix = assemble(a, grid)
    start = time.process_time()
    u = scipy.sparse.linalg.spsolve(matrix, np.ones(grid.size))
    return time.process_time() - start, u.reshape(grid.shape)


def assemble(a: np.ndarray, grid: Grid) -> Any:
    """Returns the matrix of -div(a grad u), a given as ``[*grid]`` at cells, u = 0 on the boundary.

    Written without the operator it is compared with: differences across all faces, times the
    faces' coefficients, times the transposed differences.
    """
    eyes = [scipy.sparse.eye_array(n) for n in grid.shape]
    total: Any = 0
    for axis, (n, h) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
        difference = scipy.sparse.diags_array([1.0, -1.0], offsets=[0, -1], shape=(n + 1, n)) / h
        factors: list[Any] = [*eyes[:axis], difference, *eyes[axis + 1 :]]
        gradient = reduce(lambda left, right: scipy.sparse.kron(left, right), factors)
        inverse = 1 / np.moveaxis(a, axis, 0)
        resistance = np.concatenate(
            [inverse[:1] / 2, (inverse[:-1] + inverse[1:]) / 2, inverse[-1:] / 2]
        )
        conductance = scipy.sparse.diags_array(1 / np.moveaxis(resistance, 0, axis).ravel())
        total = total + gradient.T @ conductance @ gradient
    return scipy.sparse.csc_array(total)


if __name__ == "__main__":
    main()
