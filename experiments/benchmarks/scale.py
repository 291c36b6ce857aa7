"""Beyond one machine: what a ladder to 512^3 on 10 TB of samples needs, counted and simulated.

``python -m experiments.benchmarks.scale`` writes ``results/benchmarks/scale/table.txt``.
Operations, memory and parameters are counted by the package's cost model; the epochs of each plan
are those of measured races. The rates of a GPU and of storage are published peaks with an assumed
utilisation, as no GPU was at hand. An epoch is simulated step by step: batches are read ahead, GPUs
differ a little, and each step waits for the slowest and for its data.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from multigrid.config import parse_config
from multigrid.fields import restrict_to
from multigrid.files import write_text
from multigrid.grid import Grid
from multigrid.ladder.components import network_family
from multigrid.models.cost import activation_bytes, count_parameters
from multigrid.tables import table

RECORD = Path("results/benchmarks/scale/table.txt")
LEVELS, FIELDS, WIDTH, BATCH = (64, 128, 256, 512), 2, 32, 16
DATA_BYTES = 10e12
# NVIDIA's data sheet of the H100 SXM: dense bfloat16, memory, InfiniBand NDR (400 Gb/s) for each
PEAK, MEMORY, NETWORK = 989e12, 80e9, 50e9
UTILISATION = 0.15  # assumed; on a CPU a step reaches 0.30 of a matrix product
LAUNCHES = 0.01  # assumed least time of a step, some 1,000 kernels
NODE_GPUS, NODE_MEMORY = 8, 1e12
STORAGE = {"5 GB/s": 5e9, "40 GB/s": 40e9}  # assumed, for each node
RECOMPUTED = 4 / 3  # operations with activation checkpointing, measured
SPREAD = 0.05  # assumed standard deviation of the time of a step between GPUs
EFFICIENCY = 0.7  # of several GPUs, below which they are not used
DIRECT_EPOCHS = 12
SAMPLE_BYTES = 4 * FIELDS * LEVELS[-1] ** 3
NUM_STEPS = int(DATA_BYTES / SAMPLE_BYTES) // BATCH
GPU_COUNTS = [2**k for k in range(BATCH.bit_length())]
# epochs on the three finest levels for each epoch of direct training to its error, by the races
# (wave_64 as of 2026-11-25, from 16x16 on)
RACES = {
    "poisson_3d": ("restricted", (64 / 60, 14 / 60, 0)),
    "wave_64": ("folded", (200 / 60, 0, 0)),
}


@dataclass(frozen=True)
class Level:
    """What training on one level takes."""

    fields: str
    size: int
    flops: float
    activations: float
    parameters: int

    @property
    def checkpointed(self) -> bool:
        """Whether activations are recomputed, as they do not fit otherwise."""
        return self.activations > 0.8 * MEMORY

    @property
    def data_bytes(self) -> float:
        """Size of the samples as the level sees them: folded levels see the fine fields."""
        share = (self.size / LEVELS[-1]) ** 3 if self.fields == "restricted" else 1.0
        return DATA_BYTES * share

    def step(self, gpus: int) -> float:
        """Seconds of computing and exchanging gradients in one step."""
        flops = self.flops * (RECOMPUTED if self.checkpointed else 1)
        computing = max(LAUNCHES, BATCH / gpus * flops / (UTILISATION * PEAK))
        return computing + self.exchange(gpus)

    def exchange(self, gpus: int) -> float:
        """Seconds of a ring all-reduce of the gradients."""
        return 2 * (gpus - 1) / gpus * 4 * self.parameters / NETWORK

    def reading(self, gpus: int, storage: float) -> float:
        """Seconds to read a batch of the files; none once memory holds the level's samples."""
        nodes = -(-gpus // NODE_GPUS)
        held = self.data_bytes < 0.8 * NODE_MEMORY * nodes
        return 0.0 if held else BATCH * SAMPLE_BYTES / (storage * nodes)

    def gpus(self, storage: float) -> int:
        """The most GPUs that are used well; no more than samples in a batch."""
        seconds = {g: max(self.step(g), self.reading(g, storage)) for g in GPU_COUNTS}
        return max(g for g in seconds if seconds[1] / (g * seconds[g]) >= EFFICIENCY)

    def epoch(self, storage: float) -> float:
        """Simulates an epoch and returns its seconds."""
        rng, gpus = np.random.default_rng(0), self.gpus(storage)
        reading, step = self.reading(gpus, storage), self.step(gpus)
        read = done = before = 0.0
        for _ in range(NUM_STEPS):
            read, before = max(read, before) + reading, done  # one batch ahead
            done = max(done, read) + step * rng.normal(1, SPREAD, gpus).max()
        return done


def count(fields: str) -> list[Level]:
    """Counts what the levels of a ladder cost, without data."""
    raw = {
        "name": "scale",
        "problem": {"kind": "file", "file": "samples.h5", "input": "a", "output": "u", "ndim": 3},
        "data": {"centering": "cell"},
        "levels": list(LEVELS),
        "model": {"width": WIDTH, "fields": fields},
    }
    family = network_family(parse_config(raw), 1, 1)
    levels = []
    for number, size in enumerate(LEVELS):
        network, shape = family.blueprint(number), (1, 1, *family.input_grid(number).shape)
        stored = activation_bytes(network, shape, 2)
        flops = float(family.flops(number).training)
        levels.append(Level(fields, size, flops, stored, count_parameters(network)))
    return levels


def reading_rate(size: int = 128, rounds: int = 30) -> float:
    """Measures the bytes that one thread reads from HDF5 and restricts in a second, at best."""
    fine, coarse = Grid((size,) * 3, "cell"), Grid((size // 2,) * 3, "cell")
    with tempfile.TemporaryDirectory() as folder, h5py.File(Path(folder) / "a.h5", "w") as file:
        values = np.random.default_rng(0).random((FIELDS, *fine.shape), dtype=np.float32)
        data, seconds = file.create_dataset("a", data=values), []
        for _ in range(rounds):
            started = time.perf_counter()
            restrict_to(torch.from_numpy(data[:])[None], fine, coarse)
            seconds.append(time.perf_counter() - started)
    return values.nbytes / min(seconds)


def level_table(levels: list[Level]) -> str:
    """Returns what each level takes."""
    rows = [
        [x.fields, f"{x.size}^3", f"{x.parameters / 1e6:.2f}", f"{x.flops / 1e12:.2f}",
         f"{x.activations / 1e9:.1f}", "yes" if x.checkpointed else "no",
         f"{x.data_bytes / 1e12:.2g}"]
        for x in levels
    ]  # fmt: skip
    header = ["Fields", "Level", "M parameters", "TFLOP", "GB activations", "Recomputed", "TB"]
    return table(header, rows)


def epoch_table(levels: list[Level]) -> str:
    """Returns what the simulated epochs of each level take."""
    rows = []
    for name, storage in STORAGE.items():
        for x in levels:
            gpus, epoch = x.gpus(storage), x.epoch(storage)
            waiting = f"{100 - 100 * x.step(gpus) * NUM_STEPS / epoch:.0f} %"
            numbers = f"{x.step(gpus):.3f}", f"{epoch / 3600:.2f}", waiting
            rows.append([name, x.fields, f"{x.size}^3", str(gpus), *numbers])
    return table(["Storage", "Fields", "Level", "GPUs", "s/step", "h/epoch", "Waiting"], rows)


def plan_table(ladders: dict[str, list[Level]]) -> str:
    """Returns what training costs with and without the ladder."""
    rows = []
    for name, (fields, ratios) in {"direct": ("restricted", (0.0, 0.0, 1.0)), **RACES}.items():
        counts = [round(ratio * DIRECT_EPOCHS) for ratio in ratios]
        plan = [(x, n) for x, n in zip(ladders[fields][1:], counts, strict=True) if n]
        flops = sum(n * x.flops * NUM_STEPS * BATCH for x, n in plan)
        where = ", ".join(f"{n} on {x.size}^3" for x, n in plan)
        alone = sum(n * x.step(1) * NUM_STEPS for x, n in plan) / 3600
        for place, storage in STORAGE.items():
            hours = gpu_hours = reads = 0.0
            for x, n in plan:
                gpus, spent = x.gpus(storage), n * x.epoch(storage) / 3600
                hours, gpu_hours = hours + spent, gpu_hours + gpus * spent
                reads += n if x.reading(gpus, storage) else 1
            numbers = flops / 1e18, alone, gpu_hours, hours
            row = [f"{number:.1f}" for number in numbers]
            rows.append([name, where, place, *row, f"{reads * DATA_BYTES / 1e12:.0f}"])
    header = ["Plan", "Epochs", "Storage", "EFLOP", "Busy h", "GPU h", "Hours", "TB read"]
    return table(header, rows)


def main() -> None:
    """Counts, simulates, prints and writes."""
    ladders = {fields: count(fields) for fields in ("restricted", "folded")}
    levels = [level for ladder in ladders.values() for level in ladder]
    tables = level_table(levels), epoch_table(levels), plan_table(ladders)
    rate = f"one thread reads from HDF5 and restricts {reading_rate() / 1e9:.2f} GB/s (measured)"
    text = "\n\n".join((*tables, rate)) + "\n"
    write_text(RECORD, text)
    print(text)


if __name__ == "__main__":
    main()
