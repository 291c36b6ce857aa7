"""Runs of several methods, gathered by what they were told, and compared."""

import json
import math
import re
import statistics
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.analysis import CostRecord
from multigrid.report.record import RunRecord

Groups = dict[str, list[RunRecord]]

# What a comparison takes for granted, and what it says of if it differs.
TERMS = {
    "data_fingerprint": "errors are of different samples",
    "machine": "times are of different machines",
    "threads": "times are of different numbers of threads",
    "precision": "times are of different precisions",
}
QUANTITIES = ("seconds", "work_units", "flops")
INDIFFERENT = ("name", "seed", "output")
SEED = re.compile(r"[-_.]?(seed|s)\d+$")


def gather(runs: Sequence[RunRecord]) -> Groups:
    """Gathers runs of equal networks whose configurations differ in name, seed and folder only."""
    by_settings: dict[str, list[RunRecord]] = {}
    for run in runs:
        settings = run.config.model_dump()
        kept = {key: value for key, value in settings.items() if key not in INDIFFERENT}
        key = json.dumps([kept, _network(run)], sort_keys=True)
        by_settings.setdefault(key, []).append(run)
    groups: Groups = {}
    for members in by_settings.values():
        name = SEED.sub("", members[0].config.name) or members[0].config.name
        if name in groups:  # other settings under the same name
            name = str(members[0].folder.path)
        groups[name] = members
    return groups


def summarise(
    name: str, runs: Sequence[RunRecord], baseline: Sequence[RunRecord]
) -> dict[str, Any]:
    """Returns median and spread over the runs of a method, and its speed-up.

    The speed-up is the baseline's cost to its own best error over this method's cost to the same
    error, each the median over seeds; None if fewer than half of the runs reach it.
    """
    costs, base = [_costs(run) for run in runs], [_costs(run) for run in baseline]
    target = best_error(baseline)
    tests = [run.summary["test"]["rel_l2"] for run in runs if run.is_finished]
    speed_up = {}
    for quantity in QUANTITIES:
        mine, theirs = (
            statistics.median(run.cost_to(target, quantity) for run in group)
            for group in (costs, base)
        )
        reached = math.isfinite(mine) and mine > 0 and math.isfinite(theirs)
        speed_up[quantity] = theirs / mine if reached else None
    return {
        "method": name,
        "runs": [str(run.folder.path) for run in runs],
        "seeds": [run.config.seed for run in runs],
        "best_validation": _spread([run.best for run in costs]),
        "test": _spread(tests) if tests else None,
        **{key: _spread([getattr(r.rows[-1], key) for r in costs]) for key in QUANTITIES},
        "speed_up": speed_up,
    }


def differing_terms(runs: Sequence[RunRecord]) -> list[str]:
    """Returns a sentence for each thing that is not the same for all finished runs."""
    summaries = [run.summary for run in runs if run.is_finished]
    notes = []
    for key, sentence in TERMS.items():
        values = sorted({str(summary.get(key)) for summary in summaries})
        if len(values) > 1:
            shown = "" if key == "data_fingerprint" else f" ({', '.join(values)})"
            notes.append(sentence + shown)
    unfinished = [str(run.folder.path) for run in runs if not run.is_finished]
    if unfinished:
        notes.append(f"unfinished, so not tested: {', '.join(unfinished)}")
    return notes


def _network(run: RunRecord) -> list[tuple[str, Sequence[int]]]:
    """Returns names and shapes of the coarsest network's tensors.

    A configuration says nothing of a user's own network; this is known from the first epoch on.
    """
    tensors = run.levels[0].tensors if run.levels else ()
    return [(t["key"], t["shape"]) for t in tensors if t["status"] != "UNUSED"]


def _costs(run: RunRecord) -> CostRecord:
    return CostRecord(run.config.name, run.config.seed, run.rows)


def best_error(baseline: Sequence[RunRecord]) -> float:
    """Returns the baseline's best error: the median over seeds, which at least half reach."""
    return statistics.median_high(_costs(run).best for run in baseline)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
