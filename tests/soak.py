"""Kills, failing disks, flipped bits and bad input in large numbers: ``python tests/soak.py``.

Runs are forked from one process that has imported everything, so that a run takes a second.
"""

import argparse
import contextlib
import errno
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import yaml
from torch import Tensor

from multigrid import files, report
from multigrid.errors import UserError
from multigrid.ladder import ladder  # noqa: F401
from multigrid.records.history import read_history
from multigrid.run import main
from multigrid.training.checkpoint import load_checkpoint

BASE: dict[str, Any] = {
    "name": "tiny",
    "problem": {"kind": "poisson", "num_modes": 4},
    "data": {"train": 32, "validation": 8, "test": 8},
    "levels": [4, 8],
    "model": {"width": 4},
    "schedule": {"epochs": [3, 3], "batch_size": 8, "learning_rate": 1e-2},
    "compute": {"precision": "float32", "device": "cpu"},
    "checkpoints": {"interval": 1},
}
SCENARIOS: dict[str, list[str]] = {
    "plain": [],
    "every step": ["checkpoints.steps=1"],
    "v cycle": ["schedule.cycle=v", "schedule.epochs=[2,2]", "checkpoints.steps=3"],
    "streamed": ["data.memory=stream", "checkpoints.steps=2"],
    "adamw": ["optimizer.name=adamw", "optimizer.carry_moments=false", "schedule.patience=2"],
    "rolled back": [
        "schedule.learning_rate=1.0",
        "recovery.explosion=1.2",
        "recovery.tries=100",
        "checkpoints.steps=2",
    ],
    "rare saves": ["checkpoints.interval=100"],
    "short": ["schedule.epochs=1", "checkpoints.steps=3"],
    "short v cycle": ["schedule.epochs=1", "schedule.cycle=v"],
}
TIMES = {
    "seconds",
    "compile_seconds",
    "data_seconds",
    "evaluation_seconds",
    "saving_seconds",
    "saving_share",
}
NOT_COMPARED = TIMES | {
    "data_preparation_seconds",
    "peak_memory_bytes",
    "events",
    "overhead",
    "environment",
    "checksum",
    "config",
}


def write_base(folder: Path, **sections: Any) -> Path:
    """Writes the experiment file."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**BASE, **sections}))
    return path


def arguments(experiment: Path, folder: Path, data: Path, *more: str) -> list[str]:
    """Returns the command's arguments."""
    return [str(experiment), f"output.folder={folder}", f"data.folder={data}", *more]


