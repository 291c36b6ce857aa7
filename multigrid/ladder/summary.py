"""``summary.json``: what a finished run gave, and on what."""

from typing import Any

import torch

from multigrid.hardware import machine, peak_memory
from multigrid.ladder.ladder_run import LadderRun
from multigrid.records.environment import code_version


def summarise(run: LadderRun) -> dict[str, Any]:
    """Returns what a run that has been tested gave, as plain containers."""
    experiment, ledger, last = run.experiment, run.ledger, run.ledger.rows[-1]
    return {
        "name": experiment.config.name,
        "network": experiment.family.kind,
        "levels": ledger.finished,
        "test": run.tested.errors,
        "test_by_field": run.tested.by_field,
        "negligible_fields": run.tested.negligible,
        "extra_tests": run.tested.extra,
        "rollout": run.tested.rollout,
        "events": run.folder.journal.read(),
        "seconds": last.seconds,
        "saving_seconds": ledger.saving_seconds,
        "saving_share": ledger.saving_seconds / last.seconds,
        "work_units": last.work_units,
        "flops": last.flops,
        "evaluation_seconds": last.evaluation_seconds,
        "data_preparation_seconds": run.data.seconds,
        "data_seconds": sum(stage["data_seconds"] for stage in ledger.finished),
        "data_fingerprint": experiment.source.fingerprint,
        "device": str(experiment.device),
        "precision": experiment.precision,
        "processes": run.processes.size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "code": code_version(),
        "machine": machine(experiment.device),
        "peak_memory_bytes": peak_memory(experiment.device),
    }
