"""Runs the methods of a suite side by side and writes down what they cost."""

import csv
import io
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from experiments.benchmarks.analysis import CostRecord, SpeedUp, plot_speed_up, speed_ups
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.suites import DIRECT, Method, Suite
from multigrid.config import Config, load_config
from multigrid.data.generation import Block, Recipe
from multigrid.errors import UserError
from multigrid.files import write_json, write_text
from multigrid.ladder.components import problem_and_source, some_samples
from multigrid.ladder.experiment import Extensions
from multigrid.ladder.prospects import measure_floors
from multigrid.models.growth import NetworkFactory
from multigrid.plots.style import save_figure
from multigrid.records.history import Row
from multigrid.records.run_folder import RunFolder
from multigrid.report.record import RunRecord
from multigrid.run import train_ladder
from multigrid.tables import si, table
from multigrid.training.trainer import DivergedError

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
        network = PEERS[method.network] if method.network else None
        run = finished_run(self._config(method, *overrides, *extra), network)
        self.summaries[name] = run.summary
        return run.rows

    def _config(self, method: Method, *extra: str) -> Config:
        overrides = (*self.suite.overrides, *method.overrides, *extra)
        return load_config(self.suite.experiment, overrides)

    def _check_comparable(self) -> None:
        """Raises an error that says what differs if runs are not on equal terms."""
        keys = ("device", "threads", "torch", "machine")
        for key in keys if self.suite.grids_differ else ("data_fingerprint", *keys):
            runs = {json.dumps(summary[key]): run for run, summary in self.summaries.items()}
            if len(runs) > 1:
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
        config = self._config(self.suite.methods[0])
        floors = _floors(config)
        listed = ", ".join(f"{grid} {floor:.2g}" for grid, floor in floors.items())
        text = f"{self._method_table(by_method, budget)}\n\nOutput floors: {listed}\n"
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
                "generation": generation_cost(config),
                "speed_up": [asdict(up) for up in ups],
                "output_floors": floors,
                "test_rel_l2": {n: s["test"]["rel_l2"] for n, s in self.summaries.items()},
                "test_rel_l2_high": {n: _high_third(s) for n, s in self.summaries.items()},
                "rollout": {n: s["rollout"] for n, s in self.summaries.items()},
                "extra_tests_rel_l2": {
                    n: {test: errors["rel_l2"] for test, errors in s["extra_tests"].items()}
                    for n, s in self.summaries.items()
                },
            },
        )
        write_text(self.folder / "table.txt", text)
        by_label = {method.label: by_method[name] for name, method in methods.items()}
        figure = plot_speed_up(by_label, ups[0] if ups else None, self.folder.name)
        save_figure(figure, self.folder / "speedup.png")
        return text

    def _method_table(self, by_method: dict[str, list[CostRecord]], budget: float) -> str:
        """Returns what each method costs and reaches, as medians over the seeds.

        The last columns are errors on the test samples: that in the highest third of the spectrum
        over the norm of the whole field, and after the last step of roll-outs, where there are any.
        """
        header = ["Method", "Runs", "Rate", "Seconds", "Work", "Best error"]
        header += [f"Within {SLACK * budget:.0f} s", "High third"]
        num_steps = max(len(summary["rollout"]) for summary in self.summaries.values())
        header += [f"After {num_steps} steps"] * (num_steps > 0)
        rows = []
        for name, runs in by_method.items():
            last = [run.rows[-1] for run in runs]
            summaries = [self.summaries[f"{run.method}_seed{run.seed}"] for run in runs]
            row = [
                name,
                str(len(runs)),
                f"{self.rates[name]:g}" if name in self.rates else "-",
                f"{statistics.median(row.seconds for row in last):.0f}",
                f"{statistics.median(row.work_units for row in last):.2f}",
                f"{statistics.median(run.best for run in runs):.4f}",
                f"{statistics.median(run.error_at(SLACK * budget) for run in runs):.4f}",
                f"{statistics.median(map(_high_third, summaries)):.4f}",
            ]
            if num_steps:
                row.append(f"{statistics.median(s['rollout'][-1] for s in summaries):.4f}")
            rows.append(row)
        return table(header, rows)


def _high_third(summary: dict[str, Any]) -> float:
    error: float = summary["test"]["rel_l2_high"]
    return error


def _floors(config: Config) -> dict[str, float]:
    """Returns the output floors of the levels, see ``multigrid floors``."""
    _, source = problem_and_source(config)
    floors = measure_floors(config, some_samples(config, source))
    return {str(floor.grid): floor.output for floor in floors}


def finished_run(config: Config, network: NetworkFactory | None = None) -> RunRecord:
    """Returns the run of a configuration; it is trained, or goes on, unless it is finished."""
    folder = RunFolder(Path(config.output.folder) / config.name)
    if folder.summary.exists():
        folder.check(config, resume=True, overwrite=False)
    else:
        print("---", config.name, flush=True)
        train_ladder(config, resume=True, extensions=Extensions(network=network))
    return RunRecord(folder)


def generation_cost(config: Config, count: int = 4) -> dict[str, float]:
    """Returns what generating all samples of an experiment costs on one core, by making a few."""
    recipe = Recipe(config.pde(), config.hierarchy().finest, config.data.seed)
    recipe.make(Block("train", 0, 1))  # so that what is done once is not counted
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
    rows = []
    for up in ups:
        ratios = up.seconds, up.flops, up.seconds_finest, up.flops_finest
        cells = [f"{up.factor:g}", f"{up.error:.4f}", *(f"{ratio:.1f}x" for ratio in ratios)]
        rows.append([*cells, f"{up.num_reached} of {up.num_seeds}"])
    header = ["Times direct's best", "Error", "Time", "FLOPs", "Time, finest", "FLOPs, finest"]
    return table([*header, "Reached"], rows)


def _cost_table(by_method: dict[str, list[CostRecord]]) -> str:
    """Returns what each method costs to an error that all of them reach."""
    error = max(run.best for runs in by_method.values() for run in runs)
    rows = []
    for name, runs in by_method.items():
        seconds, work, flops = (
            statistics.median(run.cost_to(error, quantity) for run in runs)
            for quantity in ("seconds", "work_units", "flops")
        )
        rows.append([name, f"{seconds:.1f}", f"{work:.2f}", si(flops)])
    return table([f"To {error:.4f}", "Seconds", "Work units", "FLOPs"], rows)
