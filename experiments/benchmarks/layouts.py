"""What a random order costs in files of trajectories: ``python -m experiments.benchmarks.layouts``.

Random one-step pairs on 128x128 are read in batches, as training does, from the file itself and as
streaming reads it, which is from a copy where a chunk holds several samples. Beside them stands a
training step on that grid, of the default network, with one of its coarse levels.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy
import torch

from multigrid.config import parse_config
from multigrid.config.data import ReaderOptions
from multigrid.data.files import FileSource
from multigrid.data.samples import StreamedSamples
from multigrid.data.splits import DataFile
from multigrid.files import write_text
from multigrid.grid import Grid
from multigrid.ladder.experiment import Experiment
from multigrid.tables import table
from multigrid.training.speed import step_seconds

NUM, STEPS, SIZE = 16, 21, 128
BATCH_SIZE, NUM_BATCHES = 16, 16
COUNTS = {"train": 256, "validation": 20, "test": 20}
RECORD = Path("results/benchmarks/layouts/table.txt")
Writer = Callable[[Path, np.ndarray], str]
"""Writes states ``[N, T, X, Y]`` into a folder and returns the name of what is to be opened."""


def _hdf5(folder: Path, states: np.ndarray, **options: Any) -> str:
    with h5py.File(folder / "states.h5", "w") as file:
        file.create_dataset("tensor", data=states, **options)
    return "states.h5"


def _many(folder: Path, states: np.ndarray) -> str:
    (folder / "many").mkdir()
    for number, trajectory in enumerate(states):
        np.savez(folder / "many" / f"{number:04}.npz", tensor=trajectory)
    return "many"


def _numpy(folder: Path, states: np.ndarray, save: Callable[..., None] = np.savez) -> str:
    save(folder / "states.npz", tensor=states)
    return "states.npz"


def _matlab(folder: Path, states: np.ndarray, compressed: bool = False) -> str:
    scipy.io.savemat(folder / "states.mat", {"tensor": states}, do_compression=compressed)
    return "states.mat"


def _netcdf(folder: Path, states: np.ndarray) -> str:
    with scipy.io.netcdf_file(folder / "states.nc", "w", version=2) as file:
        for name, size in zip("ntxy", states.shape, strict=True):
            file.createDimension(name, size)
        file.createVariable("tensor", "f4", tuple("ntxy"))[:] = states
    return "states.nc"


GZIP = {"compression": "gzip"}
LAYOUTS: dict[str, Writer] = {
    "HDF5, contiguous": _hdf5,
    "HDF5, a step a chunk, gzip": partial(_hdf5, chunks=(1, 1, SIZE, SIZE), **GZIP),
    "HDF5, 8 steps a chunk, gzip": partial(_hdf5, chunks=(1, 8, SIZE, SIZE), **GZIP),
    "HDF5, a trajectory a chunk, gzip": partial(_hdf5, chunks=(1, STEPS, SIZE, SIZE), **GZIP),
    ".npz": _numpy,
    ".npz, compressed": partial(_numpy, save=np.savez_compressed),
    ".npz, a file a trajectory": _many,
    ".mat of version 5": _matlab,
    ".mat of version 5, compressed": partial(_matlab, compressed=True),
    "netCDF of version 3": _netcdf,
}


def measure_layouts(folder: Path) -> str:
    """Returns a table of samples per second, shares of training and the time that a copy takes."""
    states = np.random.default_rng(0).standard_normal((NUM, STEPS, SIZE, SIZE), dtype=np.float32)
    names, step = _training_rates()
    rows = []
    for number, (name, write) in enumerate(LAYOUTS.items()):
        place = folder / str(number)
        place.mkdir()
        path = place / write(place, states)
        axes = "T X Y" if path.is_dir() else "N T X Y"
        options = ReaderOptions(input="tensor", output="tensor", axes=axes)
        rates = []
        for copies in (None, place / "copies"):
            started = time.perf_counter()
            source = FileSource([DataFile(path)], COUNTS, "cell", options, folder=copies)
            samples = source.open("train", Grid((SIZE, SIZE)))
            opened = time.perf_counter() - started
            rates.append(_rate(samples))
        copied = f"{opened:.1f}" if list(place.glob("copies/*")) else "-"
        shares = [f"{100 * rate / (rate + rates[1]):.1f}" for rate in step]
        rows.append([name, *(f"{rate:.0f}" for rate in rates), copied, *shares])
    header = ["Layout", "Samples/s from the file", "as streamed", "Copy and checks, s"]
    header += [f"% of training {name}" for name in names]
    trained = ", ".join(f"{r:.0f} on {n}" for n, r in zip(names, step, strict=True))
    return f"{table(header, rows)}\nsamples/s of training alone: {trained}"


def _training_rates() -> tuple[list[str], list[float]]:
    """Returns the finest level and a folded one four times coarser, and samples/s of training."""
    raw = {
        "name": "layouts",
        "problem": {"kind": "darcy"},
        "levels": [SIZE // 4, SIZE],
        "model": {"fields": "folded"},
        "schedule": {"batch_size": BATCH_SIZE},
    }
    experiment = Experiment(parse_config(raw))
    how = (BATCH_SIZE, 1, SIZE, SIZE), experiment.options.optimizer, experiment.precision
    rates = [BATCH_SIZE / step_seconds(experiment.family.build(n), *how) for n in (1, 0)]
    return [f"{SIZE}x{SIZE}", f"folded {SIZE // 4}x{SIZE // 4}"], rates


def _rate(samples: StreamedSamples) -> float:
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    started = time.perf_counter()
    for _ in samples.batches(order.split(BATCH_SIZE)[:NUM_BATCHES]):
        pass
    return BATCH_SIZE * NUM_BATCHES / (time.perf_counter() - started)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        text = measure_layouts(Path(temporary))
    write_text(RECORD, f"{text}\n")
    print(text)
