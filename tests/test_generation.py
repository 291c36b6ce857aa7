import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from multigrid.data import SPLITS, generation
from multigrid.data import store as store_module
from multigrid.data.generation import BLOCK, Block, Recipe, generate
from multigrid.data.store import DataStore
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.problems import build_problem
from multigrid.problems.base import Problem
from multigrid.problems.elliptic import Poisson

COUNTS = {"train": 150, "validation": 20, "test": 10}
GRID = Grid((8, 8))

SLOW = """
import time
from pathlib import Path
from multigrid.data import store
from multigrid.grid import Grid
from multigrid.problems import build_problem

write = store.write_samples
def slowly(*arguments):
    write(*arguments)
    time.sleep(0.1)
store.write_samples = slowly

if __name__ == "__main__":
    problem = build_problem("poisson", num_modes=4)
    store.DataStore(Path("."), problem, Grid((8, 8)), 0).ensure(
        {"train": 640, "validation": 1, "test": 1}, workers=WORKERS
    )
"""


class Lethal(Problem):
    kind = "lethal"
    version = 1
    input_names = output_names = ("x",)
    parameters = {}  # noqa: RUF012

    def sample(self, grid, rngs):
        os._exit(3)


def open_store(folder, problem=None):
    return DataStore(folder, problem or Poisson(num_modes=4), GRID, 0)


def contents(store, counts):
    return [store.read(split, counts[split]) for split in counts]


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.outputs, b.outputs)


def test_samples_do_not_depend_on_the_number_of_workers(tmp_path):
    problem = build_problem("darcy", num_modes=8)
    stores = [open_store(tmp_path / str(workers), problem) for workers in (1, 2)]
    for workers, store in enumerate(stores, start=1):
        assert store.ensure(COUNTS, workers=workers) == sum(COUNTS.values())
    assert_equal(*(contents(store, COUNTS) for store in stores))


def test_blocks_come_in_order_and_cover_everything():
    recipe = Recipe(Poisson(num_modes=4), GRID, 0)
    blocks = recipe.blocks("train", 10, 200)
    assert [(block.start, block.stop) for block in blocks] == [(10, 74), (74, 138), (138, 200)]
    assert [block for block, _ in generate(recipe, blocks)] == blocks
    assert list(generate(recipe, [])) == []


def test_blocks_of_fine_grids_are_small():
    recipe = Recipe(Poisson(ndim=3), Grid((128, 128, 128)), 0)
    assert {len(block) for block in recipe.blocks("train", 0, 6)} == {2}


def test_workers_are_started_only_where_they_pay(monkeypatch):
    recipe = Recipe(Poisson(num_modes=4), GRID, 0)
    blocks = recipe.blocks("train", 0, 4 * BLOCK)
    pools = []

    def pool(recipe, blocks, workers):
        pools.append((len(blocks), workers))
        return iter(())

    monkeypatch.setattr(generation, "_generate_in_pool", pool)
    monkeypatch.setattr(generation, "num_cores", lambda: 8)
    list(generate(recipe, blocks))
    assert pools == []
    monkeypatch.setattr(generation, "SERIAL_SECONDS", 0.0)
    list(generate(recipe, blocks))
    assert pools == [(3, 3)]
    monkeypatch.setattr(generation, "num_cores", lambda: 1)
    list(generate(recipe, blocks))
    assert pools == [(3, 3)]


def test_a_solver_that_diverges_is_told():
    problem = build_problem("navier_stokes", substeps=1, std=1e6, resolution=16)
    told = "problem 'navier_stokes' gives .* not finite, number 0 of train; problem.substeps: 1 may"
    with np.errstate(all="ignore"), pytest.raises(UserError, match=told):
        Recipe(problem, Grid((16, 16)), seed=0).make(Block("train", 0, 1))


def test_a_dead_worker_is_told():
    blocks = [Block("train", 0, 1), Block("train", 1, 2)]
    with pytest.raises(UserError, match=r"a worker process .* has died"):
        list(generate(Recipe(Lethal(), GRID, 0), blocks, workers=2))


def test_workers_leave_the_environment_as_it_was(tmp_path):
    before = dict(os.environ)
    open_store(tmp_path).ensure(COUNTS, workers=2)
    assert dict(os.environ) == before


