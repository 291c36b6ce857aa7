import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from multigrid.data import SPLITS, generation
from multigrid.data import store as store_module
from multigrid.data.generation import BLOCK, Block, Recipe, generate
from multigrid.data.store import DataStore, GeneratedSource
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.problems import build_problem
from multigrid.problems.base import PDE, Problem
from multigrid.problems.elliptic import Poisson

COUNTS = {"train": 150, "validation": 20, "test": 10}
GRID = Grid((8, 8))

SLOW = """
import time
from pathlib import Path
from multigrid.data import store
from multigrid.grid import Grid
from multigrid.problems import build_problem

write = store.write_file
def slowly(*arguments):
    write(*arguments)
    time.sleep(0.1)
store.write_file = slowly

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
    told = "NavierStokes.sample gave .* not finite, in sample 0 of train; problem.substeps: 1 may"
    with np.errstate(all="ignore"), pytest.raises(UserError, match=told):
        Recipe(problem, Grid((16, 16)), seed=0).make(Block("train", 0, 1))


class Waves(PDE):
    """Sines of random phase, of which a test overrides what it needs."""

    kind = "waves"
    input_names = ("a",)
    output_names = ("u", "v")

    def sample(self, grid, rngs):
        x, y = np.meshgrid(*grid.axes(), indexing="ij")
        a = np.stack([np.sin(2 * np.pi * (x - rng.uniform())) + y for rng in rngs])[:, None]
        return a, np.concatenate([a, 2 * a], axis=1)


def waves(**methods):
    return type("Waves", (Waves,), methods)()


def sampled(change):
    return waves(sample=lambda self, grid, rngs: change(*Waves.sample(self, grid, rngs)))


EXPECTED = r"real numbers of shape \[64, 2, 8, 8\] are expected, for the grid 8x8, input_names "


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a, u: (a, u[:, :1]), rf"outputs: an array of shape \[64, 1, 8, 8\] .*; {EXPECTED}"),
        (lambda a, u: (a, np.repeat(u, 2, 1)), rf"shape \[64, 4, 8, 8\] .*; {EXPECTED}"),
        (lambda a, u: (a, u[:, :, ::2]), rf"shape \[64, 2, 4, 8\] .*; {EXPECTED}"),
        (lambda a, u: (a, u[0]), rf"shape \[2, 8, 8\] .*; {EXPECTED}"),
        (lambda a, u: (a, 1j * u), rf"and type complex128; {EXPECTED}"),
        (lambda a, u: (a, u.tolist()), rf"outputs: a list; {EXPECTED}"),
        (lambda a, u: (a[:, 0], u), r"inputs: an array of shape \[64, 8, 8\]"),
        (lambda a, u: a, "an array of .*; a pair of arrays, inputs and outputs, is expected"),
        (lambda a, u: (a, u / 0), "outputs: numbers that are not finite, in sample 0 of train"),
        (lambda a, u: (a, 1e60 * u), "outputs: numbers that are not finite, in sample 0 of train"),
        (
            lambda a, u: (a, u - u.mean(0)),
            "another sample 63 of train when asked for it alone than among 64",
        ),
        (
            lambda a, u: (a, u + np.random.default_rng().standard_normal(u.shape)),
            "another sample 63 of train",
        ),
    ],
)
def test_a_pde_must_keep_to_what_it_says(tmp_path, change, sentence):
    store = open_store(tmp_path / "data", sampled(change))
    with (
        np.errstate(all="ignore"),
        pytest.raises(UserError, match=rf"problem 'waves': Waves\.sample gave .*{sentence}"),
    ):
        store.ensure(COUNTS)
    assert list((tmp_path / "data").iterdir()) == []


def test_other_hooks_are_checked_like_samples(tmp_path):
    recipe = Recipe(waves(draw_inputs=lambda self, grid, rngs: np.ones((1, 3, 8, 8))), GRID, 0)
    with pytest.raises(UserError, match=r"Waves\.draw_inputs gave an array of shape \[1, 3, 8, 8"):
        recipe.inputs("train", [7])
    recipe = Recipe(waves(initial_outputs=lambda self, grid: np.ones((1, 8, 8))), GRID, 0)
    with pytest.raises(UserError, match=r"initial_outputs gave .* shape \[2, 8, 8\] are expected"):
        recipe.initial_outputs()
    states = np.full((4, 2, 8, 8), np.inf)
    problem = waves(time_dependent=True, trajectory=lambda self, grid, rng, num_steps: states)
    with pytest.raises(UserError, match=r"trajectory gave numbers that are not finite, in step 0"):
        GeneratedSource(open_store(tmp_path, problem)).trajectories("test", GRID, 3)
    with pytest.raises(UserError, match=r"trajectory gave .* shape \[6, 2, 8, 8\] are expected"):
        GeneratedSource(open_store(tmp_path, problem)).trajectories("test", GRID, 5)
    with pytest.raises(UserError, match=r"Waves\.sequences gave .* \[3, 3, 2, 8, 8\] are expected"):
        Recipe(problem, GRID, 0, num_steps=2).make(Block("train", 0, 3))
    with pytest.raises(UserError, match=r"is time_dependent, but has no method trajectory"):
        waves(time_dependent=True).trajectory(GRID, np.random.default_rng(0), 2)


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


def start_and_kill(folder, workers):
    """Kills a generation after at least two of its ten blocks, and returns how many are left."""
    script = folder / "slow.py"
    script.write_text(SLOW.replace("WORKERS", str(workers)))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen([sys.executable, script.name], cwd=folder, env=environment)
    deadline = time.monotonic() + 30
    while len(list(folder.glob("*.blocks/*[0-9]"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return len(list(folder.glob("*.blocks/*[0-9]")))


@pytest.mark.parametrize("workers", [1, 2])
def test_generation_goes_on_after_a_kill(tmp_path, workers):
    counts = {"train": 640, "validation": 1, "test": 1}
    left = start_and_kill(tmp_path, workers)
    assert 2 <= left < 10
    store = open_store(tmp_path)
    assert store.ensure(counts) == 642 - left * BLOCK
    whole = open_store(tmp_path / "whole")
    whole.ensure(counts)
    assert_equal(contents(store, counts), contents(whole, counts))


def test_an_interrupted_extension_is_continued(tmp_path, monkeypatch):
    store = open_store(tmp_path)
    store.ensure({"train": 10, "validation": 1, "test": 1})
    counts = {"train": 10 + 2 * BLOCK, "validation": 1, "test": 1}
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "seal", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.ensure(counts)
    assert len(store.read("train", 10)) == 10
    assert store.ensure(counts) == 0
    whole = open_store(tmp_path / "whole")
    whole.ensure(counts)
    assert_equal(contents(store, counts), contents(whole, counts))


def test_a_full_disk_is_told_and_costs_nothing(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    store = open_store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_samples", full)
        with pytest.raises(UserError, match="cannot be written: No space left on device"):
            store.ensure(COUNTS)
    assert store.ensure(COUNTS) == 0
    assert len(store.read("train", 150)) == 150


def test_two_generations_at_once(tmp_path):
    store = open_store(tmp_path)
    with store._alone(), pytest.raises(UserError, match="another process is generating"):
        open_store(tmp_path).ensure(COUNTS)
    assert store.ensure(COUNTS) == sum(COUNTS.values())
    assert [path.name for path in tmp_path.iterdir()] == [store.path.name]


def test_every_split_has_its_own_random_numbers():
    recipe = Recipe(Poisson(num_modes=4), GRID, 0)
    fields = np.concatenate([recipe.make(Block(split, 0, 3))[0] for split in SPLITS])
    distances = np.abs(fields[:, None] - fields[None]).max(axis=(2, 3, 4))
    assert (distances[~np.eye(9, dtype=bool)] > 0.01).all()
    assert fields.dtype == np.float32
