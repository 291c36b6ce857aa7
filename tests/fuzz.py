"""Bad input in large numbers: settings, files of data, of weights and of results.

Every input must be read as what it is or refused with a UserError, within seconds and a bounded
memory, and nothing on disk may change. Inputs are tried in forked processes, so that a crash of a
library counts as a failure and not as the end.
"""

import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import yaml
from scipy.io import netcdf_file, savemat

import multigrid
from multigrid.config import Config, flatten, load_config
from multigrid.data.inspect import inspect_path
from multigrid.errors import UserError
from multigrid.ladder.cost import overview
from multigrid.ladder.experiment import Experiment
from multigrid.ladder.state import begin
from multigrid.records.run_folder import Journal
from multigrid.report.comparison import compare
from multigrid.report.record import RunRecord, describe
from multigrid.training.checkpoint import ABOUT, load_checkpoint, save_checkpoint

BATCH = 500
SECONDS_FOR_ONE = 10
MEMORY = 8 * 2**30

EXPERIMENT = """name: tiny
problem: {kind: poisson, num_modes: 4}
data: {train: 32, validation: 8, test: 8, extra_tests: {hard: {num_modes: 6}}}
levels: [4, 8]
model: {width: 4}
schedule: {epochs: [3, 3], batch_size: 8, learning_rate: 1e-2}
"""
HOSTILE_YAML = [
    "a: &a [x, x]\nb: [*a, *a]",
    "[" * 5000,
    "{a: " * 5000,
    "- " * 5000,
    "? " * 5000,
    "name: ../../../etc/passwd\nproblem: {kind: poisson}\nlevels: [8]",
    'name: "tiny\\n"\nproblem: {kind: poisson}\nlevels: [8]',
    "!!python/object/apply:os.system [echo]",
    "name: !!binary aGVsbG8=",
    "levels: [999999999999999999999999999999]",
    "levels: " + "9" * 5000,
    "name: 1_000:59:59:59",
    "seed: 2001-02-30",
    "name: .nan\nlevels: [.inf, -.inf]",
    "\x00",
    "\ud7ff\ufeff: 1",
    "%YAML 9.9\n---\na",
    "--- a\n--- b",
    "<<: {name: x}",
    "=: 1",
    "name: tiny\nproblem: {kind: poisson, num_modes: 1e400}\nlevels: [8]",
    "name: " + "a" * 100_000,
    "a" * 190_000,
    ("x: " + "'" * 1001 + "\n") * 90,
    "&a " * 30_000,
    "# " * 90_000,
]
TOKENS = [
    *"{}[]:,&*!|>'\"%@`#-?\n \t\\",
    "null", "true", "1e999", "-1", "0", "0x1F", "1e-2", "~", "<<", "*a", "&a", "!!int", "..", "/",
    "2026-01-01", "name", "levels", "model", "width", "kind", "poisson", "file", "\u2028", "\xff",
]  # fmt: skip


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Returns bytes with bits flipped, parts cut out, doubled, zeroed or put in."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, size = rng.randrange(len(changed) + 1), rng.choice((1, 2, 4, 8, 64))
        kind = rng.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at : at + size] = rng.randbytes(len(changed[at : at + size]))
        elif kind == 2:
            changed[at : at + size] = b"\xff" * len(changed[at : at + size])
        elif kind == 3:
            changed[at : at + size] = bytes(len(changed[at : at + size]))
        elif kind == 4:
            changed[at:at] = changed[at : at + size]
        else:
            del changed[at : at + rng.choice((1, 16, len(changed)))]
    return bytes(changed)


def bad_yaml(rng: random.Random) -> bytes:
    """Returns an experiment file with something wrong, most of the time."""
    kind = rng.randrange(5)
    if kind == 0:
        return rng.choice(HOSTILE_YAML).encode("utf-8", "surrogatepass")
    if kind == 1:
        return mutate(EXPERIMENT.encode(), rng)
    if kind == 2:
        text = EXPERIMENT
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(TOKENS) + text[at + rng.randrange(3) :]
        return text.encode("utf-8", "surrogatepass")
    if kind == 3:
        return " ".join(rng.choices(TOKENS, k=rng.randint(1, 60))).encode("utf-8", "ignore")
    raw = yaml.safe_load(EXPERIMENT)
    place = raw
    key = rng.choice(list(raw))
    while isinstance(place[key], dict) and rng.random() < 0.8:
        place = place[key]
        key = rng.choice(list(place))
    place[key] = rng.choice(
        [None, -1, 0, 1e308, "", "..", [], {}, [[]], {"a": 1}, True, 2**70, "x" * 1000, [None]]
    )
    return yaml.safe_dump(raw).encode()


