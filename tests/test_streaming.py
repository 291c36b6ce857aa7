"""Samples that stay on disk are the same as those in memory, and never many at once."""

import csv
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tiny import run, train, write_experiment
from torch import nn

from multigrid import signals
from multigrid.config import load_config
from multigrid.data import samples as samples_module
from multigrid.data.files import FilePart, FileSource
from multigrid.data.formats import ReaderOptions
from multigrid.data.samples import Samples, StreamedSamples, block_size
from multigrid.data.splits import DataFile
from multigrid.data.statistics import ChannelStatistics
from multigrid.data.store import DataStore, GeneratedSource
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.ladder.data import training_samples
from multigrid.ladder.experiment import Experiment
from multigrid.models.scaling import FieldScaling, Surrogate
from multigrid.problems.elliptic import Poisson
from multigrid.schedule import Stage
from multigrid.training.callbacks import Callback, Callbacks
from multigrid.training.checkpoint import load_checkpoint
from multigrid.training.losses import build_loss
from multigrid.training.trainer import Trainer, TrainerOptions

GRID = Grid((16, 16))
COUNTS = {"train": 20, "validation": 4, "test": 4}
RNG = np.random.default_rng(0)


def generated(folder: Path) -> GeneratedSource:
    source = GeneratedSource(DataStore(folder, Poisson(num_modes=4), GRID, seed=0))
    source.prepare(COUNTS)
    return source


def save(path: Path, *fields: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = fields
    return path


def independent(folder: Path) -> FileSource:
    path = save(folder / "f.h5", *RNG.standard_normal((2, 28, 1, 16, 16), dtype=np.float32))
    return FileSource([DataFile(path)], COUNTS, "cell")


def trajectories(folder: Path) -> FileSource:
    with h5py.File(folder / "f.h5", "w") as file:
        file["tensor"] = RNG.standard_normal((20, 5, 16, 16), dtype=np.float32)
    return FileSource([DataFile(folder / "f.h5")], COUNTS, "cell")


def assert_same(one: Samples, other: Samples) -> None:
    assert one.grid == other.grid
    assert torch.equal(one.inputs, other.inputs)
    assert torch.equal(one.outputs, other.outputs)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("samples")]


# ---------------------------------------------------------------- the same samples


@pytest.mark.parametrize("size", [16, 4])
@pytest.mark.parametrize("make", [generated, independent, trajectories])
def test_what_is_read_is_what_is_held(make, size: int, tmp_path: Path, monkeypatch) -> None:
    grid, source = Grid((size, size)), make(tmp_path)
    held, streamed = source.read("train", grid, 20), source.open("train", grid, 20)
    order = torch.from_numpy(RNG.permutation(20))
    assert (len(streamed), streamed.grid) == (20, grid)
    assert streamed.num_channels == held.num_channels
    for blocks in range(2):
        if blocks:
            monkeypatch.setattr(samples_module, "BLOCK_POINTS", 3 * GRID.size)
        for index in (slice(None), slice(3, 11), order, order[:7], torch.tensor([4, 4, 1])):
            assert_same(streamed[index], held[index])
    for ours, theirs in zip(streamed.split(6), held.split(6), strict=True):
        assert_same(ours, theirs)
    indices = order.split(6)
    for ours, theirs in zip(streamed.batches(indices), held.batches(indices), strict=True):
        assert_same(ours, theirs)
    assert threads() == []


def test_the_finest_samples_are_not_kept_for_coarse_ones(tmp_path: Path) -> None:
    source = generated(tmp_path)
    coarse = source.read("train", Grid((8, 8)), 20)
    source.store.path.rename(tmp_path / "away.h5")
    with pytest.raises(UserError, match="no longer there"):
        source.read("train", Grid((8, 8)), 20)
    (tmp_path / "away.h5").rename(source.store.path)
    finest = source.read("train", GRID, 20)
    source.store.path.unlink()
    assert_same(source.read("train", Grid((8, 8)), 20), coarse)
    assert_same(finest.restrict_to(Grid((8, 8))), coarse)


