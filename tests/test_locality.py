"""Locality: whether an output depends on what is near alone, and what ``auto`` makes of it."""

import json

import pytest
import torch
from sine import solve_poisson
from tiny import run, write_experiment

from multigrid.__main__ import main
from multigrid.config import read_saved
from multigrid.data.samples import Samples
from multigrid.grid import Grid
from multigrid.ladder.prospects import MAX_SIZE, Locality, measure_locality

GRID = Grid((32, 32))
BUDGET = ("schedule.epochs=auto", "schedule.budget={work_units: 3}")


def white(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measure(inputs, outputs, grid=GRID, levels=None):
    return measure_locality(Samples(inputs.float(), outputs.float(), grid), levels or [grid])


@pytest.mark.parametrize(("shape", "shift"), [((64,), (9,)), ((32, 32), (3, -7))])
def test_a_shift_is_local_however_far_and_in_any_unit(shape, shift):
    inputs, grid = white(16, 2, *shape), Grid(shape)
    moved = inputs.roll(shift, dims=tuple(range(2, inputs.ndim)))
    outputs = torch.stack([moved[:, 0] - 2 * moved[:, 1], moved[:, 1]], 1)
    measured = measure(inputs, outputs, grid)
    assert measured.is_local
    assert measured == pytest.approx((1, 1), abs=1e-5)
    scaled = measure(1e12 * inputs, 1e-12 * outputs, grid)
    assert scaled == pytest.approx(measured, abs=1e-5)


def test_a_field_that_boundaries_shape_is_not_local():
    inputs = white(16, 1, 32, 32)
    outputs = torch.from_numpy(solve_poisson(inputs.double().numpy(), GRID))
    window, whole = measure(inputs, outputs)
    assert whole == pytest.approx(1, abs=1e-5)  # as a sine series is continued
    assert window < 0.5


def test_half_of_the_variance_from_near_and_half_from_far():
    inputs = white(32, 1, 32, 32)
    far = inputs.roll((16, 16), dims=(2, 3))
    window, whole = measure(inputs, inputs + far)
    assert whole == pytest.approx(1, abs=1e-3)
    assert window == pytest.approx(0.5, abs=0.05)


def test_what_a_linear_map_cannot_explain_counts_for_neither():
    inputs = white(16, 1, 32, 32)
    measured = measure(inputs, inputs + white(16, 1, 32, 32, seed=1))
    assert measured.window == pytest.approx(0.5, abs=0.05)
    assert measured.is_local


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_samples_and_constant_channels_do_no_harm(count):
    inputs = torch.cat([white(count, 1, 8, 8), torch.ones(count, 1, 8, 8)], 1)
    measured = measure(inputs, white(count, 1, 8, 8, seed=1), Grid((8, 8)))
    assert all(0 <= share <= 1 for share in measured)


def test_large_grids_are_restricted():
    fine = Grid((512, 512))
    assert fine.size > MAX_SIZE
    inputs = white(2, 1, 512, 512)
    measured = measure(inputs, inputs, fine, [Grid((256, 256)), fine])
    assert measured.is_local


def test_words():
    assert str(Locality(0.95, 1.0)).startswith("the outputs depend on what is near alone: ")
    assert str(Locality(0.5, 1.0)) == (
        "the outputs depend on what is far, too: linear maps explain 0.50 of the variance from a "
        "window, 1.00 from the whole input"
    )


SMOOTH = {"kind": "poisson", "num_modes": 2}
ROUGH = {"kind": "poisson", "num_modes": 16, "smoothness": 0.1}


@pytest.mark.parametrize(
    ("problem", "cycle", "reason"),
    [
        ({"kind": "discontinuous_transport"}, "single", "the finest level alone, as the outputs"),
        (SMOOTH, "half-v", "level by level, as 8x8 lacks"),
        (ROUGH, "half-v", "level by level, as the outputs depend on what is far, too: "),
    ],
)
def test_auto_trains_the_finest_level_alone_where_that_is_best(
    tmp_path, problem, cycle, reason, capsys
):
    experiment = write_experiment(tmp_path / "e.yaml", problem=problem, levels=[8, 16, 32])
    assert run(experiment, tmp_path, *BUDGET, "--dry-run") == 0
    line = f"\nschedule.cycle auto: {cycle}, {reason}"
    assert line in capsys.readouterr().out
    assert run(experiment, tmp_path, *BUDGET) == 0
    folder = tmp_path / "results" / "tiny"
    assert read_saved(folder / "config.yaml").schedule.cycle == cycle
    assert line in (folder / "run.log").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["cycle"].startswith(f"{cycle}, ")
    levels = {stage["level"] for stage in summary["levels"]}
    assert (levels == {2}) == (cycle == "single")
    assert run(experiment, tmp_path, *BUDGET, "--resume") == 0
    capsys.readouterr()
    assert main(["floors", str(experiment), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cycle"].startswith(f"{cycle}, {reason}")


def test_the_cycle_is_half_v_where_epochs_are_given(tmp_path):
    experiment = write_experiment(tmp_path / "e.yaml", problem={"kind": "discontinuous_transport"})
    assert run(experiment, tmp_path) == 0
    assert read_saved(tmp_path / "results/tiny/config.yaml").schedule.cycle == "half-v"


def test_a_window_needs_points(tmp_path, capsys):
    experiment = write_experiment(tmp_path / "e.yaml", problem={"kind": "discontinuous_transport"})
    assert run(experiment, tmp_path, *BUDGET, "--dry-run") == 0
    assert "as 16x16 is too small to tell near from far" in capsys.readouterr().out


def test_a_run_goes_on_with_the_cycle_that_it_began_with(tmp_path, monkeypatch, capsys):
    experiment = write_experiment(tmp_path / "e.yaml", problem={"kind": "discontinuous_transport"})
    arguments = experiment, tmp_path, *BUDGET, "levels=[16,32]"
    monkeypatch.setattr(Locality, "is_local", False)
    assert run(*arguments) == 0
    (tmp_path / "results/tiny/summary.json").unlink()
    monkeypatch.undo()
    assert run(*arguments, "--resume") == 2
    assert "these keys differ: schedule.cycle" in capsys.readouterr().err
    assert run(*arguments, "--resume", "schedule.cycle=half-v") == 0


def test_there_is_nothing_to_compare_where_the_ladder_is_direct_training(tmp_path, capsys):
    experiment = write_experiment(tmp_path / "e.yaml", problem={"kind": "discontinuous_transport"})
    assert run(experiment, tmp_path, *BUDGET, "levels=[16,32]", "--with-direct") == 0
    assert "--with-direct: no ladder to compare with" in capsys.readouterr().out
    assert not (tmp_path / "results/tiny/direct").exists()