VALUES = [
    *("null", "-1", "0", "1", "1e12", "1e400", "024", "1:20", "0x1F", ".nan", "-.inf", "1_000"),
    *("[]", "{}", "[[]]", "[null]", "{a: 1}", "[1, -1]", "[8, 16, 12]", "true", "''", "'8'", "- -"),
    *("~", "~/x", "$HOME", "$UNSET/x", "../..", "/dev/zero", "/etc/passwd", "file", "auto", "muon"),
    *("a\nerror: b", "'\x1b[2J'", "\u202e", "*a", "!!python/name:os.system", "x" * 300, "9" * 5000),
    *("[4, 8, 16]", "[65536]", "[65536, 65536]", "1e-320", "99999999999999999999", "{kind: file}"),
]


def bad_settings(rng: random.Random) -> list[str]:
    """Returns assignments of which most are wrong."""
    keys = [key for key, _ in flatten(Config.model_validate(plain_experiment()).model_dump())]
    keys += [key.rpartition(".")[0] for key in keys if "." in key]
    keys += ["problem.file", "problem.files", "schedule.budget", "network", "", "a.b", "levels.0"]
    return [f"{rng.choice(keys)}={rng.choice(VALUES)}" for _ in range(rng.choice((1, 1, 2, 3)))]


def plain_experiment() -> dict[str, Any]:
    """Returns the sections of the sound experiment."""
    raw: dict[str, Any] = yaml.safe_load(EXPERIMENT)
    raw["schedule"]["learning_rate"] = 1e-2  # which YAML 1.1 takes for a text
    return raw


