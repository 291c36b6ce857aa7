"""What is told of memory before it is needed."""

import pytest
from tiny import run, write_experiment

from experiments.benchmarks import memory
from experiments.benchmarks.memory import Measured, measure, measure_step
from multigrid.config import load_config
from multigrid.ladder import cost
from multigrid.ladder.cost import PROCESS_BYTES, memory_bytes
from multigrid.ladder.experiment import Experiment


@pytest.fixture
def path(tmp_path):
    problem = {"kind": "poisson", "num_modes": 8}
    return write_experiment(tmp_path / "tiny.yaml", problem=problem, optimizer={"name": "adamw"})


def test_what_a_stage_takes(path):
    def needed(*overrides):
        experiment = Experiment(load_config(path, overrides))
        return memory_bytes(experiment, experiment.plan.stages[-1])

    plain = needed()
    assert plain > PROCESS_BYTES
    assert needed("parallel.checkpoint_activations=true") < plain
    assert needed("parallel.accumulate=8") < plain
    assert needed("model.width=16") > plain


def test_too_little_memory_is_a_warning(path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cost, "total_memory", lambda device: 1e8)
    for flag in ("--dry-run", "--overwrite"):
        assert run(path, tmp_path, flag) == 0
        shown = capsys.readouterr().out
        assert "of memory, but this machine has 100 MB for a process" in shown
        assert "parallel.checkpoint_activations=true" in shown


def test_more_parts_than_samples(path, tmp_path, capsys):
    assert run(path, tmp_path, "parallel.accumulate=9") == 2
    assert "a batch of 8 cannot be taken in 9 parts on level 0" in capsys.readouterr().err
    assert run(path, tmp_path, "parallel.accumulate=[1,2,3]") == 2
    assert "the list has 3 entries, but there are 2 levels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["transfer.featurize=true", "data.augmentation=none"],
            "transfer.featurize: true is not possible with parallel.strategy 'fsdp'",
        ),
    ],
)
def test_what_spread_parameters_do_not_allow(path, tmp_path, capsys, overrides, sentence):
    assert run(path, tmp_path, "parallel.strategy=fsdp", *overrides) == 2
    assert sentence in capsys.readouterr().err


def test_a_step_is_measured_both_ways(path):
    config = load_config(path, ["parallel.accumulate=2"])
    plain, checkpointed = (measure_step(config, 1, checkpointed) for checkpointed in (False, True))
    assert checkpointed.activations < plain.activations
    assert plain.flops < checkpointed.flops < 1.4 * plain.flops


def test_what_is_measured_is_written_and_drawn(path, tmp_path, monkeypatch):
    def measured(config, level, recompute):
        return Measured(10**9, 10 ** (6 + level) * (1 if recompute else 2), 0.5, 1e6)

    monkeypatch.setattr(memory, "_apart", measured)
    folder = tmp_path / "new" / "memory"
    monkeypatch.setattr(memory, "FOLDER", folder)
    text = measure(load_config(path, ["parallel.accumulate=2"]))
    lines = text.splitlines()
    assert lines[-2].startswith("16x16")
    assert lines[-2].split()[1] == "4"
    assert text.startswith((folder / "tiny.txt").read_text())
    assert (folder / "tiny.png").read_bytes().startswith(b"\x89PNG")
