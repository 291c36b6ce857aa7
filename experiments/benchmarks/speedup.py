"""Runs the methods of a suite side by side and writes down what they cost."""

import csv
import io
import json
import logging
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from experiments.benchmarks.analysis import CostRecord, SpeedUp, speed_ups
from experiments.benchmarks.figures import plot_speed_up
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.suites import DIRECT, Method, Suite
from multigrid.config import Config, load_config
from multigrid.data.generation import Block, Recipe
from multigrid.errors import UserError
from multigrid.files import write_json, write_text
from multigrid.ladder.experiment import Experiment, Extensions
from multigrid.ladder.ladder import LadderRun
from multigrid.ladder.results import summarise
from multigrid.models.growth import NetworkFactory
from multigrid.records.history import Row, read_history
from multigrid.records.run_folder import RunFolder
from multigrid.run import failures_explained
from multigrid.tables import si, table
from multigrid.training.trainer import DivergedError

log = logging.getLogger("multigrid")

SLACK = 1.1
"""How much longer than the ladder runs of equal time may have taken, as they end with an epoch."""


class SuiteRun:
    """All runs of a suite, kept in one folder so that an interrupted suite goes on.

    Args:
        suite: The suite.
        folder: Where its runs and its record go.
    """

    def __init__(self, suite: Suite, folder: Path) -> None:
        self.suite = suite
        self.folder = folder
        self.summaries: dict[str, dict[str, Any]] = {}
        self.rates: dict[str, float] = {}

    def run(self) -> str:
        """Runs whatever is missing, writes the record and returns it as a table."""
        records = []
        for seed in self.suite.seeds:
            for method in self.suite.methods:
                if method.rates and method.name not in self.rates:
                    self.rates[method.name] = self._search(method)
                rows = self._run(method, seed, f"{method.name}_seed{seed}")
                records.append(CostRecord(method.name, seed, rows))
        self._check_comparable()
        return self._write(records)

    def _search(self, method: Method) -> float:
        """Returns the learning rate with the lowest error at the end of a smaller budget.

        A rate at which training diverges counts as infinitely bad, and is not tried again when the
        suite goes on.
        """
        errors = {}
        for rate in method.rates:
            name = f"{method.name}_rate{rate:g}"
            overrides = (
                *method.search_overrides,
                f"schedule.learning_rate={rate}",
                "recovery.tries=0",
            )
            errors[rate] = math.inf
            diverged = self.folder / "runs" / name / "diverged.txt"
            if diverged.exists():
                continue
            try:
                rows = self._run(method, self.suite.seeds[0], name, overrides)
                errors[rate] = rows[-1].val_finest_rel_l2
            except DivergedError as error:
                write_text(diverged, f"{error}\n")
        return min(errors, key=errors.__getitem__)

    def _run(
        self, method: Method, seed: int, name: str, extra: Sequence[str] = ()
    ) -> Sequence[Row]:
        """Returns the history of a run, from disk if it is finished."""
        overrides = [f"name={name}", f"seed={seed}"]
        overrides.append(f"output.folder={self.folder / 'runs'}")
        if method.equal_time:
            ladder = self.summaries[f"{self.suite.methods[0].name}_seed{seed}"]
            budget = f"schedule.budget={{seconds: {ladder['seconds']:.1f}}}"
            overrides += ["schedule.epochs=auto", budget]
        if not extra and method.name in self.rates:
            overrides.append(f"schedule.learning_rate={self.rates[method.name]}")
        config = self._config(method, *overrides, *extra)
        folder = RunFolder(self.folder / "runs" / name)
        if folder.summary.exists():
            folder.check(config, resume=True, overwrite=False)
        else:
            train_without_report(config, folder, PEERS[method.network] if method.network else None)
        self.summaries[name] = json.loads(folder.summary.read_text())
        return read_history(folder.metrics)

    def _config(self, method: Method, *extra: str) -> Config:
        overrides = (*self.suite.overrides, *method.overrides, *extra)
        return load_config(self.suite.experiment, overrides)

    def _check_comparable(self) -> None:
        """Raises an error that says what differs if runs are not on equal terms."""
        keys = ("device", "threads", "torch", "machine")
        for key in keys if self.suite.grids_differ else ("data_fingerprint", *keys):
            values = {json.dumps(summary[key]) for summary in self.summaries.values()}
            if len(values) > 1:
                runs = {
                    value: next(n for n, s in self.summaries.items() if json.dumps(s[key]) == value)
                    for value in values
                }
                differences = ", ".join(f"{run}: {value}" for value, run in runs.items())
                raise UserError(
                    f"{self.folder}: these runs cannot be compared, as '{key}' differs "
                    f"({differences}); remove the runs that do not belong"
                )

    def _write(self, records: Sequence[CostRecord]) -> str:
        methods = {method.name: method for method in self.suite.methods}
        by_method = {name: [r for r in records if r.method == name] for name in methods}
        ladder = self.suite.methods[0].name
        ups = speed_ups(by_method[ladder], by_method[DIRECT]) if DIRECT in by_method else []
        budget = statistics.median(run.rows[-1].seconds for run in by_method[ladder])
        text = f"{_method_table(by_method, budget, self.rates)}\n"
        if ups:
            text = f"{_speed_table(ups)}\n\n{text}"
        elif not any(method.equal_time for method in self.suite.methods):
            text = f"{_cost_table(by_method)}\n\n{text}"
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_rows(self.folder / "runs.csv", records)
        first = self.summaries[f"{ladder}_seed{self.suite.seeds[0]}"]
        write_json(
            self.folder / "summary.json",
            {
                "suite": asdict(self.suite),
                "searched_rates": self.rates,
                "environment": {key: first[key] for key in ("machine", "torch", "threads")},
                "precision": first["precision"],
                "data_fingerprint": first["data_fingerprint"],
                "generation": generation_cost(self._config(self.suite.methods[0])),
                "speed_up": [asdict(up) for up in ups],
                "test_rel_l2": {n: s["test"]["rel_l2"] for n, s in self.summaries.items()},
                "extra_tests_rel_l2": {
                    n: {test: errors["rel_l2"] for test, errors in s["extra_tests"].items()}
                    for n, s in self.summaries.items()
                },
            },
        )
        write_text(self.folder / "table.txt", text)
        labels = {name: method.label for name, method in methods.items()}
        plot_speed_up(by_method, labels, ups[0] if ups else None, self.folder / "speedup.png")
        return text