def sample_files(folder: Path, checkpoint: Path) -> dict[str, bytes]:
    """Returns one sound file of each format, to be damaged."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 6, 8, 8), dtype=np.float32)
    with h5py.File(folder / "pair.h5", "w") as file:
        file["x"], file["y"] = x, y
    with h5py.File(folder / "packed.h5", "w") as file:
        for name, value in (("nu", x), ("tensor", y[:, None])):
            file.create_dataset(name, data=value, chunks=(1, *value.shape[1:]), compression="gzip")
    with h5py.File(folder / "cno.h5", "w") as file:
        for index in range(6):
            group = file.create_group(f"sample_{index}")
            group["input"], group["output"] = x[index], y[index]
    with h5py.File(folder / "v73.mat", "w", userblock_size=512) as file:
        file["coeff"], file["sol"] = x, y
    with (folder / "v73.mat").open("rb+") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    savemat(folder / "v5.mat", {"coeff": x, "sol": y})
    with netcdf_file(folder / "three.nc", "w") as file:
        for name, size in (("n", 6), ("p", 8), ("q", 8)):
            file.createDimension(name, size)
        for name, value in (("a", x), ("u", y)):
            file.createVariable(name, "f4", ("n", "p", "q"))[:] = value
    np.savez(folder / "pair.npz", x=x, y=y)
    np.savez_compressed(folder / "packed.npz", x=x, y=y)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    torch.save({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, folder / "pair.pt")
    names = ("pair.h5", "packed.h5", "cno.h5", "v73.mat", "v5.mat", "three.nc", "pair.npz",
             "packed.npz", "x.npy", "pair.pt")  # fmt: skip
    found = {name: (folder / name).read_bytes() for name in names}
    content = checkpoint.read_bytes()
    body = content[: content.rindex(b"\nmultigrid sha256 ")]
    return {**found, "last.pt": content, "body.pt": body}


def hostile_files(folder: Path) -> list[Path]:
    """Writes files that are meant ill."""
    with h5py.File(folder / "external.h5", "w") as file:
        file["x"] = h5py.ExternalLink("/etc/passwd", "/x")
        file["y"] = h5py.SoftLink("/y")
    with h5py.File(folder / "huge.h5", "w") as file:
        for name in ("x", "y"):
            file.create_dataset(name, (2**20, 2**10, 2**10), "f4", chunks=(1, 64, 64))
    with h5py.File(folder / "raw.h5", "w") as file:
        for name in ("x", "y"):
            file.create_dataset(name, (4, 8, 8), "f4", external=[("/etc/passwd", 0, 1024)])
    with h5py.File(folder / "wide.h5", "w") as file:
        for index in range(3000):
            file.create_group(f"sample_{index}")
    with h5py.File(folder / "nested.h5", "w") as file:
        group: Any = file
        for _ in range(3000):
            group = group.create_group("g")
    with h5py.File(folder / "evil.h5", "w") as file:
        file["a\nerror: b\x1b[2J"] = np.ones((4, 8, 8))
    (folder / "bomb.pt").write_bytes(b"\x80\x02" + b"(" * 100_000 + b".")
    (folder / "deep.pt").write_bytes(b"\x80\x02" + b"]" * 1 + b"(" * 1000 + b"l" * 1000 + b".")
    os.mkfifo(folder / "pipe.h5")
    (folder / "zero.npz").symlink_to("/dev/zero")
    (folder / "loop.npy").symlink_to("loop.npy")
    (folder / "folder.mat").mkdir()
    names = ("external.h5", "huge.h5", "raw.h5", "wide.h5", "nested.h5", "evil.h5", "bomb.pt",
             "deep.pt", "pipe.h5", "zero.npz", "loop.npy", "folder.mat", "none.h5")  # fmt: skip
    return [folder / name for name in names]


def odd_tensors(rng: random.Random) -> Any:
    """Returns what ``torch.save`` takes, and a network or a data set does not."""
    plain, name = torch.ones(4, 8, 8), rng.choice(("x", "scales.0.stem.weight", "a\nerror: b"))
    odd = rng.choice(
        [
            plain.to(torch.float8_e4m3fn), plain.bfloat16(), plain.cfloat(), plain.to("meta"),
            plain.to_sparse(), torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8),
            torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), torch.ones(0),
            plain[..., 0], torch.tensor(1.0), plain * math.nan, np.ones(3), np.float64(2),
            Path("x"), Namespace(a=1), "text", None, 3, [plain], {"y": plain}, {3: plain}, set(),
            torch.nn.Linear(2, 2), torch.nn.Parameter(plain), plain.numpy(), plain > 0,
            plain.expand(4, 8, 8),
        ]
    )  # fmt: skip
    wrappers = ("network", "state_dict", "model_state", "net", "ema", "model", "0")
    return rng.choice(
        [odd, {name: odd}, {name: odd, "y": plain}, {rng.choice(wrappers): {name: odd}}]
    )


def with_junk(value: Any, rng: random.Random) -> Any:
    """Returns nested containers with one of their parts replaced by something else."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        copy: Any = dict(value) if isinstance(value, dict) else list(value)
        key = rng.choice(list(copy)) if isinstance(copy, dict) else rng.randrange(len(copy))
        copy[key] = with_junk(copy[key], rng)
        return copy
    junk = [None, -1, 10**9, 1.5, math.nan, "", "x", [], {}, [1], {"a": 1}, True, ["f"], [0.0],
            torch.ones(2), torch.ones(2).to("meta"), torch.ones(3, 3).to_sparse()]  # fmt: skip
    return rng.choice(junk)


def try_yaml(path: Path) -> None:
    """Reads an experiment file."""
    load_config(path)


def try_settings(overrides: Sequence[str], path: Path) -> None:
    """Reads an experiment with overrides, and plans it."""
    trained = Experiment(load_config(path, overrides))
    overview(trained, begin(trained))


def try_data(path: Path) -> None:
    """Looks into a data file and reads all of it."""
    inspect_path(path)


def try_network(path: Path) -> None:
    """Loads a trained network and applies it."""
    surrogate = multigrid.load(path)
    shape = (1, len(surrogate.input_names), *surrogate.finest.shape)
    surrogate.predict(np.ones(shape, dtype=np.float32))


def try_weights(experiment: Path, path: Path) -> None:
    """Starts a training from weights."""
    loaded = Experiment(load_config(experiment, [f"checkpoints.load={path}"]))
    loaded.initializer.start(loaded.plan.stages[0], begin(loaded).loaded, [])


def try_results(path: Path) -> None:
    """Reads the result files of a run, and compares it with itself."""
    record = RunRecord.open(path.parent)
    described = [record.levels, record.spectra, record.examples, Journal(path).read()]
    if record.is_finished:
        described += [record.remarks, describe(record.summary)]
    assert described
    compare([path.parent])


RESULTS = ("metrics.csv", "summary.json", "spectra.json", "config.yaml", "predictions.npz",
           "level_1_8x8/transfer.json", "journal.jsonl")  # fmt: skip

Trial = tuple[str, Callable[[Path], object], Path]


