import shutil

import h5py
import numpy as np
import pytest
import torch

from multigrid import files
from multigrid.data import SPLITS
from multigrid.data import store as store_module
from multigrid.data.arrays import write_array
from multigrid.data.formats import ReaderOptions, open_container, open_fields
from multigrid.data.formats.layout import copy_array
from multigrid.data.generation import BLOCK, Block
from multigrid.data.store import DataStore
from multigrid.errors import UserError, brief
from multigrid.grid import Grid
from multigrid.problems.elliptic import Poisson

COUNTS = {"train": 6, "validation": 3, "test": 2}
GRID = Grid((8, 8))


def open_store(folder, seed=0, grid=GRID, **parameters):
    return DataStore(folder, Poisson(**{"num_modes": 4, **parameters}), grid, seed)


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "data")
    assert store.ensure(COUNTS) == sum(COUNTS.values())
    return store


def test_samples_are_those_of_the_problem(store):
    samples = store.open("train", 6)[:]
    key = np.random.SeedSequence(0, spawn_key=(SPLITS.index("train"), 5))
    f, u = store.problem.sample(GRID, [np.random.default_rng(key)])
    assert samples.inputs.dtype == samples.outputs.dtype == torch.float32
    np.testing.assert_allclose(samples.inputs[5:], f, rtol=1e-6)
    np.testing.assert_allclose(samples.outputs[5:], u, rtol=1e-6)
    assert (len(samples), samples.grid) == (6, GRID)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"grid": Grid((16, 16))},
        {"grid": Grid((8, 8), "node")},
        {"num_modes": 5},
        {"smoothness": 2.5},
        {"inverse_length": 1.0},
        {"ndim": 3, "grid": Grid((8, 8, 8))},
    ],
)
def test_another_setting_is_another_file(store, change):
    other = open_store(store.path.parent, **change)
    assert other.fingerprint != store.fingerprint
    assert other.path != store.path
    assert other.ensure({"train": 1}) == 1


def test_a_new_version_of_the_problem_is_another_file(store, monkeypatch):
    before = store.fingerprint
    monkeypatch.setattr(Poisson, "version", Poisson.version + 1)
    assert open_store(store.path.parent).fingerprint != before


def test_unchanged_settings_reuse_the_file(store):
    before = store.path.stat()
    again = open_store(store.path.parent)
    assert again.ensure(COUNTS) == 0
    assert again.ensure({"train": 1, "validation": 1, "test": 1}) == 0
    after = store.path.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_more_samples_keep_the_old_bit_for_bit(store):
    old = {split: store.open(split, count)[:] for split, count in COUNTS.items()}
    assert store.ensure({**COUNTS, "train": BLOCK + 10}) == BLOCK + 4
    for split, count in COUNTS.items():
        samples = store.open(split, count)[:]
        assert torch.equal(samples.inputs, old[split].inputs)
        assert torch.equal(samples.outputs, old[split].outputs)
    assert len(store.open("train", BLOCK + 10)[:]) == BLOCK + 10


def test_samples_do_not_depend_on_how_many_were_asked_for(store, tmp_path):
    large = open_store(tmp_path / "elsewhere")
    large.ensure({"train": BLOCK + 10, "validation": 20, "test": 30})
    for split, count in COUNTS.items():
        torch.testing.assert_close(
            large.open(split, count)[:].inputs,
            store.open(split, count)[:].inputs,
            rtol=0,
            atol=1e-6,
        )


def test_no_two_samples_are_alike(store):
    everything = torch.cat([store.open(split, count)[:].inputs for split, count in COUNTS.items()])
    distances = torch.cdist(everything.flatten(1), everything.flatten(1))
    distances.fill_diagonal_(torch.inf)
    assert distances.min() > 0.1