def test_a_store_with_too_few_samples(tmp_path: Path) -> None:
    source = generated(tmp_path)
    with pytest.raises(UserError, match="holds 20 train samples, not 21"):
        source.open("train", GRID, 21)


@pytest.mark.parametrize("value", [np.nan, 3])
def test_values_are_checked_before_the_training(value: float, tmp_path: Path) -> None:
    fields = RNG.standard_normal((2, 28, 16, 16), dtype=np.float32)
    if np.isnan(value):
        fields[1, 5, 0, 0] = value
    else:
        fields[1] = value
    data = FileSource([DataFile(save(tmp_path / "f.h5", *fields))], COUNTS, "cell")
    with pytest.raises(UserError, match=r"in sample 5|is constant"):
        data.open("train", GRID)


def test_values_are_checked_once(tmp_path: Path, monkeypatch) -> None:
    data, seen = independent(tmp_path), []
    load = FilePart.load
    monkeypatch.setattr(FilePart, "load", lambda p, i: seen.extend(i) or load(p, i))
    for size in (16, 8, 4):
        data.open("train", Grid((size, size)))
    assert sorted(seen) == list(range(20))


# ---------------------------------------------------------------- reading ahead


class Recorder:
    """Samples ``0, 1, 2, ...`` that notes what is loaded, and fails at the n-th load."""

    grid = Grid((4, 4))

    def __init__(self, count: int, fails_at: float = math.inf) -> None:
        self.fails_at = fails_at
        self.loads: list[list[int]] = []
        self.samples = StreamedSamples(self.load, count, (1, 1), self.grid, self.grid)

    def load(self, indices: np.ndarray) -> Samples:
        self.loads.append(indices.tolist())
        if len(self.loads) == self.fails_at:
            raise UserError("f.h5: damaged")
        fields = torch.from_numpy(indices).float().reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)
        return Samples(fields, fields + 1, self.grid)


class Interrupted(Callback):
    """Stops a training in its n-th step."""

    def __init__(self, at: float = math.inf) -> None:
        self.at = at

    def on_step(self, trainer: Trainer) -> None:
        if trainer.progress.step == self.at:
            raise KeyboardInterrupt


def trainer(stored: Recorder) -> Trainer:
    unscaled = FieldScaling("none", (0.0,), (1.0,), (0.0,), (1.0,), ())
    surrogate = Surrogate(nn.Conv2d(1, 1, 3, padding=1), unscaled)
    samples = stored.samples
    loss = build_loss("mse", stored.grid, Poisson(num_modes=2))
    options = TrainerOptions(optimizer="adamw")
    stage = Stage(0, 0, 2, 4, 1e-3, 1.0, 0.0)
    return Trainer(surrogate, samples, lambda _: (1.0, 1.0), stage, loss, options)


def test_one_batch_is_read_ahead_and_no_more() -> None:
    stored = Recorder(20)
    batches = stored.samples.batches(torch.arange(20).split(4))
    for number, batch in enumerate(batches, start=1):
        assert batch.inputs[:, 0, 0, 0].tolist() == list(range(4 * number - 4, 4 * number))
        assert len(stored.loads) <= number + 1
    assert [len(load) for load in stored.loads] == [4] * 5


def test_every_sample_is_read_once_an_epoch() -> None:
    stored = Recorder(18)
    trainer(stored).fit(Callbacks([Interrupted()]))
    assert [len(load) for load in stored.loads] == 2 * [4, 4, 4, 4, 2]
    for epoch in (stored.loads[:5], stored.loads[5:]):
        assert sorted(number for load in epoch for number in load) == list(range(18))
    assert threads() == []


def test_what_goes_wrong_in_the_thread_surfaces() -> None:
    with pytest.raises(UserError, match="damaged"):
        trainer(Recorder(20, fails_at=3)).fit(Callbacks([Interrupted()]))
    assert threads() == []


