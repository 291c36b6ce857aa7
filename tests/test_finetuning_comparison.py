"""The comparison of ways of finetuning, with runs that are over at once."""

import errno
import json

import pytest
from tiny import write_experiment

from experiments.benchmarks import finetuning
from multigrid.errors import UserError
from multigrid.ladder.ladder import LadderRun


def test_table_and_figure_of_pretended_runs(tmp_path, monkeypatch):
    seen = []

    def pretend(experiment, overrides, folder):
        seen.append(overrides)
        name = overrides[0].removeprefix("name=")
        if name == "pretrained":
            folder = tmp_path / "runs" / name / "level_2_64x64"
            folder.mkdir(parents=True)
            (folder / "best.pt").write_bytes(b"")
            return {"flops": 1e12}
        error = 0.2 if name.startswith("scratch") else 0.1
        error *= 1 if "_0.004_" in name else 2
        return {
            "levels": [{"rel_l2": error}],
            "test": {"rel_l2": error},
            "flops": 1e9,
            "seconds": 1.0,
        }

    monkeypatch.setattr(finetuning, "_train", pretend)
    text = finetuning.compare(tmp_path)
    rows = [line.split() for line in text.splitlines() if "finetuning" in line]
    assert len(rows) == 9
    assert all(row[-1] == "0.50" and "0.004" in row for row in rows)
    assert (tmp_path / "table.txt").read_text() == text + "\n"
    assert len(json.loads((tmp_path / "summary.json").read_text())["runs"]) == 36
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    scratch = next(o for o in seen if o[0].startswith("name=scratch"))
    assert scratch.index("checkpoints.load=null") > next(
        i for i, o in enumerate(scratch) if o.startswith("checkpoints.load=/")
    )


POISSON = {"kind": "poisson", "num_modes": 4}


def test_runs_of_another_configuration_are_not_taken_over(tmp_path):
    experiment = str(write_experiment(tmp_path / "e.yaml", problem=POISSON))
    overrides = [f"data.folder={tmp_path / 'data'}", "levels=[8]", "output.figures=false"]
    summary = finetuning._train(experiment, overrides, tmp_path)
    assert finetuning._train(experiment, overrides, tmp_path) == summary
    with pytest.raises(UserError, match=r"changed configuration; .* data\.train"):
        finetuning._train(experiment, [*overrides, "data.train=16"], tmp_path)


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (MemoryError(), "out of memory; a larger parallel.accumulate"),
    ],
)
def test_what_the_machine_lacks_is_told(tmp_path, monkeypatch, failure, sentence):
    def fail(*arguments):
        raise failure

    monkeypatch.setattr(LadderRun, "__init__", fail)
    experiment = str(write_experiment(tmp_path / "e.yaml", problem=POISSON))
    with pytest.raises(UserError, match=sentence):
        finetuning._train(experiment, [f"data.folder={tmp_path / 'data'}"], tmp_path)