def test_one_sample_is_one_chunk_and_the_file_describes_itself(store):
    with h5py.File(store.path) as file:
        for split in SPLITS:
            assert file[split]["input"].chunks == (1, 1, 8, 8)
            assert file[split]["output"].chunks == (1, 1, 8, 8)
        assert list(file["train/input"].attrs["fields"]) == ["f"]
        assert list(file.attrs["grid"]) == [8, 8]
        assert file.attrs["centering"] == "cell"
        assert file.attrs["seed"] == 0
        assert file.attrs["fingerprint"] == store.fingerprint
        assert '"num_modes": 4' in file.attrs["parameters"]


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9])
def test_truncated_file(store, fraction):
    content = store.path.read_bytes()
    store.path.write_bytes(content[: int(fraction * len(content))])
    for action in (lambda: store.ensure(COUNTS), lambda: store.open("train", 6)[:]):
        with pytest.raises(UserError, match=r"\.h5: unreadable or half-written HDF5 file"):
            action()


def test_no_hdf5_at_all(store):
    store.path.write_text("hello")
    with pytest.raises(UserError, match="unreadable or half-written"):
        store.ensure(COUNTS)


@pytest.mark.parametrize("victim", ["test", "test/input"])
def test_missing_group(store, victim):
    with h5py.File(store.path, "a") as file:
        del file[victim]
    with pytest.raises(UserError, match=r"\.h5: unreadable"):
        store.open("test", 1)[:]


def test_missing_split_is_noticed_before_training(store):
    with h5py.File(store.path, "a") as file:
        del file["test"]
    with pytest.raises(UserError, match=r"\.h5: unreadable"):
        store.ensure(COUNTS)


def test_fewer_samples_than_asked_for(store):
    with pytest.raises(UserError):
        store.open("train", 100)[:]


def test_file_of_other_settings(store):
    other = open_store(store.path.parent, seed=1)
    store.path.rename(other.path)
    with pytest.raises(UserError, match="holds samples of other settings"):
        other.ensure(COUNTS)


def test_interrupted_generation_is_continued(tmp_path, monkeypatch):
    counts = {"train": 3 * BLOCK, "validation": 1, "test": 1}
    store, whole = open_store(tmp_path / "a"), open_store(tmp_path / "b")
    whole.ensure(counts)
    interrupt(store, counts, monkeypatch, after=2)
    assert not store.path.exists()
    assert store.ensure(counts) == BLOCK + 2
    assert torch.equal(store.open("train", 3 * BLOCK)[:].inputs, whole.open("train", 192)[:].inputs)
    assert [path.name for path in store.path.parent.iterdir()] == [store.path.name]


@pytest.mark.parametrize(("seconds", "lines"), [(0, 4), (60, 0)])
def test_a_log_gets_a_line_a_minute(tmp_path, monkeypatch, capsys, seconds, lines):
    look = {**store_module.LINES, "delay": seconds, "mininterval": seconds}
    monkeypatch.setattr(store_module, "LINES", look)
    open_store(tmp_path).ensure({"train": 3 * BLOCK})
    told = capsys.readouterr().err
    assert told.count(f"of {3 * BLOCK}, ") == told.count(" left\n") == lines
    assert (f"samples {GRID}: {BLOCK} of {3 * BLOCK}, " in told) == (lines > 0)


def interrupt(store, counts, monkeypatch, after):
    """Stops a generation after some blocks."""
    write, calls = files.write_file, []

    def interrupted(path, content):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(path)
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.ensure(counts)
    return calls


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "data").write_text("a file in the way")
    with pytest.raises(UserError, match="samples could not be written"):
        open_store(tmp_path / "data").ensure(COUNTS)


