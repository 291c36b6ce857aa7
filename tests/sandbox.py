"""A folder with everything that the commands' examples name, on tiny grids."""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from tiny import run

import multigrid

POISSON: dict[str, Any] = {
    "name": "poisson",
    "problem": {"kind": "poisson", "num_modes": 4},
    "data": {"train": 8, "validation": 4, "test": 6},
    "levels": [4, 8, 16, 32],
    "model": {"width": 4},
    "schedule": {"epochs": [2, 1, 1, 1], "batch_size": 8, "learning_rate": 1e-2},
    "compute": {"precision": "float32"},
}
DARCY = {**POISSON, "name": "darcy", "problem": {"kind": "darcy"}, "levels": [8, 16]}
DARCY["schedule"] = {**POISSON["schedule"], "epochs": 1}
RNG = np.random.default_rng(0)


def fields(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def build(folder: Path) -> None:
    """Fills the folder: experiments, finished runs, data files, a saved network."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("experiments").mkdir()
        Path("experiments/poisson.yaml").write_text(yaml.safe_dump(POISSON))
        Path("experiments/darcy.yaml").write_text(yaml.safe_dump(DARCY))
        poisson, darcy = Path("experiments/poisson.yaml"), Path("experiments/darcy.yaml")
        here = Path()
        assert run(poisson, here, pictures=True) == 0
        assert run(poisson, here, "name=direct", "schedule.cycle=single") == 0
        for seed in (0, 1):
            assert run(poisson, here, f"name=poisson_seed{seed}", f"seed={seed}") == 0
        assert run(darcy, here) == 0
        multigrid.load("results/poisson").save("poisson.safetensors")
        _data_files()
    finally:
        os.chdir(before)


def _data_files() -> None:
    inputs = fields(5, 1, 32, 32)
    np.save("inputs.npy", inputs)
    np.savez("inputs.npz", f=inputs)
    with h5py.File("measured.h5", "w") as file:
        file["f"], file["weights"] = inputs, np.ones(5)
    with h5py.File("2D_DarcyFlow_beta1.0_Train.hdf5", "w") as file:
        file["nu"], file["tensor"] = fields(100, 16, 16), fields(100, 1, 16, 16)
    with h5py.File("mine.h5", "w") as file:
        file["coefficient"], file["solution"] = fields(20, 16, 16), fields(20, 16, 16)
    import torch

    x, y = torch.from_numpy(fields(20, 16, 16)) > 0, torch.from_numpy(fields(20, 16, 16))
    torch.save({"x": x, "y": y}, "darcy_train_16.pt")
