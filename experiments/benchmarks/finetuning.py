"""Finetuning across problems: its ways side by side on few samples, after Poisson's equation."""

import json
import logging
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.benchmarks.speedup import train_without_report
from multigrid.config import load_config
from multigrid.files import write_json, write_text
from multigrid.plots.style import COLOURS, save_figure, tidy
from multigrid.records.run_folder import RunFolder
from multigrid.tables import si, table

log = logging.getLogger("multigrid")

PRETRAINING = "experiments/poisson_two_phase.yaml"
EXPERIMENT = "experiments/poisson_to_darcy.yaml"
RATES = (4e-3, 8e-3, 1.6e-2)
SEEDS = (0, 1, 2)

# The number of samples with epochs that make about as many steps: from 8 to 240.
BUDGETS = ({32: 2}, {32: 4, 128: 1}, {32: 10, 128: 3, 512: 1}, {32: 60, 128: 15, 512: 4})
SEARCHED = (32, 10)
UNFREEZE = {
    60: "[0,6,12,18]",
    15: "[0,2,3,5]",
    10: "[0,1,2,3]",
    4: "[0,1,2]",
    3: "[0,1,2]",
    2: "[0,1]",
    1: "[0]",
}


@dataclass(frozen=True)
class Way:
    """A way of training on few samples.

    Attributes:
        name: Short name, for folders.
        label: What it is.
        overrides: Settings ``key=value``.
    """

    name: str
    label: str
    overrides: tuple[str, ...] = ()


WAYS = (
    Way("scratch", "from scratch", ("checkpoints.load=null",)),
    Way("full", "full finetuning"),
    Way(
        "frozen",
        "inner scales frozen",
        ("transfer.rules=[{pattern: [scales.0, scales.1, scales.2, scales.3], freeze: true}]",),
    ),
    Way("gradual", "gradual unfreezing", ("transfer.mode=gradual",)),
)


class FinetuningComparison:
    """All runs of the comparison, kept in one folder so that an interrupted one goes on.

    Each way has as many steps at a given number of samples, so that none does more work than
    training from scratch; those with frozen parts do less. The learning rate of each way is the
    best of three on 32 samples and 10 epochs with the first seed, by the validation error. Errors
    are medians over the seeds of initialisation, order and augmentation; the samples are the same.

    Args:
        folder: Where runs and record go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self) -> str:
        """Runs whatever is missing, writes table, record and figure, and returns the table."""
        before = self._train(PRETRAINING, ["name=pretrained"])
        (weights,) = (self.folder / "runs" / "pretrained").glob("level_2_*/best.pt")
        records = [record for way in WAYS for record in self._runs(way, weights)]
        records.sort(key=lambda record: (record["samples"], record["epochs"]))
        text = self._table(records, before)
        write_json(self.folder / "summary.json", {"pretraining": before, "runs": records})
        write_text(self.folder / "table.txt", text + "\n")
        self._draw(records)
        return text

    def _runs(self, way: Way, weights: Path) -> Iterator[dict[str, Any]]:
        tried = {
            rate: self._finetune(way, *SEARCHED, rate, SEEDS[0], weights)["levels"][0]["rel_l2"]
            for rate in RATES
        }
        rate = min(RATES, key=lambda rate: tried[rate])
        for budget in BUDGETS:
            for num_samples, epochs in budget.items():
                runs = [
                    self._finetune(way, num_samples, epochs, rate, seed, weights) for seed in SEEDS
                ]
                tests = [run["test"]["rel_l2"] for run in runs]
                yield {
                    "way": way.name,
                    "label": way.label,
                    "samples": num_samples,
                    "epochs": epochs,
                    "rate": rate,
                    "seeds": SEEDS,
                    "tests": tests,
                    "test": statistics.median(tests),
                    "flops": runs[0]["flops"],
                    "seconds": statistics.median(run["seconds"] for run in runs),
                }

    def _finetune(
        self, way: Way, num_samples: int, epochs: int, rate: float, seed: int, weights: Path
    ) -> dict[str, Any]:
        """Returns the summary of a run."""
        overrides = [
            f"name={way.name}_{num_samples}_{epochs}epochs_{rate:g}_seed{seed}",
            f"seed={seed}",
            f"data.train={num_samples}",
            f"schedule.epochs={epochs}",
            f"schedule.learning_rate={rate}",
            f"checkpoints.load={weights}",
            *way.overrides,
        ]
        if way.name == "gradual":
            overrides.append(f"transfer.unfreeze={UNFREEZE[epochs]}")
        return self._train(EXPERIMENT, overrides)

    def _train(self, experiment: str, overrides: Sequence[str]) -> dict[str, Any]:
        """Returns the summary of a run, from disk if it is finished."""
        config = load_config(experiment, [*overrides, f"output.folder={self.folder / 'runs'}"])
        folder = RunFolder(self.folder / "runs" / config.name)
        if folder.summary.exists():
            folder.check(config, resume=True, overwrite=False)
        else:
            train_without_report(config, folder)
        return json.loads(folder.summary.read_text())

    @staticmethod
    def _table(records: Sequence[dict[str, Any]], before: dict[str, Any]) -> str:
        rows = []
        for record in records:
            scratch = next(
                other
                for other in records
                if other["way"] == "scratch"
                and (other["samples"], other["epochs"]) == (record["samples"], record["epochs"])
            )
            rows.append(
                [
                    str(record["samples"]),
                    str(record["epochs"]),
                    record["label"],
                    f"{record['rate']:g}",
                    si(record["flops"]),
                    f"{100 * record['test']:.2f}",
                    f"{100 * min(record['tests']):.2f}-{100 * max(record['tests']):.2f}",
                    f"{record['test'] / scratch['test']:.2f}",
                ]
            )
        header = [
            "Samples",
            "Epochs",
            "Way",
            "Rate",
            "FLOPs",
            "Test L2 [%]",
            "Seeds",
            "Over scratch",
        ]
        return (
            f"{table(header, rows)}\n\npre-training on Poisson's equation: "
            f"{si(before['flops'])}FLOPs, once, not counted above"
        )

    def _draw(self, records: Sequence[dict[str, Any]]) -> None:
        figure = Figure(figsize=(12, 4.2), layout="constrained")
        counts = sorted({record["samples"] for record in records})
        axes = figure.subplots(1, len(counts), sharey=True)
        for axis, num_samples in zip(axes, counts, strict=True):
            for colour, way in zip(COLOURS, WAYS, strict=False):
                key = (way.name, num_samples)
                found = [r for r in records if (r["way"], r["samples"]) == key]
                cost, error = zip(*((r["flops"], r["test"]) for r in found), strict=True)
                low, high = zip(*((min(r["tests"]), max(r["tests"])) for r in found), strict=True)
                axis.plot(cost, error, "o-", color=colour, label=way.label)
                axis.fill_between(cost, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.set(xscale="log", yscale="log", title=f"{num_samples} Darcy samples, 64x64")
            axis.set_xlabel("floating-point operations")
            tidy(axis)
        axes[0].set_ylabel("test error at the end of a run\n(mean relative L2)")
        axes[0].legend(frameon=False, fontsize=8)
        save_figure(figure, self.folder / "figure.png")