def forked(command: list[str], prepare: Callable[[], None] | None = None) -> int:
    """Starts the command in a fork of this process and returns its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    status = 99
    try:
        torch.set_num_threads(1)
        report.write_report = lambda *args: []
        sink = os.open(os.devnull, os.O_WRONLY)
        errors = os.open(f"{command[1].partition('=')[2]}.stderr", os.O_WRONLY | os.O_CREAT, 0o644)
        os.ftruncate(errors, 0)
        os.dup2(sink, 1)
        os.dup2(errors, 2)
        if prepare is not None:
            prepare()
        status = main(command)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)
    return 0


def wait(process: int, limit: float = 120.0) -> int:
    """Returns the exit status, negative for a signal; kills a process that hangs."""
    until = time.monotonic() + limit
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            raise AssertionError("a run hangs")
        time.sleep(0.002)


def complaint(folder: Path) -> str:
    """Returns what the last run in a folder wrote to its standard error."""
    return Path(f"{folder}.stderr").read_text()


def timeless(value: Any) -> Any:
    """Returns containers without what depends on time and place; tensors as hashes."""
    if isinstance(value, Tensor):
        content = value.contiguous().numpy().tobytes()
        return hashlib.sha256(str((value.dtype, value.shape)).encode() + content).hexdigest()
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in NOT_COMPARED}
    if isinstance(value, list | tuple):
        return [timeless(item) for item in value]
    return value


def result(run: Path) -> dict[str, Any]:
    """Returns all that a finished run leaves, times apart."""
    found: dict[str, Any] = {
        "summary": timeless(json.loads((run / "summary.json").read_text())),
        "history": [timeless(dict(row.__dict__)) for row in read_history(run / "metrics.csv")],
        "files": sorted(
            str(path.relative_to(run)) for path in run.rglob("*") if "previous" not in path.name
        ),
    }
    for path in sorted(run.rglob("*.pt")):
        if "previous" not in path.name:
            found[str(path.relative_to(run))] = timeless(load_checkpoint(path))
    return found


class Bench:
    """Uninterrupted runs to compare with, and room for others.

    Args:
        folder: A folder of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.experiment = write_base(folder)
        self.data = folder / "data"
        self.expected: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.number = 0
        self.warm_up()

    def warm_up(self) -> None:
        """Has torch import here, once, what it imports late; nothing that starts threads."""
        with contextlib.redirect_stdout(io.StringIO()):
            main([*arguments(self.experiment, self.folder, self.data), "--dry-run"])
        network = torch.nn.Linear(2, 2)
        torch.optim.AdamW(network.parameters(), fused=True).zero_grad()

    def fresh(self) -> Path:
        """Returns a new folder for results."""
        self.number += 1
        path = self.folder / f"results_{self.number}"
        path.mkdir()
        return path

    def whole(self, scenario: str) -> dict[str, Any]:
        """Returns the result of a run that nothing happens to."""
        if scenario not in self.expected:
            folder = self.fresh()
            command = arguments(self.experiment, folder, self.data, *SCENARIOS[scenario])
            started = time.monotonic()
            status = wait(forked(command))
            assert status == 0, complaint(folder)
            self.seconds[scenario] = time.monotonic() - started
            self.expected[scenario] = result(folder / "tiny")
        return self.expected[scenario]

    def finish(self, folder: Path, command: list[str], scenario: str) -> None:
        """Resumes a run and compares what it leaves."""
        status = wait(forked([*command, "--resume"]))
        assert status == 0, f"{scenario}: status {status}: {complaint(folder)}"
        found, expected = result(folder / "tiny"), self.whole(scenario)
        for key in expected.keys() | found.keys():
            assert found.get(key) == expected.get(key), f"{scenario}: {key} differs"
        shutil.rmtree(folder)

    def kill_chain(self, scenario: str, rng: random.Random, num_kills: int, own_data: bool) -> int:
        """Kills a run again and again, resumes it, and compares; returns the number of kills."""
        self.whole(scenario)
        folder = self.fresh()
        data = folder / "data" if own_data else self.data
        command = arguments(self.experiment, folder, data, *SCENARIOS[scenario])
        kills = 0
        for attempt in range(num_kills):
            resume = ["--resume"] if attempt or rng.random() < 0.5 else []
            process = forked([*command, *resume])
            time.sleep(rng.uniform(0.0, 1.1 * self.seconds[scenario]))
            os.kill(process, signal.SIGKILL)
            status = wait(process)
            if status != -signal.SIGKILL:
                assert status == 0, f"{scenario}: status {status}: {complaint(folder)}"
                break
            kills += 1
        self.finish(folder, command, scenario)
        return kills


OPERATIONS = ("create", "write", "sync", "read_back", "rename", "sync_folder")
FAULTS = {
    "no space": OPERATIONS,
    "input/output error": OPERATIONS,
    "crash": OPERATIONS,
    "short write": ("write",),
    "flipped read-back": ("read_back",),
}