def test_workers_import_no_torch():
    code = (
        "import sys, multigrid.data.generation, multigrid.problems; print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "False"


def complete(path):
    try:
        with h5py.File(path, "r", locking=False) as file:
            return int(file["train"].attrs["num_complete"])
    except (OSError, KeyError):
        return 0


def start_and_kill(folder, workers):
    """Kills a generation after at least two of its ten blocks, and returns what is left."""
    script = folder / "slow.py"
    script.write_text(SLOW.replace("WORKERS", str(workers)))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen([sys.executable, script.name], cwd=folder, env=environment)
    deadline = time.monotonic() + 30
    part = None
    while part is None or complete(part) < 2 * BLOCK:
        assert time.monotonic() < deadline
        time.sleep(0.02)
        part = next(folder.glob("*.part"), None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return part


@pytest.mark.parametrize("workers", [1, 2])
def test_generation_goes_on_after_a_kill(tmp_path, workers):
    counts = {"train": 640, "validation": 1, "test": 1}
    part = start_and_kill(tmp_path, workers)
    left = complete(part)
    assert 2 * BLOCK <= left < 640
    store = open_store(tmp_path)
    assert store.ensure(counts) == 642 - left
    assert not part.exists()
    whole = open_store(tmp_path / "whole")
    whole.ensure(counts)
    assert_equal(contents(store, counts), contents(whole, counts))


def interrupted_part(folder, monkeypatch, counts):
    """Leaves a half-written file with one complete block."""
    store, write, calls = open_store(folder), store_module.write_samples, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_samples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.ensure(counts)
    return store, store.path.with_name(store.path.name + ".part")


def truncate(part):
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])


def garble(part):
    content = bytearray(part.read_bytes())
    with h5py.File(part) as file:
        chunk = file["train/input"].id.get_chunk_info(5)
    content[chunk.byte_offset + 20] ^= 0xFF
    part.write_bytes(content)


def claim_too_much(part):
    with h5py.File(part, "a") as file:
        file["train"].attrs["num_complete"] = 100


def lose_a_sample(part):
    with h5py.File(part, "a") as file:
        for name in ("input", "output"):
            file["train"][name].resize(BLOCK + 1, axis=0)
        file["train"].attrs["num_complete"] = BLOCK + 1


def no_hdf5(part):
    part.write_text("hello")


@pytest.mark.parametrize("damage", [truncate, garble, claim_too_much, lose_a_sample, no_hdf5])
def test_a_damaged_part_is_thrown_away(tmp_path, monkeypatch, damage):
    store, part = interrupted_part(tmp_path / "a", monkeypatch, COUNTS)
    damage(part)
    assert store.ensure(COUNTS) == sum(COUNTS.values())
    whole = open_store(tmp_path / "b")
    whole.ensure(COUNTS)
    assert_equal(contents(store, COUNTS), contents(whole, COUNTS))


def test_an_interrupted_extension_is_continued(tmp_path, monkeypatch):
    store = open_store(tmp_path)
    store.ensure({"train": 10, "validation": 1, "test": 1})
    counts = {"train": 10 + 2 * BLOCK, "validation": 1, "test": 1}
    _, part = interrupted_part(tmp_path, monkeypatch, counts)
    assert complete(part) == 10 + BLOCK
    assert len(store.read("train", 10)) == 10
    assert store.ensure(counts) == BLOCK


def test_a_part_behind_the_finished_file_is_thrown_away(tmp_path, monkeypatch):
    counts = {"train": 3 * BLOCK, "validation": 1, "test": 1}
    store, part = interrupted_part(tmp_path, monkeypatch, counts)
    old = part.read_bytes()
    store.ensure(counts)
    part.write_bytes(old)
    assert store.ensure({**counts, "test": 5}) == 4
    assert len(store.read("train", 3 * BLOCK)) == 3 * BLOCK


def test_two_generations_at_once(tmp_path, monkeypatch):
    store, part = interrupted_part(tmp_path, monkeypatch, COUNTS)
    with h5py.File(part, "a"), pytest.raises(UserError, match="another process is generating"):
        subprocess_ensure(tmp_path)
    assert store.ensure(COUNTS) == sum(COUNTS.values()) - BLOCK


def subprocess_ensure(folder):
    """Asks for the samples from another process, as locks are between processes."""
    code = (
        "from pathlib import Path; from multigrid.data.store import DataStore;"
        "from multigrid.grid import Grid; from multigrid.problems.elliptic import Poisson;"
        f"DataStore(Path({str(folder)!r}), Poisson(num_modes=4), Grid((8, 8)), 0)"
        ".ensure({'train': 150, 'validation': 20, 'test': 10})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "UserError" in result.stderr:
        raise UserError(result.stderr)
    assert result.returncode == 0, result.stderr


def test_every_split_has_its_own_random_numbers():
    recipe = Recipe(Poisson(num_modes=4), GRID, 0)
    fields = np.concatenate([recipe.make(Block(split, 0, 3))[0] for split in SPLITS])
    distances = np.abs(fields[:, None] - fields[None]).max(axis=(2, 3, 4))
    assert (distances[~np.eye(9, dtype=bool)] > 0.01).all()
    assert fields.dtype == np.float32
