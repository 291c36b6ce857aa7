"""``multigrid doctor``: checks a machine by a short training on every device and precision."""

import argparse
import contextlib
import io
import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from multigrid.cli import JSON, command, print_json
from multigrid.errors import UserError
from multigrid.tables import counted, si, table

PACKAGES = ("torch", "numpy", "scipy", "h5py", "safetensors", "pydantic", "matplotlib")
EXPERIMENT: dict[str, Any] = {
    "name": "doctor",
    "problem": {"kind": "poisson", "num_modes": 8},
    "levels": [16, 32],
    "data": {"train": 128, "validation": 16, "test": 32},
    "model": {"width": 16},
    "schedule": {"epochs": [4, 2], "batch_size": 8, "learning_rate": 1e-2},
}
# Trainings differ by rounding errors, which grow; predictions of the same weights do not.
TRAINING_TOLERANCE = {"float32": 0.2, "bfloat16": 0.5}
PREDICTION_TOLERANCE = 1e-3


class Trial(NamedTuple):
    """A training; ``difference`` is that of its predictions from those computed on the CPU."""

    device: str
    precision: str
    test_error: float
    samples_per_second: float
    difference: float
    agrees: bool

    @property
    def name(self) -> str:
        """Where and how it was trained."""
        return f"{self.device} in {self.precision}"


@command(JSON, examples=("", "--json"))
def doctor(options: argparse.Namespace) -> None:
    """Checks a machine: versions, threads, memory and CUDA, then a short training.

    It trains on every device and in every precision, which must agree with the CPU, and prints a
    block to paste into an issue.
    """
    facts, trials = describe_machine(), run_trials()
    if options.json:
        print_json({"machine": facts, "trials": [trial._asdict() for trial in trials]})
    else:
        rows = [[f"{x:.3g}" if isinstance(x, float) else str(x) for x in t] for t in trials]
        facts_lines = [f"{key}: {value}" for key, value in facts.items()]
        print("```", *facts_lines, "", table(Trial._fields, rows), "```", sep="\n")
    if wrong := [trial.name for trial in trials if not trial.agrees]:
        raise UserError(f"doctor: {', '.join(wrong)} does not agree with the CPU in float32")
    if not options.json:
        first, *others = [trial.name for trial in trials]
        verdict = f"{', '.join(others)} agree{'s' * (len(others) == 1)} with {first}"
        alone = f"{first} trains and predicts, and there is nothing else to compare with"
        print(f"all is well: {verdict if others else alone}")


def describe_machine() -> dict[str, str]:
    """Returns versions and hardware by name."""
    import torch

    from multigrid import __version__
    from multigrid.hardware import choose_device, has_fast_bfloat16, machine, total_memory

    cpu = torch.device("cpu")
    facts = {"multigrid": __version__, "Python": platform.python_version()}
    facts["system"] = platform.platform()
    facts |= {package: version(package) for package in PACKAGES}
    threads = counted(torch.get_num_threads(), "thread")
    facts["CPU"] = f"{machine(cpu)}, {threads}, {si(total_memory(cpu))}B"
    facts["bfloat16 on the CPU"] = "native" if has_fast_bfloat16(cpu) else "emulated"
    facts["CUDA"] = f"none (torch is built for {torch.version.cuda or 'CPUs alone'})"
    if torch.cuda.is_available():
        gpu = choose_device("cuda")
        facts["CUDA"] = f"{torch.version.cuda}, {machine(gpu)}, {si(total_memory(gpu))}B"
    return facts


def run_trials() -> list[Trial]:
    """Trains on every device in every precision that it has, the CPU in float32 first."""
    import torch

    from multigrid.hardware import has_fast_bfloat16

    trials: list[Trial] = []
    with tempfile.TemporaryDirectory() as folder:
        for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
            native = has_fast_bfloat16(torch.device(device))
            for precision in ("float32", *(["bfloat16"] if native else [])):
                print(f"training on {device} in {precision} ...", file=sys.stderr)
                first = trials[0] if trials else None
                trials.append(_train(Path(folder), device, precision, first))
    return trials


def _train(folder: Path, device: str, precision: str, first: Trial | None) -> Trial:
    import numpy as np

    from multigrid.run import train

    settings = {
        "name": f"{device}_{precision}",
        "data.folder": folder / "data",
        "compute.device": device,
        "compute.precision": precision,
        "output.folder": folder,
        "output.figures": "false",
    }
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        surrogate = train(EXPERIMENT, *(f"{key}={value}" for key, value in settings.items()))
    summary = json.loads((folder / surrogate.config.name / "summary.json").read_text())
    error = summary["test"]["rel_l2"]
    inputs = np.random.default_rng(0).standard_normal((8, 1, 32, 32))
    on_cpu = surrogate(inputs)
    difference = float(abs(surrogate.to(device)(inputs) - on_cpu).max() / abs(on_cpu).max())
    near = first is None or abs(error / first.test_error - 1) < TRAINING_TOLERANCE[precision]
    epochs = sum(stage["epochs"] for stage in summary["levels"])
    rate = epochs * EXPERIMENT["data"]["train"] / summary["seconds"]
    agrees = near and difference < PREDICTION_TOLERANCE
    return Trial(device, precision, error, rate, difference, agrees)