def train_without_report(
    config: Config, folder: RunFolder, network: NetworkFactory | None = None
) -> None:
    """Trains a ladder, or goes on where it stopped, and writes its summary."""
    with failures_explained(folder), folder.lock:
        folder.occupy(config, resume=True, overwrite=False)
        resume = folder.config.exists()
        experiment = Experiment(config, Extensions(network=network), resumed=resume)
        if not resume:
            folder.claim(experiment.config, overwrite=False)
        log.info("--- %s%s", config.name, " (resumed)" if resume else "")
        run = LadderRun(experiment, folder)
        run.train(resume)
        write_json(folder.summary, summarise(run.recorder, run.tested))


def generation_cost(config: Config, count: int = 4) -> dict[str, float]:
    """Returns what generating all samples of an experiment costs on one core, by making a few."""
    recipe = Recipe(config.pde(), config.hierarchy().finest, config.data.seed)
    started = time.perf_counter()
    recipe.make(Block("train", 0, count))
    seconds = (time.perf_counter() - started) / count
    data = config.data
    samples = data.train + data.validation + data.test * (1 + len(data.extra_tests))
    return {"samples": samples, "seconds_each": seconds, "seconds": samples * seconds}


def _write_rows(path: Path, records: Sequence[CostRecord]) -> None:
    text = io.StringIO(newline="")
    names = ["method", "seed", *(field.name for field in fields(Row))]
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    for record in records:
        for row in record.rows:
            writer.writerow({"method": record.method, "seed": record.seed, **asdict(row)})
    write_text(path, text.getvalue())


def _speed_table(ups: Sequence[SpeedUp]) -> str:
    rows = [
        [
            f"{up.factor:g}",
            f"{up.error:.4f}",
            f"{up.seconds:.1f}x",
            f"{up.flops:.1f}x",
            f"{up.seconds_finest:.1f}x",
            f"{up.flops_finest:.1f}x",
            f"{up.num_reached} of {up.num_seeds}",
        ]
        for up in ups
    ]
    header = ["Times direct's best", "Error", "Time", "FLOPs", "Time, finest", "FLOPs, finest"]
    header.append("Reached")
    return table(header, rows)


def _cost_table(by_method: dict[str, list[CostRecord]]) -> str:
    """Returns what each method costs to an error that all of them reach."""
    error = max(run.best for runs in by_method.values() for run in runs)
    rows = []
    for name, runs in by_method.items():
        cost = {
            quantity: statistics.median(run.cost_to(error, quantity) for run in runs)
            for quantity in ("seconds", "work_units", "flops")
        }
        rows.append(
            [name, f"{cost['seconds']:.1f}", f"{cost['work_units']:.2f}", si(cost["flops"])]
        )
    return table([f"To {error:.4f}", "Seconds", "Work units", "FLOPs"], rows)


def _method_table(
    by_method: dict[str, list[CostRecord]], budget: float, rates: dict[str, float]
) -> str:
    rows = []
    for name, runs in by_method.items():
        last = [run.rows[-1] for run in runs]
        rows.append(
            [
                name,
                str(len(runs)),
                f"{rates[name]:g}" if name in rates else "-",
                f"{statistics.median(row.seconds for row in last):.0f}",
                f"{statistics.median(row.work_units for row in last):.2f}",
                f"{statistics.median(run.best for run in runs):.4f}",
                f"{statistics.median(run.error_at(SLACK * budget) for run in runs):.4f}",
            ]
        )
    header = [
        "Method",
        "Runs",
        "Rate",
        "Seconds",
        "Work",
        "Best error",
        f"Within {SLACK * budget:.0f} s",
    ]
    return table(header, rows)
