"""Two settings of APEBench: our ladder, and its finest network alone for the same time.

``python -m experiments.benchmarks.apebench --minutes 10``. After Koehler et al. (arXiv:2411.00180)
and their program (github.com/tum-pbs/apebench, read in November 2026): ``phy_kolm_flow`` and
``phy_gs_type``, type theta, two-dimensional, 160 points along an axis. 50 trajectories of 50 steps
are trained on, 30 others are rolled out for 100. As theirs, training has no augmentation. What
differs: trajectories are from our solvers and seeds, Kolmogorov flow becomes turbulent on 64x64
points, and ten more trajectories serve for validation.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import resample
from scipy.stats import gmean

from experiments.benchmarks.speedup import finished_run
from multigrid.config import parse_config
from multigrid.errors import UserError
from multigrid.files import write_json, write_text
from multigrid.grid import Grid
from multigrid.problems.navier_stokes import NavierStokes
from multigrid.problems.periodic import GrayScott, SpectralPDE
from multigrid.tables import si, table

SIZE, WARM_UP_SIZE, WARM_UP_STEPS, NUM_STEPS = 160, 64, 500, 100
SPLITS = {"train": (50, 50), "validation": (10, 50), "test": (30, NUM_STEPS)}
"""Trajectories, and steps of each."""
PROBLEMS = {
    # in a box of length 2 pi their viscosity is 0.01
    "kolmogorov": NavierStokes(
        viscosity=1e-2 / (2 * np.pi) ** 2,
        forcing="kolmogorov",
        amplitude=4.0,
        wavenumber=4,
        drag=0.1,
        std=1.0,
        num_modes=5,
        time_step=0.1,
        substeps=10,
    ),
    "gray_scott": GrayScott(extent=2.5, feed=0.04, kill=0.06, time_step=20.0, substeps=20),
}
PUBLISHED = {"kolmogorov": {"UNet": 0.83, "FNO": 0.69}, "gray_scott": {"UNet": 0.07}}
"""Geometric mean over 100 steps of the nRMSE, read off a figure of the paper."""
METHODS = {"ladder": ([20, 40, 80, 160], "folded"), "direct": ([160], "restricted")}
"""Levels and fields."""
FOLDER = Path("results/benchmarks/apebench")


def first_state(name: str, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Draws a state ``[1, C, *grid]`` to start from."""
    problem = PROBLEMS[name]
    if name == "gray_scott":  # a spot of each chemical, wide and high as they like
        x, y = np.meshgrid(*grid.axes(), indexing="ij")
        spots = []
        for _ in range(2):
            centre, variance = rng.uniform(0.4, 0.6, 2), rng.uniform(0.005, 0.01, 2)
            exponent = (x - centre[0]) ** 2 / variance[0] + (y - centre[1]) ** 2 / variance[1]
            spots.append(np.exp(-exponent / 2))
        return np.stack([1 - spots[0], spots[1]])[None]
    coarse = _nodes(WARM_UP_SIZE)
    state = problem.first_states(coarse, [rng])
    state = problem._integrator(coarse).advance(state, WARM_UP_STEPS * problem.substeps)
    for axis, size in zip((2, 3), grid.shape, strict=True):
        state = resample(state, size, axis=axis)  # by Fourier series
    return state


def make_trajectories(name: str, split: str, path: Path) -> None:
    """Writes trajectories ``u [N, T, C, X, Y]``, unless the file is there."""
    if path.exists():
        return
    problem: SpectralPDE = PROBLEMS[name]
    grid, (count, num_steps) = _nodes(SIZE), SPLITS[split]
    integrator, states = problem._integrator(grid), []
    for number in range(count):
        rng = np.random.default_rng((0, list(SPLITS).index(split), number))
        state = first_state(name, grid, rng)
        for _ in range(num_steps + 1):
            states.append(state.astype(np.float32))
            state = integrator.advance(state, problem.substeps)
        print(f"{name}, {split}: {number + 1} of {count} trajectories", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    trajectories = np.concatenate(states).reshape(count, num_steps + 1, -1, SIZE, SIZE)
    np.savez(path, u=trajectories)


def _nodes(size: int) -> Grid:
    return Grid((size, size), "node", (1 / size, 1 / size))


def train(name: str, method: str, minutes: float) -> dict[str, Any]:
    """Trains for some minutes, unless that is done, and returns the run's summary."""
    files = {split: Path(f"data/apebench/{name}_{split}.npz") for split in SPLITS}
    for split, path in files.items():
        make_trajectories(name, split, path)
    levels, fields = METHODS[method]
    raw = {
        "name": f"{name}_{method}_{minutes:g}",
        "problem": {
            "kind": "file",
            "files": [{"file": str(path), "split": split} for split, path in files.items()],
            "input": "u",
            "output": "u",
            "axes": "N T C X Y",
        },
        "data": {
            **{split: count * num_steps for split, (count, num_steps) in SPLITS.items()},
            "centering": "cell",
            "rollout_steps": NUM_STEPS,
            "time": {"target": "delta"},
        },
        "model": {"width": 32, "padding": "periodic", "fields": fields},
        "schedule": {
            "epochs": "auto",
            "budget": {"seconds": 60 * minutes},
            "batch_size": 20,
            "learning_rate": 4e-3,
            "transferred_ratio": 1,
        },
        "transfer": {"new_scales": "copy"},
        "output": {"folder": str(FOLDER / "runs"), "figures": False},
        "levels": levels,
    }
    return finished_run(parse_config(raw)).summary


def compare(name: str, minutes: float) -> str:
    """Trains what is missing, writes a problem's record, ``.txt`` and ``.json``; returns its table.

    Errors are sums over the fields, as theirs; a mean over trajectories, and over steps where they
    take the geometric one.
    """
    rows, record, num_fields = [], {}, len(PROBLEMS[name].fields)
    for method in METHODS:
        try:
            summary = train(name, method, minutes)
        except UserError as reason:  # an epoch may take longer
            rows.append([f"{method}: {reason}"])
            continue
        errors = num_fields * np.array(summary["rollout"], dtype=float)
        still = num_fields * np.array(summary["rollout_persistence"], dtype=float)
        facts = {key: summary[key] for key in ("seconds", "flops", "machine", "threads")}
        facts["epochs"] = [stage["epochs"] for stage in summary["levels"]]
        facts["blow_up"] = summary["rollout_metrics"]["blow_up"]
        record[method] = {**facts, "nrmse": errors.tolist(), "persistence": still.tolist()}
        rows.append([method, *_cells(errors), f"{facts['blow_up']:.0%}"])
        rows[-1] += [f"{facts['seconds']:.0f}", si(facts["flops"])]
    if record:
        rows.append(["persistence", *_cells(still)])
    rows += [[f"{who}, published", f"{error:g}"] for who, error in PUBLISHED[name].items()]
    header = ["Method", "Mean of 100", "nRMSE 1", "10", "100", "Blow up", "Seconds", "FLOPs"]
    text = f"{name}\n{table(header, [row + [''] * (len(header) - len(row)) for row in rows])}"
    write_text(FOLDER / f"{name}.txt", f"{text}\n")
    write_json(FOLDER / f"{name}.json", record)
    return text


def _cells(errors: np.ndarray) -> list[str]:
    return [f"{e:.3g}" for e in (gmean(errors), errors[0], errors[9], errors[99])]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--minutes", type=float, default=10.0, help="of each training")
    options = parser.parse_args()
    print("\n\n".join(compare(name, options.minutes) for name in options.problems))
