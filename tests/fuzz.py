"""Bad input in large numbers for the readers of YAML, data files and checkpoints.

Every input must be read as what it is or refused with a UserError, within seconds and a bounded
memory, and nothing on disk may change. Inputs are tried in forked processes, so that a crash of a
library counts as a failure and not as the end.
"""

import os
import random
import resource
import signal
import string
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
import yaml

from multigrid.config import load_config
from multigrid.data.formats import open_fields
from multigrid.data.inspect import inspect_file
from multigrid.errors import UserError
from multigrid.training.checkpoint import load_checkpoint

BATCH = 100
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
    np.savez(folder / "pair.npz", x=x, y=y)
    np.savez_compressed(folder / "packed.npz", x=x, y=y)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    torch.save({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, folder / "pair.pt")
    names = ("pair.h5", "packed.h5", "cno.h5", "pair.npz", "packed.npz", "x.npy", "pair.pt")
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
    (folder / "bomb.pt").write_bytes(b"\x80\x02" + b"(" * 100_000 + b".")
    (folder / "deep.pt").write_bytes(b"\x80\x02" + b"]" * 1 + b"(" * 1000 + b"l" * 1000 + b".")
    names = ("external.h5", "huge.h5", "raw.h5", "wide.h5", "bomb.pt", "deep.pt")
    return [folder / name for name in names]


def try_yaml(path: Path) -> None:
    """Reads an experiment file."""
    load_config(path)


def try_data(path: Path) -> None:
    """Looks into a data file and reads all of it."""
    inspect_file(open_fields(path), progress=False)


def bad_inputs(
    folder: Path, checkpoint: Path, count: int, rng: random.Random
) -> Iterator[tuple[Callable[[Path], object], Path]]:
    """Writes bad inputs one after the other; yields each with what reads it."""
    files = sample_files(folder, checkpoint)
    for path in hostile_files(folder):
        yield (load_checkpoint if path.suffix == ".pt" else try_data), path
    for index in range(count):
        if index % 3 == 0:
            path = folder / "bad.yaml"
            path.write_bytes(bad_yaml(rng))
            yield try_yaml, path
            continue
        name = rng.choice(list(files))
        path = folder / f"bad_{name}"
        path.write_bytes(mutate(files[name], rng))
        if name == "x.npy":
            (folder / "bad_y.npy").write_bytes((folder / "y.npy").read_bytes())
        yield (load_checkpoint if name in ("last.pt", "body.pt") else try_data), path


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


def fuzz(folder: Path, checkpoint: Path, count: int, rng: random.Random) -> dict[str, int]:
    """Tries many bad inputs; raises AssertionError at the first that is not received well."""
    folder = folder / "fuzz"
    folder.mkdir()
    done = 0
    while done < count:
        size = min(BATCH, count - done)
        seed = rng.randrange(2**32)
        sys.stdout.flush()
        process = os.fork()
        if not process:
            os._exit(_batch(folder, checkpoint, size, seed))
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if status:
            kept = Path("/tmp") / f"fuzz_{seed}"
            os.system(f"cp -r {folder} {kept}")
            raise AssertionError(f"status {status} in the batch with seed {seed}; see {kept}")
        done += size
        if done % 1000 == 0:
            print(f"{done} bad inputs", flush=True)
    return {"total": done, "tracebacks": 0, "hangs": 0, "crashes": 0, "files_changed": 0}


def _batch(folder: Path, checkpoint: Path, size: int, seed: int) -> int:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    for read, path in bad_inputs(folder, checkpoint, size, random.Random(seed)):
        problem = try_one(read, path)
        if problem is not None:
            print(f"{read.__name__} {path}: {problem}", flush=True)
            return 1
    return 0


if __name__ == "__main__":
    import tempfile

    from multigrid.training.checkpoint import save_checkpoint

    with tempfile.TemporaryDirectory() as name:
        saved = Path(name) / "last.pt"
        weights = {f"{letter}.weight": torch.randn(4, 4) for letter in string.ascii_lowercase}
        save_checkpoint(saved, {"network": weights, "rows": [{"epoch": 1}], "best": None})
        print(fuzz(Path(name), saved, int(sys.argv[1]), random.Random(int(sys.argv[2]))))
