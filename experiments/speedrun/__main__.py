"""``python -m experiments.speedrun TARGET``: runs an entry, checks it and adds it to the record."""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from scipy.stats import ttest_1samp

from multigrid.cli import command
from multigrid.config import load_config
from multigrid.data import SPLITS
from multigrid.errors import UserError
from multigrid.files import read_json, write_text
from multigrid.hardware import keep_large_buffers
from multigrid.ladder.components import problem_and_source
from multigrid.registry import import_plugin
from multigrid.tables import si

RECORD = Path("results/benchmarks/speedrun.md")
FNO_RECORD = Path("results/benchmarks/tables/20_minutes/navier_stokes_1e-5.json")
HEADER = "| target | date | entry | machine | seconds | FLOPs | runs | error, mean (range) | p |"
Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Target:
    """Data, a metric of predictions, truth and training outputs, and the error to reach."""

    experiment: Path
    metric: Metric
    error: float | None


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


TARGETS = {
    "wave": Target(Path("experiments/cno/wave.yaml"), scaled_rel_l1, 0.63),
    "shear_layer": Target(Path("experiments/cno/shear_layer.yaml"), scaled_rel_l1, 2.76),
    "navier_stokes": Target(Path("experiments/navier_stokes_ten.yaml"), block_rel_l2, None),
}


def run_entry(target: Target, entry: Path, num_runs: int) -> dict[str, list[float]]:
    """Trains an entry with seeds 0, 1, ... and returns seconds, FLOPs and errors of its runs."""
    import_plugin(str(entry))
    train = import_module(entry.stem).train
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
        started = time.perf_counter()
        predict = train(training, validation, seed)
        runs["seconds"].append(time.perf_counter() - started)
        runs["flops"].append(float(getattr(predict, "flops", float("nan"))))
        prediction = np.asarray(predict(test[0]))
        runs["errors"].append(target.metric(prediction, test[1], training[1]))
        print(f"run {seed}: {runs['seconds'][-1]:.1f} s, error {runs['errors'][-1]:.4g}")
    return runs


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
    flops = statistics.median(runs["flops"])
    machine = f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} thread(s)"
    verdict = f"{p:.2g}" + ("" if p < 0.01 else " (does not count)")
    cells = [
        f"{name} ({limit:g})",
        time.strftime("%Y-%m-%d"),
        entry.as_posix(),
        machine,
        f"{statistics.median(runs['seconds']):.1f}",
        "-" if np.isnan(flops) else si(flops),
        str(len(errors)),
        f"{statistics.mean(errors):.3g} ({min(errors):.3g} to {max(errors):.3g})",
        verdict,
    ]
    return f"| {' | '.join(cells)} |"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("target", choices=list(TARGETS))
    parser.add_argument(
        "--entry", type=Path, default=Path(__file__).parent / "ladder.py", help="its Python file"
    )
    parser.add_argument("--runs", type=int, default=5, help="how many, with seeds 0, 1, ...")


@command(add_arguments, examples=("wave", "wave --entry experiments/speedrun/ladder.py --runs 5"))
def speedrun(options: argparse.Namespace) -> None:
    """Trains an entry to a fixed error and adds it to the record; README.md has the rules."""
    keep_large_buffers()
    target = TARGETS[options.target]
    limit = target.error
    if limit is None:
        if not FNO_RECORD.exists():
            raise UserError(
                f"target: the error of '{options.target}' is FNO's in {FNO_RECORD}, which is not "
                "there; `python -m experiments.benchmarks tables navier_stokes_1e-5` makes it"
            )
        limit = float(read_json(FNO_RECORD)["methods"]["fno"]["block_rel_l2"])
    if options.runs < 1:
        raise UserError(f"--runs: {options.runs} is not allowed; it must be at least 1")
    entry = options.entry.resolve()
    entry = entry.relative_to(Path.cwd()) if entry.is_relative_to(Path.cwd()) else entry
    added = line(options.target, entry, run_entry(target, entry, options.runs), limit)
    rule = "|" + "---|" * HEADER.count(" | ") + "---|"
    text = RECORD.read_text() if RECORD.exists() else f"{HEADER}\n{rule}\n"
    write_text(RECORD, f"{text}{added}\n")
    print(f"{HEADER}\n{rule}\n{added}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status, as :meth:`Command.main` does."""
    return speedrun.main(arguments, "python -m experiments.speedrun")


if __name__ == "__main__":
    sys.exit(main())
