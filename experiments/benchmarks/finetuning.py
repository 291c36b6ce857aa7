"""Finetuning across problems: its ways side by side on few samples, after Poisson's equation."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.benchmarks.speedup import finished_run
from multigrid.config import load_config
from multigrid.files import write_json, write_text
from multigrid.plots.style import COLOURS, save_figure, tidy
from multigrid.tables import si, table

PRETRAINING = "experiments/poisson_two_phase.yaml"
EXPERIMENT = "experiments/poisson_to_darcy.yaml"
RATES = (4e-3, 8e-3, 1.6e-2)
SEEDS = (0, 1, 2)

# Samples and epochs; some make about as many steps as others, from 8 to 240.
BUDGETS = ((32, 2), (32, 4), (128, 1), (32, 10), (128, 3), (512, 1), (32, 60), (128, 15), (512, 4))
SEARCHED = (32, 10)
# epochs at which scales unfreeze, by the number of epochs
UNFREEZE = {
    60: "[0,6,12,18]",
    15: "[0,2,3,5]",
    10: "[0,1,2,3]",
    4: "[0,1,2]",
    3: "[0,1,2]",
    2: "[0,1]",
    1: "[0]",
}
INNER = "transfer.rules=[{pattern: [scales.0, scales.1, scales.2, scales.3], freeze: true}]"
WAYS = {
    "scratch": ("from scratch", ["checkpoints.load=null"]),
    "full": ("full finetuning", []),
    "frozen": ("inner scales frozen", [INNER]),
    "gradual": ("gradual unfreezing", ["transfer.mode=gradual"]),
}
"""Ways of training on few samples: a label and settings."""


def compare(folder: Path) -> str:
    """Runs whatever is missing, writes table, record and figure, and returns the table.

    All runs are kept in the folder, so that an interrupted comparison goes on. Each way has as many
    steps at a given number of samples, so that none does more work than training from scratch;
    those with frozen parts do less. The learning rate of each way is the best of three on 32
    samples and 10 epochs with the first seed, by the validation error. Errors are medians over the
    seeds of initialisation, order and augmentation; the samples are the same.
    """
    before = _train(PRETRAINING, ["name=pretrained"], folder)
    (weights,) = (folder / "runs" / "pretrained").glob("level_2_*/best.pt")
    records = [record for way in WAYS for record in _records(way, weights, folder)]
    records.sort(key=lambda record: (record["samples"], record["epochs"]))
    text = (
        f"{_table(records)}\n\npre-training on Poisson's equation: {si(before['flops'])}FLOPs, "
        "once, not counted above"
    )
    write_json(folder / "summary.json", {"pretraining": before, "runs": records})
    write_text(folder / "table.txt", text + "\n")
    save_figure(_draw(records), folder / "figure.png")
    return text


def _records(way: str, weights: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Yields what a way reaches with each number of samples and epochs, at its best rate."""
    label, settings = WAYS[way]

    def run(num_samples: int, epochs: int, rate: float, seed: int) -> dict[str, Any]:
        overrides = [
            f"name={way}_{num_samples}_{epochs}epochs_{rate:g}_seed{seed}",
            f"seed={seed}",
            f"data.train={num_samples}",
            f"schedule.epochs={epochs}",
            f"schedule.learning_rate={rate}",
            f"checkpoints.load={weights}",
            *settings,
        ]
        if way == "gradual":
            overrides.append(f"transfer.unfreeze={UNFREEZE[epochs]}")
        return _train(EXPERIMENT, overrides, folder)

    tried = {rate: run(*SEARCHED, rate, SEEDS[0])["levels"][0]["rel_l2"] for rate in RATES}
    rate = min(RATES, key=tried.__getitem__)
    for num_samples, epochs in BUDGETS:
        runs = [run(num_samples, epochs, rate, seed) for seed in SEEDS]
        tests = [run["test"]["rel_l2"] for run in runs]
        yield {
            "way": way,
            "label": label,
            "samples": num_samples,
            "epochs": epochs,
            "rate": rate,
            "seeds": SEEDS,
            "tests": tests,
            "test": statistics.median(tests),
            "flops": runs[0]["flops"],
            "seconds": statistics.median(run["seconds"] for run in runs),
        }


def _train(experiment: str, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """Returns the summary of a run, from disk if it is finished."""
    config = load_config(experiment, [*overrides, f"output.folder={folder / 'runs'}"])
    return finished_run(config).summary


def _table(records: Sequence[dict[str, Any]]) -> str:
    scratch = {(r["samples"], r["epochs"]): r["test"] for r in records if r["way"] == "scratch"}
    rows = [
        [
            str(record["samples"]),
            str(record["epochs"]),
            record["label"],
            f"{record['rate']:g}",
            si(record["flops"]),
            f"{100 * record['test']:.2f}",
            f"{100 * min(record['tests']):.2f}-{100 * max(record['tests']):.2f}",
            f"{record['test'] / scratch[record['samples'], record['epochs']]:.2f}",
        ]
        for record in records
    ]
    header = ["Samples", "Epochs", "Way", "Rate", "FLOPs", "Test L2 [%]", "Seeds", "Over scratch"]
    return table(header, rows)


def _draw(records: Sequence[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    counts = sorted({record["samples"] for record in records})
    axes = figure.subplots(1, len(counts), sharey=True)
    for axis, num_samples in zip(axes, counts, strict=True):
        for colour, (way, (label, _)) in zip(COLOURS, WAYS.items(), strict=False):
            found = [r for r in records if (r["way"], r["samples"]) == (way, num_samples)]
            cost, error = zip(*((r["flops"], r["test"]) for r in found), strict=True)
            low, high = zip(*((min(r["tests"]), max(r["tests"])) for r in found), strict=True)
            axis.plot(cost, error, "o-", color=colour, label=label)
            axis.fill_between(cost, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.set(xscale="log", yscale="log", title=f"{num_samples} Darcy samples, 64x64")
        axis.set_xlabel("floating-point operations")
        tidy(axis)
    axes[0].set_ylabel("test error at the end of a run\n(mean relative L2)")
    axes[0].legend(frameon=False, fontsize=8)
    return figure
