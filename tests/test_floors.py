"""Floors: what coarse grids cannot know."""

import json

import pytest
import torch
from tiny import SECTIONS, run, write_experiment

from multigrid.__main__ import main
from multigrid.config import parse_config, read_saved
from multigrid.data.samples import Samples
from multigrid.fields import prolong_to, restrict_to
from multigrid.grid import Grid
from multigrid.ladder.prospects import Floor, advice, choose_fields, measure_floors

SMOOTH = {"kind": "poisson", "num_modes": 2, "smoothness": 6.0}
ROUGH = {"kind": "poisson", "num_modes": 16, "smoothness": 0.1}


def test_fields_of_the_coarse_grid_have_no_floor(generator):
    coarse, fine = Grid((8, 8)), Grid((16, 16))
    outputs = prolong_to(torch.randn(4, 1, 8, 8, generator=generator), coarse, fine, 4, False)
    inputs = torch.randn(4, 1, 16, 16, generator=generator)
    config = parse_config({**SECTIONS, "problem": SMOOTH})  # levels of 8x8 and 16x16
    floor, finest = measure_floors(config, Samples(inputs, outputs, fine))
    assert floor.output < 1e-5 < floor.input
    assert finest.output == finest.input == 0
    lost = inputs - prolong_to(restrict_to(inputs, fine, coarse), coarse, fine, 4, False)
    norms = (lost.flatten(1).norm(dim=1) / inputs.flatten(1).norm(dim=1)).mean()
    assert floor.input == pytest.approx(norms.item(), rel=1e-5)
    assert "8x8 holds the outputs" in advice([floor, finest])


@pytest.mark.parametrize(("problem", "fields"), [(SMOOTH, "restricted"), (ROUGH, "folded")])
def test_auto_folds_where_the_coarse_grid_lacks_the_answer(tmp_path, problem, fields, capsys):
    experiment = write_experiment(tmp_path / "e.yaml", problem=problem)
    assert run(experiment, tmp_path, "model.fields=auto", "--dry-run") == 0
    line = f"\nmodel.fields auto: {fields}, as 8x8 lacks 0."
    assert line in capsys.readouterr().out
    assert run(experiment, tmp_path, "model.fields=auto", pictures=True) == 0
    folder = tmp_path / "results" / "tiny"
    assert read_saved(folder / "config.yaml").model.fields == fields
    assert line in (folder / "run.log").read_text()
    page = (folder / "report.html").read_text()
    assert f"<td>{fields}, as 8x8 lacks 0." in page
    assert run(experiment, tmp_path, "model.fields=auto", "--resume") == 0


def test_the_command(tmp_path, capsys):
    experiment = write_experiment(tmp_path / "e.yaml", problem=ROUGH)
    assert main(["floors", str(experiment), f"data.folder={tmp_path / 'data'}"]) == 0
    assert "use model.fields=folded" in capsys.readouterr().out
    assert main(["floors", str(experiment), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["floors"]
    assert [row["grid"] for row in rows] == [[8, 8], [16, 16]]
    assert rows[0]["output"] > 5e-3
    assert not (tmp_path / "data").exists()


def test_no_restricted_ladder_is_left_where_only_the_finest_grid_holds_the_outputs():
    measured = [Floor(Grid((n, n)), lost, 0) for n, lost in ((8, 0.3), (16, 0.1), (32, 0.0))]
    assert advice(measured) == (
        "8x8 lacks 0.3 of the outputs, which no restricted level on it can learn: use "
        "model.fields=folded"
    )
    measured[1] = Floor(Grid((16, 16)), 1e-3, 0)
    assert advice(measured).endswith("use model.fields=folded, or start restricted levels at 16x16")
    lacks = "8x8 lacks 0.3 of the outputs, more than 0.005"
    assert choose_fields(measured) == ("folded", f"folded, as {lacks}")
    assert choose_fields(measured[1:]) == (
        "restricted",
        "restricted, as 16x16 lacks 0.001 of the outputs, not more than 0.005",
    )