def test_a_disk_too_small_is_told_before_anything_is_made(store, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert store.ensure({"train": 40}) == 34
    monkeypatch.setattr(store_module, "generate", lambda *args: pytest.fail("generates"))
    needed = 8 * 8 * 2 * 4 * (5_000 - 40 + 5_000 + 5)
    with pytest.raises(UserError, match=f"left on device: {needed / 1e9:.3g} GB are needed, 0.001"):
        store.ensure({"train": 5_000})
    with pytest.raises(UserError, match=r"No space left on device: 0.0256 GB are needed"):
        write_array(tmp_path / "f.npy", (100, 1, 80, 800), [], print, ["u"])


@pytest.fixture
def limited(monkeypatch):
    """Has no file grow beyond 60 kB, which stops HDF5 and memory maps as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_limit_of_file_sizes_is_told_before_hdf5_meets_it(tmp_path, limited, capfd):
    with pytest.raises(UserError, match=r"seed0_\w+\.h5: cannot be written: File too large$"):
        open_store(tmp_path).ensure(COUNTS)
    values = [np.zeros((100, 1, 80, 80), np.float32)]
    for name in ("f.h5", "f.npy"):
        with pytest.raises(UserError, match=rf"{name}: cannot be written: File too large$"):
            write_array(tmp_path / name, (100, 1, 80, 80), values, print, ["u"])
        assert not list(tmp_path.glob("f.*"))
    assert capfd.readouterr().err == ""


def test_a_limit_of_file_sizes_is_told_where_arrays_are_copied(tmp_path, limited):
    path = tmp_path / "f.npz"
    np.savez_compressed(path, x=np.zeros((100, 80, 80), np.float32))
    with pytest.raises(UserError, match=r"cannot be written: File too large$"):
        copy_array(open_container(path, ReaderOptions()), "x", tmp_path / "x.npy")


def test_hdf5_files_hold_no_more_than_they_need(store, tmp_path):
    assert store.ensure({"train": 40}) == 34
    assert store.path.stat().st_size < 70_000  # of 100 kB reserved
    assert torch.equal(store.open("train", 6)[:].inputs, store.open("train", 40)[:].inputs[:6])
    values = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    write_array(tmp_path / "f.h5", values.shape, [values], lambda count: None, ["u"])
    with h5py.File(tmp_path / "f.h5") as file:
        assert np.array_equal(file["output"], values)
    assert (tmp_path / "f.h5").stat().st_size < 16_000


def test_what_hdf5_says_of_a_failure_is_cut_to_what_the_system_says():
    dump = (
        "[Errno 28] Can't write data (file write failed: time = Thu Nov 26 05:00:15 2026\n, "
        "filename = 'f.h5', file descriptor = 3, errno = 28, error message = 'No space left on "
        "device', buf = 0x55d0, total write size = 96, offset = 800)"
    )
    assert brief(RuntimeError(dump)) == "No space left on device"


def test_splits_share_nothing_with_other_seeds(tmp_path):
    inputs = []
    for seed in (0, 1):
        store = open_store(tmp_path, seed)
        store.ensure(COUNTS)
        inputs += [store.open(split, 2)[:].inputs for split in SPLITS]
    everything = torch.cat(inputs).flatten(1)
    distances = torch.cdist(everything, everything)
    distances.fill_diagonal_(torch.inf)
    assert distances.min() > 0.1


def damaged(content, rng):
    """A file with a bit flipped, or an extent of zeros."""
    at = int(rng.integers(len(content)))
    changed = bytearray(content)
    if rng.random() < 0.5:
        changed[at] ^= 1 << int(rng.integers(8))
    else:
        stop = min(len(content), at + int(rng.integers(1, 5000)))
        changed[at:stop] = bytes(stop - at)
    return bytes(changed)


def test_damage_is_told_whatever_it_is(store):
    content, rng = store.path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        changed = damaged(content, rng)
        if changed == content:  # an extent that was zero
            continue
        store.path.write_bytes(changed)
        with pytest.raises(UserError, match="delete it to regenerate the samples"):
            open_store(store.path.parent).ensure(COUNTS)


def test_damage_is_told_where_the_file_is_read_as_any_other(store):
    content = bytearray(store.path.read_bytes())
    content[len(content) // 2] ^= 1
    store.path.write_bytes(content)
    with pytest.raises(UserError, match="changed since multigrid wrote it"):
        open_fields(store.path)


def test_damage_to_an_interrupted_generation_is_made_anew(tmp_path, monkeypatch):
    counts = {"train": BLOCK, "validation": 3, "test": 1}
    store, rng = open_store(tmp_path), np.random.default_rng(0)
    first, second = interrupt(store, counts, monkeypatch, after=2)
    content = second.read_bytes()
    for changed in (*(damaged(content, rng) for _ in range(30)), b"", content[:-1]):
        second.write_bytes(changed)
        assert (store._read_block(Block("validation", 0, 3)) is None) == (changed != content)
    first.write_bytes(damaged(first.read_bytes(), rng))
    assert store.ensure(counts) == BLOCK + 4
    whole = open_store(tmp_path / "whole")
    whole.ensure(counts)
    for split, count in counts.items():
        assert torch.equal(store.open(split, count)[:].outputs, whole.open(split, count)[:].outputs)
