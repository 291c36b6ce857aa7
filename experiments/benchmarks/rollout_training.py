"""Ways of training for roll-outs, with equal work: which of them helps over 20 steps.

One network on one grid, one learning rate, one seed. Plain training gets so many epochs as fit into
the time on this machine; the others get as many as have the same floating-point operations.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks.speedup import finished_run
from multigrid.config import Config, load_config
from multigrid.files import write_json, write_text
from multigrid.ladder.experiment import Experiment
from multigrid.tables import table

EXPERIMENTS = ("kolmogorov", "gray_scott")
NUM_STEPS = 20
SHOWN = (1, 2, 5, 10, 20)
SETTINGS = (
    "levels=[32]",
    "schedule.cycle=single",
    "schedule.epochs=auto",
    "schedule.batch_size=16",
    "schedule.learning_rate=auto",
    "model.width=32",
    f"data.rollout_steps={NUM_STEPS}",
    "output.figures=false",
)
METHODS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "unrolled": ("rollout_training.steps=[1,2,4]",),
    "pushforward": ("rollout_training.steps=[1,2,4]", "rollout_training.method=pushforward"),
    "noise": ("rollout_training.noise=0.01",),
}


def run(overrides: Sequence[str], minutes: float, folder: Path) -> str:
    """Trains every method on every problem and writes ``results.txt`` and ``results.json``.

    Args:
        overrides: Settings to replace in all of them.
        minutes: Time for plain training.
        folder: Where to write; the runs go into its folder ``runs`` and are continued.

    Returns:
        A table for each problem: nRMSE after some steps, mean over the trajectories that are still
        stable, how many steps correlate with the truth, and how many trajectories blow up.
    """
    texts, record = [], {}
    for name in EXPERIMENTS:
        summaries: dict[str, dict[str, Any]] = {}
        work = None
        for method, settings in METHODS.items():
            budget = f"{{seconds: {60 * minutes}}}" if work is None else f"{{work_units: {work}}}"
            own = f"name={name}_{method}", f"output.folder={folder / 'runs'}"
            given = *SETTINGS, f"schedule.budget={budget}", *overrides, *settings, *own
            config = load_config(f"experiments/{name}.yaml", given)
            summaries[method] = finished_run(config).summary
            work = work or summaries[method]["work_units"]
        texts.append(_text(config, summaries))
        record[name] = {m: _facts(summary) for m, summary in summaries.items()}
    text = "\n\n".join(texts)
    write_text(folder / "results.txt", f"{text}\n")
    write_json(folder / "results.json", record)
    return f"{text}\nwritten to {folder}"


def _facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is kept of a run."""
    (stage,) = summary["levels"]
    keys = ("seconds", "work_units", "flops", "rollout", "rollout_metrics", "machine", "device")
    own = {key: summary[key] for key in (*keys, "threads", "precision")}
    return {"epochs": stage["epochs"], "validation": stage["rel_l2"], **own}


def _text(config: Config, summaries: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for method, summary in summaries.items():
        facts = _facts(summary)
        metrics, errors = facts["rollout_metrics"], facts["rollout"]
        shown = ["-" if errors[n - 1] is None else f"{errors[n - 1]:.4f}" for n in SHOWN]
        cost = [str(facts["epochs"]), f"{facts['seconds']:.0f}", f"{facts['work_units']:.1f}"]
        steps, blown = metrics["correlation_steps"]["mean"], metrics["blow_up"]
        rows.append([method, *cost, *shown, f"{steps:.1f}", f"{blown:.0%}"])
    persistence = [f"{error:.4f}" for error in summary["rollout_persistence"]]
    rows.append(["persistence", "", "", "", *(persistence[n - 1] for n in SHOWN), "", ""])
    header = ["Method", "Epochs", "Seconds", "Work", *(f"nRMSE {n}" for n in SHOWN)]
    header += ["Correlated", "Blow up"]
    experiment = Experiment(config)
    (stage,) = summary["levels"]
    return (
        f"{config.kind} on {experiment.hierarchy.finest}, {config.data.train} samples, "
        f"{experiment.family.kind} of {stage['parameters']:,} parameters, one seed, "
        f"{summary['precision']} on {summary['machine']}, {summary['threads']} threads, "
        f"{metrics['trajectories']} trajectories\n{table(header, rows)}"
    )