def test_an_interrupted_epoch_leaves_no_thread() -> None:
    stored = Recorder(20)
    with pytest.raises(KeyboardInterrupt):
        trainer(stored).fit(Callbacks([Interrupted(at=2)]))
    assert threads() == []
    assert len(stored.loads) <= 3


def test_a_training_without_a_recorder_notices_a_signal_after_a_step() -> None:
    class Send(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.progress.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    training = trainer(Recorder(20))
    with signals.watched(), signals.deferred(), pytest.raises(signals.Interrupted, match="SIGTERM"):
        training.fit(Callbacks([Send()]))
    assert training.progress.step == 2
    assert threads() == []


# ---------------------------------------------------------------- statistics


def test_statistics_by_hand() -> None:
    statistics = ChannelStatistics(2)
    statistics.add(torch.tensor([[[1.0, 2.0], [5.0, 5.0]]]))
    statistics.add(torch.tensor([[[3.0, 6.0], [5.0, 5.0]], [[0.0, 0.0], [5.0, 5.0]]]))
    assert statistics.mean.tolist() == [2, 5]
    assert statistics.std.tolist() == pytest.approx([math.sqrt((1 + 0 + 1 + 16 + 4 + 4) / 5), 0])
    assert statistics.root_mean_square.tolist() == pytest.approx([math.sqrt(50 / 6), 5])
    assert (statistics.low.tolist(), statistics.high.tolist()) == ([0, 5], [6, 5])
    assert statistics.or_size(statistics.high - statistics.low).tolist() == [6, 5]


def test_a_large_mean_costs_no_digits() -> None:
    fields = 1e6 + torch.arange(4096.0).reshape(64, 1, 8, 8) % 7
    whole, parts = ChannelStatistics(1), ChannelStatistics(1)
    whole.add(fields)
    for part in fields.split(5):
        parts.add(part)
    exact = fields.double().std().item()
    assert whole.std.item() == pytest.approx(exact, rel=1e-12)
    assert parts.std.item() == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("kind", ["none", "gaussian", "min-max", "homogeneous"])
def test_statistics_are_the_same_bits_either_way(kind, tmp_path: Path, monkeypatch) -> None:
    source = independent(tmp_path)
    monkeypatch.setattr(samples_module, "BLOCK_POINTS", 3 * GRID.size)
    held, streamed = (read("train", GRID, 20) for read in (source.read, source.open))
    scaling = FieldScaling.fit(kind, streamed)
    assert FieldScaling.fit(kind, held) == scaling
    (field,) = scaling.fields
    assert (field.low, field.high) == (held.outputs.min().item(), held.outputs.max().item())


# ---------------------------------------------------------------- whole runs


def history(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob("results/*/metrics.csv")
    with path.open() as file:
        return [
            {k: v for k, v in row.items() if "seconds" not in k and k not in ("run", "checksum")}
            for row in csv.DictReader(file)
        ]


def assert_same_run(one: Path, other: Path) -> None:
    assert history(one) == history(other)
    paths = sorted(one.glob("results/*/level_*/best.pt"))
    assert len(paths) == 2
    for path in paths:
        ours, theirs = load_checkpoint(path), load_checkpoint(other / path.relative_to(one))
        assert ours["scaling"] == theirs["scaling"]
        for name, tensor in ours["network"].items():
            assert torch.equal(tensor, theirs["network"][name]), name


def file_experiment(folder: Path) -> Path:
    f, u = Poisson(num_modes=4).sample(GRID, [np.random.default_rng(i) for i in range(40)])
    path = save(folder / "f.h5", f.astype(np.float32), u.astype(np.float32))
    problem = {"kind": "file", "file": str(path)}
    data = {"train": 28, "validation": 8, "test": 4, "normalization": "min-max"}
    return write_experiment(folder / "e.yaml", problem=problem, data=data)


def poisson_experiment(folder: Path) -> Path:
    return write_experiment(folder / "e.yaml", problem={"kind": "poisson", "num_modes": 4})


@pytest.mark.parametrize("make", [poisson_experiment, file_experiment])
def test_a_streamed_run_is_the_same_bit_for_bit(make, tmp_path: Path, monkeypatch) -> None:
    experiment, folders = make(tmp_path), [tmp_path / "hold", tmp_path / "stream"]
    monkeypatch.setattr(samples_module, "BLOCK_POINTS", 5 * GRID.size)
    summaries = [
        train(experiment, folder, f"data.memory={folder.name}", "schedule.epochs=2")
        for folder in folders
    ]
    assert_same_run(*folders)
    assert summaries[0]["test"] == summaries[1]["test"]


def test_a_streamed_run_never_holds_many_samples(tmp_path: Path, monkeypatch) -> None:
    loads, load = [], DataStore.load

    def counted(store: DataStore, split: str, indices: np.ndarray) -> Samples:
        loads.append(len(indices))
        return load(store, split, indices)

    monkeypatch.setattr(DataStore, "load", counted)
    monkeypatch.setattr(samples_module, "BLOCK_POINTS", 5 * GRID.size)
    train(poisson_experiment(tmp_path), tmp_path, "data.memory=stream")
    assert block_size(GRID) == 5
    assert max(loads) == 5


def test_what_fits_in_memory_is_held(tmp_path: Path, monkeypatch) -> None:
    config = load_config(poisson_experiment(tmp_path), [f"data.folder={tmp_path / 'data'}"])
    fine, coarse = 4 * 2 * 32 * 16**2, 4 * 2 * 32 * 8**2
    for memory, expected in (
        (2 * fine, (Samples, Samples)),
        (2 * fine - 1, (StreamedSamples, Samples)),
        (2 * coarse - 1, (StreamedSamples, StreamedSamples)),
    ):
        monkeypatch.setattr("multigrid.ladder.cost.total_memory", lambda _, memory=memory: memory)
        experiment = Experiment(config)
        experiment.source.prepare(experiment.counts)
        found = [training_samples(experiment, Grid((n, n)), 32) for n in (16, 8)]
        assert tuple(map(type, found)) == expected


def test_a_file_that_breaks_meanwhile_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    load, loads = DataStore.load, []

    def break_at_last(store: DataStore, split: str, indices: np.ndarray) -> Samples:
        loads.append(indices)
        if len(loads) == 4:
            store.path.write_bytes(b"broken")
        return load(store, split, indices)

    experiment = poisson_experiment(tmp_path)
    monkeypatch.setattr(DataStore, "load", break_at_last)
    assert run(experiment, tmp_path, "data.memory=stream") == 2
    assert "unreadable or half-written HDF5 file" in capsys.readouterr().err
    assert threads() == []


# ---------------------------------------------------------------- compressed trajectories

NUM, STEPS = 12, 9


def compressed(path: Path, chunks: tuple[int, ...], size: int = 16) -> np.ndarray:
    states = np.random.default_rng(0).standard_normal((NUM, STEPS, size, size), dtype=np.float32)
    with h5py.File(path, "w") as file:
        file.create_dataset("tensor", data=states, chunks=chunks, compression="gzip")
        file["t-coordinate"] = np.arange(STEPS) / 2
    return states


@pytest.mark.parametrize("chunks", [(1, STEPS, 16, 16), (1, 8, 16, 16), (5, 3, 16, 16)])
def test_compressed_trajectories_are_copied_once(chunks, tmp_path: Path, monkeypatch) -> None:
    compressed(tmp_path / "f.h5", chunks)
    monkeypatch.setattr("multigrid.data.arrays.BLOCK_BYTES", 1)
    counts = {"train": 40, "validation": 8, "test": 8}
    held, streamed = (
        FileSource([DataFile(tmp_path / "f.h5")], counts, "cell", folder=tmp_path / "data")
        for _ in range(2)
    )
    expected = held.read("train", GRID)
    assert not (tmp_path / "data").exists()
    samples = streamed.open("train", GRID)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(samples[order].inputs, expected.inputs[order])
    assert torch.equal(samples[order].outputs, expected.outputs[order])
    (remark,) = (line for line in streamed.remarks if "copy" in line)
    assert str(tmp_path / "data") in remark
    (copy,) = (tmp_path / "data").glob("*.npy")
    before = copy.stat().st_mtime_ns
    again = FileSource([DataFile(tmp_path / "f.h5")], counts, "cell", folder=tmp_path / "data")
    assert torch.equal(again.open("train", GRID)[order].inputs, expected.inputs[order])
    assert copy.stat().st_mtime_ns == before
    assert again.fingerprint == held.fingerprint


def test_copies_of_arrays_with_similar_names_are_apart(tmp_path: Path) -> None:
    fields = np.random.default_rng(0).standard_normal((2, 16, 16, 16), dtype=np.float32)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for name, field in zip(("a/b", "a__b"), fields, strict=True):
            file.create_dataset(name, data=field, chunks=(8, 16, 16), compression="gzip")
    files, options = [DataFile(tmp_path / "f.h5")], ReaderOptions(input="a/b", output="a__b")
    counts = {"train": 8, "validation": 4, "test": 4}
    source = FileSource(files, counts, "cell", options, folder=tmp_path / "data")
    samples = source.open("train", GRID)[:]
    assert np.array_equal(samples.inputs[:, 0], fields[0, :8])
    assert np.array_equal(samples.outputs[:, 0], fields[1, :8])


def test_chunks_of_one_step_are_not_copied(tmp_path: Path) -> None:
    compressed(tmp_path / "f.h5", (1, 1, 16, 16))
    counts = {"train": 40, "validation": 8, "test": 8}
    source = FileSource([DataFile(tmp_path / "f.h5")], counts, "cell", folder=tmp_path / "data")
    source.open("train", GRID)
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does")
@pytest.mark.parametrize("name", ["f.h5", "f.npz", "packed.npz"])
def test_a_file_four_times_larger_than_the_memory(name: str, tmp_path: Path) -> None:
    shape, chunks = (32, 32, 160, 160), (1, 32, 160, 160)  # 105 MB
    first = np.random.default_rng(0).integers(0, 64, (160, 160))
    trajectory = (first + np.arange(32)[:, None, None]).astype("f4")
    trajectory[:, 0, 0] = 0
    if name == "f.h5":
        with h5py.File(tmp_path / name, "w") as file:
            states = file.create_dataset("tensor", shape, "f4", chunks=chunks, compression="lzf")
            for k in range(32):
                states[k] = trajectory
    else:
        save = np.savez_compressed if name == "packed.npz" else np.savez
        save(tmp_path / name, u=np.broadcast_to(trajectory, shape))
    code = (
        "import resource, torch; from pathlib import Path\n"
        "from multigrid.data import arrays; from multigrid.data.files import FileSource\n"
        "from multigrid.data.formats import ReaderOptions\n"
        "from multigrid.data.splits import DataFile; from multigrid.grid import Grid\n"
        "arrays.BLOCK_BYTES = 2**21\n"
        "used = int(Path('/proc/self/statm').read_text().split()[5]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (used + 26 * 2**20,) * 2)\n"
        "counts = {'train': 500, 'validation': 40, 'test': 40}\n"
        f"options = ReaderOptions(axes={None if name == 'f.h5' else 'N T X Y'!r})\n"
        f"files, folder = [DataFile(Path('{name}'))], Path('data')\n"
        "source = FileSource(files, counts, 'cell', options, folder=folder)\n"
        "samples = source.open('train', Grid((160, 160)))\n"
        "for batch in samples.batches(torch.randperm(500).split(8)[:8]):\n"
        "    assert (batch.outputs[:, 0, 1:] - batch.inputs[:, 0, 1:] == 1).all()\n"
        "print('all read')"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "all read\n", done.stderr
