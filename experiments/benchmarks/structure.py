"""How large the package is, and how much of it a reader of one run has to know.

``python -m experiments.benchmarks.structure [FOLDER ...]`` prints a table with one column for each
clone of the project, by default this one, so that two versions can be compared.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

EXPERIMENT = {
    "name": "tiny",
    "problem": {"kind": "poisson", "num_modes": 4},
    "levels": [8, 16],
    "data": {"train": 40, "validation": 8, "test": 8},
    "schedule": {"epochs": [1, 1], "batch_size": 4},
    "model": {"width": 8},
}

PROBE = """
import collections, json, pathlib, sys, time

profiled = sys.argv[1] == "profile"
package = str(pathlib.Path(sys.argv[2]) / "multigrid") + "/"
entered, step, steps, first = set(), collections.Counter(), [], []

def see(frame, event, argument):
    code = frame.f_code
    if not code.co_filename.startswith(package):
        return
    place = code.co_filename, code.co_qualname
    if event == "call" and code.co_name != "<module>":
        entered.add(code.co_filename)
        step[place] += 1
    if event == "return" and place[1] == "NamedOptimizer.step":
        steps.append(dict(step))
        step.clear()

from multigrid.run import main
if profiled:
    sys.setprofile(see)
else:
    from multigrid.training.optimizers import NamedOptimizer
    original = NamedOptimizer.step
    def timed(self):
        first.append(time.process_time())
        original(self)
    NamedOptimizer.step = timed
status = main(["tiny.yaml", "--overwrite"])
sys.setprofile(None)
result = {"status": status, "seconds": time.process_time(), "first": first[:1]}
if steps:
    typical = sorted(steps[1:], key=lambda calls: sum(calls.values()))[len(steps) // 4]
    result |= {
        "entered": len(entered),
        "calls": sum(typical.values()),
        "functions": len(typical),
        "files": len({file for file, _ in typical}),
    }
pathlib.Path("result.json").write_text(json.dumps(result))
"""


def sizes(folder: Path) -> dict[str, str]:
    """Returns modules and lines of the package and of the benchmarks beside it."""
    rows = {}
    for name, place in (("package", "multigrid"), ("benchmarks", "experiments/benchmarks")):
        paths = list((folder / place).rglob("*.py"))
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
        rows[f"modules of the {name}"] = str(len(paths))
        rows[f"lines of the {name}"] = f"{lines:,}"
    return rows


def probe(folder: Path, mode: str) -> dict[str, float]:
    """Runs a tiny ladder of a clone in a process of its own; returns what was counted."""
    with tempfile.TemporaryDirectory() as place:
        Path(place, "tiny.yaml").write_text(json.dumps(EXPERIMENT), encoding="utf-8")
        subprocess.run(  # noqa: S603 (this Python)
            [sys.executable, "-c", PROBE, mode, str(folder)],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        result: dict[str, float] = json.loads(Path(place, "result.json").read_text())
    return result


def measure(folder: Path) -> dict[str, str]:
    """Returns all measures of a clone."""
    counted, timed = probe(folder, "profile"), probe(folder, "time")
    (first,) = timed["first"]
    return {
        **sizes(folder),
        "files that a run enters": str(counted["entered"]),
        "calls of one training step": str(counted["calls"]),
        "functions and files they are in": f"{counted['functions']} in {counted['files']}",
        "CPU time to the first step, s": f"{first:.1f}",
        "CPU time of the whole tiny run, s": f"{timed['seconds']:.1f}",
    }


def main() -> None:
    """Prints the table."""
    folders = [Path(name).resolve() for name in sys.argv[1:]] or [Path(__file__).parents[2]]
    columns = [measure(folder) for folder in folders]
    for name in columns[0]:
        print(f"{name:36}", *(f"{column[name]:>12}" for column in columns))


if __name__ == "__main__":
    main()
