"""``python -m experiments.speedrun TARGET``: runs an entry, checks it and adds it to the record."""

import argparse
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from multigrid.cli import command
from multigrid.config import load_config
from multigrid.data import SPLITS
from multigrid.errors import UserError
from multigrid.files import write_text
from multigrid.hardware import has_fast_bfloat16, keep_large_buffers, machine
from multigrid.ladder.components import problem_and_source
from multigrid.registry import import_plugin
from multigrid.tables import si

RECORD = Path("results/benchmarks/speedrun.md")
HEADER = "| target | date | entry | machine | seconds | FLOPs | runs | error, mean (range) | p |"
Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Target:
    """Data, a metric of predictions, truth and training outputs, the error to reach, an entry."""

    experiment: Path
    metric: Metric
    error: float
    entry: Path


def scaled_rel_l1(prediction: np.ndarray, truth: np.ndarray, train: np.ndarray) -> float:
    """Returns the median relative L1 error in percent of fields scaled to [0, 1], as CNO does."""
    low, high = float(train.min()), float(train.max())
    p, u = ((x.astype(float) - low) / (high - low) for x in (prediction, truth))
    errors = np.abs(p - u).mean(axis=(1, 2, 3)) / np.abs(u).mean(axis=(1, 2, 3))
    return float(100 * np.median(errors))


def block_rel_l2(prediction: np.ndarray, truth: np.ndarray, train: np.ndarray) -> float:
    """Returns the mean relative L2 error over blocks of states."""
    error, size = (np.sqrt(np.sum(x**2, axis=(1, 2, 3))) for x in (prediction - truth, truth))
    return float(np.mean(error / size))


def _target(experiment: str, metric: Metric, error: float, entry: str) -> Target:
    file = Path("experiments") / f"{experiment}.yaml"
    return Target(file, metric, error, Path(__file__).parent / f"{entry}.py")


TARGETS = {
    "wave": _target("cno/wave", scaled_rel_l1, 0.63, "ladder"),
    "shear_layer": _target("cno/shear_layer", scaled_rel_l1, 2.76, "shear"),
    "navier_stokes": _target("navier_stokes_ten", block_rel_l2, 0.2193, "flow"),
}
"""The error for ``navier_stokes`` is FNO's in ``tables/20_minutes/navier_stokes_1e-5.json``."""


def run_entry(target: Target, entry: Path, num_runs: int) -> dict[str, list[float]]:
    """Trains an entry with seeds 0, 1, ... and returns seconds, FLOPs and errors of its runs.

    It gets copies of the samples. The error of a run that fails, or whose predictions are not
    real numbers of the right shape, is NaN, and its traceback is printed.
    """
    train = _train_function(entry)
    config = load_config(target.experiment)
    _, source = problem_and_source(config)
    grid, counts = (
        config.hierarchy().finest,
        {split: getattr(config.data, split) for split in SPLITS},
    )
    source.prepare(counts)
    samples = (source.read(split, grid, count) for split, count in counts.items())
    training, validation, test = ((x.inputs.numpy(), x.outputs.numpy()) for x in samples)
    runs: dict[str, list[float]] = {"seconds": [], "flops": [], "errors": []}
    for seed in range(num_runs):
        given = [tuple(x.copy() for x in pair) for pair in (training, validation)]
        seconds = flops = error = float("nan")
        started = time.perf_counter()
        try:
            predict = train(*given, seed)
            seconds = time.perf_counter() - started
            flops = float(getattr(predict, "flops", flops))
            prediction = _checked(predict(test[0].copy()), test[1])
            error = target.metric(prediction, test[1], training[1])
        except Exception:
            traceback.print_exc()
        for values, value in zip(runs.values(), (seconds, flops, error), strict=True):
            values.append(value)
        print(f"run {seed}: {seconds:.1f} s, error {error:.4g}")
    return runs


def _train_function(entry: Path) -> Callable[..., Any]:
    try:
        import_plugin(str(entry))
    except UserError as error:
        raise UserError(str(error).replace("plugins:", "--entry:", 1)) from None
    train = getattr(import_module(entry.stem), "train", None)
    if not callable(train):
        raise UserError(f"--entry: {entry}: has no function train(training, validation, seed)")
    return train


def _checked(given: object, truth: np.ndarray) -> np.ndarray:
    """Returns predictions as an array of real numbers in the shape of the truth."""
    prediction = np.asarray(given)
    if prediction.dtype.kind != "f" or prediction.shape != truth.shape:
        raise ValueError(
            f"predictions are {prediction.dtype} of shape {list(prediction.shape)}; real numbers "
            f"of shape {list(truth.shape)} are expected"
        )
    return prediction


def significance(errors: Sequence[float], limit: float) -> float:
    """Returns p of the mean error not being below the limit; NaN for one run."""
    if len(errors) < 2:
        return float("nan")
    if np.ptp(errors) == 0:
        return float(errors[0] >= limit)
    return float(ttest_1samp(errors, limit, alternative="less").pvalue)


def line(name: str, entry: Path, runs: dict[str, list[float]], limit: float) -> str:
    """Returns the record's line of an entry."""
    import torch

    errors, p = runs["errors"], significance(runs["errors"], limit)
    finite = ([x for x in runs[key] if np.isfinite(x)] for key in ("seconds", "flops"))
    seconds, flops = (statistics.median(values or [float("nan")]) for values in finite)
    reached = f"{statistics.mean(errors):.3g} ({min(errors):.3g} to {max(errors):.3g})"
    if failed := sum(map(np.isnan, errors)):
        reached = f"{failed} of {len(errors)} failed"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = "fast bfloat16" if has_fast_bfloat16(device) else "no fast bfloat16"
    computer = f"{machine(device)}, {precision}, {torch.get_num_threads()} thread(s)"
    verdict = f"{p:.2g}" + ("" if p < 0.01 else " (does not count)")
    cells = [
        f"{name} ({limit:g})",
        time.strftime("%Y-%m-%d"),
        entry.as_posix(),
        computer,
        f"{seconds:.1f}",
        "-" if np.isnan(flops) else si(flops),
        str(len(errors)),
        reached,
        verdict,
    ]
    return f"| {' | '.join(cells)} |"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("target", choices=list(TARGETS))
    parser.add_argument(
        "--entry", type=Path, help="its Python file; if none is given, ours for the target"
    )
    parser.add_argument("--runs", type=int, default=5, help="how many, with seeds 0, 1, ...")


@command(add_arguments, examples=("wave", "wave --entry experiments/speedrun/ladder.py --runs 5"))
def speedrun(options: argparse.Namespace) -> None:
    """Trains an entry to a fixed error and adds it to the record; README.md has the rules."""
    keep_large_buffers()
    target = TARGETS[options.target]
    if options.runs < 1:
        raise UserError(f"--runs: {options.runs} is not allowed; it must be at least 1")
    entry = (options.entry or target.entry).resolve()
    entry = entry.relative_to(Path.cwd()) if entry.is_relative_to(Path.cwd()) else entry
    added = line(options.target, entry, run_entry(target, entry, options.runs), target.error)
    rule = "|" + "---|" * HEADER.count(" | ") + "---|"
    text = RECORD.read_text() if RECORD.exists() else f"{HEADER}\n{rule}\n"
    write_text(RECORD, f"{text}{added}\n")
    print(f"{HEADER}\n{rule}\n{added}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status, as :meth:`Command.main` does."""
    return speedrun.main(arguments, "python -m experiments.speedrun")


if __name__ == "__main__":
    sys.exit(main())
