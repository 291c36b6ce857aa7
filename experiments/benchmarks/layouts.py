"""What a random order costs in files of trajectories: ``python -m experiments.benchmarks.layouts``.

Random one-step pairs on 128x128 are read in batches, as training does, from the file itself and as
streaming reads it, which is from a copy where a chunk holds several samples.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from multigrid.data.files import FileSource
from multigrid.data.samples import StreamedSamples
from multigrid.data.splits import DataFile
from multigrid.grid import Grid
from multigrid.tables import table

NUM, STEPS, SIZE = 16, 21, 128
BATCH_SIZE, NUM_BATCHES = 16, 16
COUNTS = {"train": 256, "validation": 20, "test": 20}
LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "a step a chunk, gzip": {"chunks": (1, 1, SIZE, SIZE), "compression": "gzip"},
    "8 steps a chunk, gzip": {"chunks": (1, 8, SIZE, SIZE), "compression": "gzip"},
    "a trajectory a chunk, gzip": {"chunks": (1, STEPS, SIZE, SIZE), "compression": "gzip"},
}


def measure_layouts(folder: Path) -> str:
    """Returns a table of samples per second, and of the time that a copy takes."""
    states = np.random.default_rng(0).standard_normal((NUM, STEPS, SIZE, SIZE), dtype=np.float32)
    rows = []
    for number, (name, options) in enumerate(LAYOUTS.items()):
        path = folder / f"{number}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("tensor", data=states, **options)
        rates = []
        for place in (None, folder / "data"):
            source = FileSource([DataFile(path)], COUNTS, "cell", folder=place)
            started = time.perf_counter()
            samples = source.open("train", Grid((SIZE, SIZE)))
            opened = time.perf_counter() - started
            rates.append(f"{_rate(samples):.0f}")
        copied = f"{opened:.1f}" if list(folder.glob(f"data/{number}*")) else "-"
        rows.append([name, *rates, copied])
    return table(["Layout", "Samples/s from the file", "as streamed", "Copy and checks, s"], rows)


def _rate(samples: StreamedSamples) -> float:
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    started = time.perf_counter()
    for _ in samples.batches(order.split(BATCH_SIZE)[:NUM_BATCHES]):
        pass
    return BATCH_SIZE * NUM_BATCHES / (time.perf_counter() - started)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        sys.stdout.write(measure_layouts(Path(place)) + "\n")