def bad_inputs(folder: Path, checkpoint: Path, count: int, rng: random.Random) -> Iterator[Trial]:
    """Writes bad inputs one after the other; yields each with its kind and what reads it."""
    files = sample_files(folder, checkpoint)
    experiment = folder / "sound.yaml"
    experiment.write_text(yaml.safe_dump(plain_experiment()))
    for path in hostile_files(folder):
        read = load_checkpoint if path.suffix == ".pt" else try_data
        yield "files that are meant ill", read, path
        if path.suffix == ".h5":
            yield "files that are meant ill", try_yaml, path
    run = checkpoint.parents[1]
    finished = (run / "summary.json").exists()
    payload = load_checkpoint(checkpoint)
    kinds = ["YAML", "settings", "settings", "data", "data", "checkpoint", "weights"]
    kinds += ["odd data", "network", "results"] if finished else []
    for index in range(count):
        kind = kinds[index % len(kinds)]
        path = folder / "bad.pt"
        read = try_data
        if kind == "YAML":
            path, read = folder / "bad.yaml", try_yaml
            path.write_bytes(bad_yaml(rng))
        elif kind == "settings":
            path, read = experiment, partial(try_settings, bad_settings(rng))
        elif kind == "data":
            name = rng.choice([name for name in files if name not in ("last.pt", "body.pt")])
            path = folder / f"bad_{name}"
            path.write_bytes(mutate(files[name], rng))
            (folder / "bad_y.npy").write_bytes((folder / "y.npy").read_bytes())
        elif kind == "checkpoint":
            path.write_bytes(mutate(files[rng.choice(("last.pt", "body.pt"))], rng))
            read = load_checkpoint
        elif kind == "weights":
            torch.save(odd_tensors(rng), path)
            read = partial(try_weights, experiment)
        elif kind == "odd data":
            torch.save(odd_tensors(rng), path)
        elif kind == "network":
            about = {key: payload[key] for key in (*ABOUT, "network")}
            key = rng.choice(list(about))
            save_checkpoint(path, {**about, key: with_junk(about[key], rng)})
            read = try_network
        else:
            copy = folder / "run"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(run, copy)
            path, read = copy / rng.choice(RESULTS), try_results
            path.write_bytes(mutate(path.read_bytes(), rng))
            path = copy / "journal.jsonl"
        yield kind, read, path


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns size and time of all files of a folder."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def try_one(read: Callable[[Path], object], path: Path) -> str | None:
    """Returns what is wrong with how an input was received, or None."""
    before, started = snapshot(path.parent), time.monotonic()
    problem = None
    signal.alarm(SECONDS_FOR_ONE)
    try:
        read(path)
    except UserError as error:
        if not str(error) or len(str(error)) > 5000 or "Traceback" in str(error):
            problem = f"no sentence: {str(error)[:200]!r}"
    except BaseException:
        problem = traceback.format_exc()
    signal.alarm(0)
    if snapshot(path.parent) != before:
        problem = "files have changed"
    if time.monotonic() - started > SECONDS_FOR_ONE / 2:
        problem = f"took {time.monotonic() - started:.1f} s"
    return problem


def fuzz(
    folder: Path, checkpoint: Path, count: int, rng: random.Random, done: Counter[str]
) -> None:
    """Tries many bad inputs; raises AssertionError at the first that is not received well.

    Args:
        folder: Where to write them.
        checkpoint: The best state of the last level of a finished run.
        count: How many, with those that are done.
        rng: Source of randomness.
        done: Those that are done, by kind.
    """
    while done.total() < count:
        seed, place = rng.randrange(2**32), folder / "fuzz"
        place.mkdir()
        sys.stdout.flush()
        process = os.fork()
        if not process:
            os._exit(_batch(place, checkpoint, min(BATCH, count - done.total()), seed))
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if status:
            kept = Path("/tmp") / f"fuzz_{seed}"
            os.system(f"cp -r {place} {kept}")
            raise AssertionError(f"status {status} in the batch with seed {seed}; see {kept}")
        done.update(json.loads((place / "kinds.json").read_text()))
        shutil.rmtree(place)
        print(f"{done.total()} bad inputs", flush=True)


def _batch(folder: Path, checkpoint: Path, size: int, seed: int) -> int:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    kinds, faults = Counter[str](), 0
    for kind, read, path in bad_inputs(folder, checkpoint, size, random.Random(seed)):
        problem = try_one(read, path)
        kinds[kind] += 1
        if problem is not None:
            print(f"{read} {path}: {problem}", flush=True)
            faults += 1
    (folder / "kinds.json").write_text(json.dumps(kinds))
    return min(faults, 1)
