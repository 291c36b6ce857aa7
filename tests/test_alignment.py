"""Restriction and prolongation that follow where the points lie beat those that do not."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny import run, train, write_experiment

from multigrid.data import files
from multigrid.data.formats import open_fields
from multigrid.fields import prolong, restrict
from multigrid.grid import Centering, Grid
from multigrid.metrics import mean_rel_l2
from multigrid.problems.elliptic import Poisson
from multigrid.training.evaluation import interpolation_error

CENTERINGS: tuple[Centering, ...] = ("cell", "node")
FINE = 16
COUNTS = {"train": 48, "validation": 16, "test": 8}


def poisson(n: int, centering: Centering, first: int = 0, count: int = 8) -> np.ndarray:
    """Exact inputs and outputs ``[2, count, 1, n, n]``; no node is at the right end."""
    rngs = [np.random.default_rng(seed) for seed in range(first, first + count)]
    return np.stack(Poisson(num_modes=2).sample(Grid((n, n), centering), rngs))


def error_of(prolongation: Centering, truth: torch.Tensor, coarse: torch.Tensor) -> float:
    fine = Grid(tuple(truth.shape[2:]), prolongation)
    return mean_rel_l2(prolong(coarse, fine), truth).mean().item()


@pytest.mark.parametrize(("centering", "wrong"), [CENTERINGS, CENTERINGS[::-1]])
@pytest.mark.parametrize("n", [16, 32])
def test_prolonging_the_restricted_truth(centering: Centering, wrong: Centering, n: int) -> None:
    truth = torch.from_numpy(poisson(n, centering)[1])
    coarse = restrict(truth, Grid((n, n), centering))
    right = error_of(centering, truth, coarse)
    assert right < {16: 1e-2, 32: 3e-4}[n]
    assert error_of(wrong, truth, coarse) > 2 / n
    assert right == interpolation_error(
        truth, Grid((n, n), centering), Grid((n // 2, n // 2), centering), 4, False
    )


@pytest.mark.parametrize(("centering", "wrong"), [CENTERINGS, CENTERINGS[::-1]])
def test_prolonging_the_exact_solution_of_the_coarse_grid(
    centering: Centering, wrong: Centering
) -> None:
    """Point values and cell averages differ by O(h^2) only; the shift of half a cell is O(h)."""
    truth, coarse = (torch.from_numpy(poisson(n, centering)[1]) for n in (32, 16))
    right = error_of(centering, truth, coarse)
    assert right < {"cell": 1e-2, "node": 3e-4}[centering]
    assert error_of(wrong, truth, coarse) > 10 * right


def entering(folder: Path, data: Centering, setting: Centering) -> float:
    """Trains on files of 8x8 and 16x16; returns the error on entering the finer grid.

    The coarse file has other samples, so that nesting cannot give the truth away.
    """
    folder.mkdir()
    coarse, fine = folder / "8.npz", folder / "16.npz"
    total = sum(COUNTS.values())
    for path, n, first, count in ((fine, FINE, 0, total), (coarse, FINE // 2, 1000, 48)):
        np.savez(path, **dict(zip("xy", poisson(n, data, first, count), strict=True)))
    experiment = write_experiment(
        folder / "e.yaml",
        problem={
            "kind": "file",
            "files": [{"file": str(coarse), "split": "train"}, str(fine)],
            "symmetries": ["linear", "homogeneous"],
        },
        data={**COUNTS, "centering": setting},
        schedule={"epochs": [12, 0], "learning_rate": 2e-2},
    )
    return train(experiment, folder)["levels"][1]["rel_l2_at_start"]


@pytest.mark.parametrize("centering", CENTERINGS)
def test_the_alignment_is_found_where_files_nest(centering: Centering, tmp_path: Path) -> None:
    """What was found is written down, and the run goes on with it."""
    fine = poisson(FINE, centering, count=sum(COUNTS.values())).astype(np.float32)
    coarse = restrict(torch.from_numpy(fine), Grid((FINE, FINE), centering)).numpy()
    for n, fields in ((FINE // 2, coarse), (FINE, fine)):
        np.savez(tmp_path / f"{n}.npz", **dict(zip("xy", fields, strict=True)))
    experiment = write_experiment(
        tmp_path / "e.yaml",
        problem={"kind": "file", "files": [str(tmp_path / f"{n}.npz") for n in (FINE // 2, FINE)]},
        data={**COUNTS, "centering": "auto"},
    )
    assert run(experiment, tmp_path) == 0
    config = yaml.safe_load((tmp_path / "results" / "tiny" / "config.yaml").read_text())
    assert config["data"]["centering"] == centering
    assert run(experiment, tmp_path, "--resume") == 0


def test_folded_levels_say_which_of_several_files_they_use(tmp_path, caplog):
    fine = poisson(FINE, "node", count=sum(COUNTS.values()))
    for n, fields in ((FINE // 2, fine[..., ::2, ::2]), (FINE, fine)):
        np.savez(tmp_path / f"{n}.npz", **dict(zip("xy", fields, strict=True)))
    files = [str(tmp_path / f"{n}.npz") for n in (FINE // 2, FINE)]
    experiment = write_experiment(
        tmp_path / "e.yaml",
        problem={"kind": "file", "files": files},
        data={**COUNTS, "centering": "node"},
        model={"width": 4, "fields": "folded"},
    )
    assert run(experiment, tmp_path) == 0
    assert "8.npz: not used, as folded levels all take the samples on 16x16" in caplog.text


def test_files_are_opened_once_and_tell_before_grids_are_checked(tmp_path, capsys, monkeypatch):
    """Nodes of 8, 15 and 30 points nest, cells do not."""
    fine = np.random.default_rng(0).standard_normal((2, 72, 1, 30, 30))
    for name, fields in (("fine", fine), ("coarse", fine[..., ::2, ::2])):
        np.savez(tmp_path / f"{name}.npz", **dict(zip("xy", fields, strict=True)))
    opened = []

    def counting(path, *arguments):
        opened.append(path.name)
        return open_fields(path, *arguments)

    monkeypatch.setattr(files, "open_fields", counting)
    experiment = write_experiment(
        tmp_path / "e.yaml",
        problem={"kind": "file", "files": [str(tmp_path / f"{n}.npz") for n in ("fine", "coarse")]},
        data={**COUNTS, "centering": "auto"},
        levels=[8, 15, 30],
    )
    assert run(experiment, tmp_path, "--dry-run") == 0
    assert "node-centred grids" in capsys.readouterr().out
    assert opened == ["fine.npz", "coarse.npz"]
    assert run(experiment, tmp_path, "data.centering=cell") == 2
    assert "levels[1]: a cell-centred 15x15 grid cannot" in capsys.readouterr().err
    assert run(experiment, tmp_path, "levels=[8,16,30]") == 2
    assert "levels[2]: a node-centred 30x30 grid cannot" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_resuming_with_another_alignment_is_refused(tmp_path, capsys):
    fields = np.random.default_rng(0).standard_normal((2, sum(COUNTS.values()), 1, 16, 16))
    np.savez(tmp_path / "f.npz", **dict(zip("xy", fields, strict=True)))
    problem = {"kind": "file", "file": str(tmp_path / "f.npz")}
    experiment = write_experiment(tmp_path / "e.yaml", problem=problem, data=COUNTS)
    assert run(experiment, tmp_path, "data.centering=node") == 0
    capsys.readouterr()
    assert run(experiment, tmp_path, "data.centering=auto", "--resume") == 2
    assert "these keys differ: data.centering" in capsys.readouterr().err


@pytest.mark.parametrize(("centering", "wrong"), [CENTERINGS, CENTERINGS[::-1]])
def test_entering_a_level_with_the_alignment_of_the_data(
    centering: Centering, wrong: Centering, tmp_path: Path
) -> None:
    right = entering(tmp_path / "right", centering, centering)
    assert right < 0.05
    assert entering(tmp_path / "wrong", centering, wrong) > 2 * right