class Sabotage:
    """Makes the n-th file operation of a run fail.

    Args:
        at: Which operation, from 0.
        fault: One of :data:`FAULTS`.
        names: File that receives the names of the operations, if given.
    """

    def __init__(self, at: int, fault: str, names: Path | None = None) -> None:
        self.left, self.fault, self.names = at, fault, names

    def install(self) -> None:
        """Wraps all operations; to be called in the process that is to suffer."""
        for name in OPERATIONS:
            setattr(files, name, self._wrap(name, getattr(files, name)))

    def _wrap(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            if self.names is not None:
                with self.names.open("a") as file:
                    file.write(f"{name}\n")
            self.left -= 1
            return self._fail(name, operation, *args) if self.left == -1 else operation(*args)

        return wrapped

    def _fail(self, name: str, operation: Callable[..., Any], *args: Any) -> Any:
        if self.fault == "crash":
            if name == "write":
                args[0].write(args[1][: len(args[1]) // 2])
                args[0].flush()
            os._exit(137)
        if self.fault == "short write":
            operation(args[0], args[1][: len(args[1]) // 2])
            return None
        if self.fault == "flipped read-back":
            content = bytearray(operation(*args))
            content[len(content) // 2] ^= 1
            return bytes(content)
        number = errno.ENOSPC if self.fault == "no space" else errno.EIO
        raise OSError(number, os.strerror(number))


def operations(bench: Bench, scenario: str) -> list[str]:
    """Returns the file operations of a run, in order."""
    folder = bench.fresh()
    command = arguments(bench.experiment, folder, bench.data, *SCENARIOS[scenario])
    names = folder / "operations"
    assert wait(forked(command, Sabotage(10**9, "", names).install)) == 0, complaint(folder)
    return names.read_text().split()


def sabotage(bench: Bench, scenario: str, at: int, fault: str) -> None:
    """Has one operation of a run fail, resumes it and compares."""
    bench.whole(scenario)
    folder = bench.fresh()
    command = arguments(bench.experiment, folder, bench.data, *SCENARIOS[scenario])
    status = wait(forked(command, Sabotage(at, fault).install))
    text = complaint(folder)
    assert status in (0, 2, 137), f"{scenario}: {fault} at {at}: status {status}: {text}"
    assert "Traceback" not in text, text
    if status == 2:
        assert text.startswith("error: "), text
    bench.finish(folder, command, scenario)


def flip(content: bytes, offset: int, bit: int) -> bytes:
    """Returns bytes with one bit turned over."""
    changed = bytearray(content)
    changed[offset] ^= 1 << bit
    return bytes(changed)


def flip_bits(path: Path, count: int, rng: random.Random) -> int:
    """Flips bits of a checkpoint one by one; returns how many were detected, which must be all."""
    content = path.read_bytes()
    damaged = path.with_name("flipped.pt")
    detected = 0
    for _ in range(count):
        damaged.write_bytes(flip(content, rng.randrange(len(content)), rng.randrange(8)))
        try:
            load_checkpoint(damaged)
        except UserError:
            detected += 1
    damaged.unlink()
    assert detected == count, f"{count - detected} flipped bits went unnoticed"
    return detected


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument(
        "--no-faults", dest="faults", action="store_false", help="leave out failing disks"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="JSON file to which to add the result")
    return parser


def soak(options: argparse.Namespace) -> dict[str, Any]:
    """Does it all and returns the numbers."""
    rng = random.Random(options.seed)
    record: dict[str, Any] = {}
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        bench = Bench(Path(folder))
        names = list(SCENARIOS)
        kills: Counter[str] = Counter()
        chains = 0
        while kills.total() < options.kills:
            scenario = names[chains % len(names)]
            kills[scenario] += bench.kill_chain(
                scenario, rng, rng.randint(1, 6), own_data=chains % 3 == 0
            )
            chains += 1
            print(f"{kills.total()} kills, {chains} runs", flush=True)
        if kills:
            record["kills"] = {"total": kills.total(), "runs": chains, **kills}
        faults = 0
        for scenario in ("short", "short v cycle") if options.faults else ():
            for at, operation in enumerate(operations(bench, scenario)):
                for fault in (fault for fault, hit in FAULTS.items() if operation in hit):
                    sabotage(bench, scenario, at, fault)
                    faults += 1
            print(f"{faults} failing file operations", flush=True)
        if faults:
            record["failing_file_operations"] = faults
        run = bench.fresh()
        assert wait(forked(arguments(bench.experiment, run, bench.data))) == 0
        path = run / "tiny" / "level_1_8x8" / "last.pt"
        if options.flips:
            record["flipped_bits_detected"] = flip_bits(path, options.flips, rng)
        if options.inputs:
            import fuzz

            record["bad_inputs"] = fuzz.fuzz(Path(folder), path, options.inputs, rng)
    return record


if __name__ == "__main__":
    given = build_parser().parse_args()
    outcome = soak(given)
    print(json.dumps(outcome, indent=2))
    if given.record:
        before = json.loads(given.record.read_text()) if given.record.exists() else {}
        given.record.write_text(json.dumps({**before, **outcome}, indent=2) + "\n")
