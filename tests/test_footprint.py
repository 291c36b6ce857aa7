"""What is told of memory before it is needed."""

from dataclasses import replace

import pytest
from tiny import run, write_experiment

from experiments.benchmarks import memory
from experiments.benchmarks.memory import Measured, measure_memory, measure_step
from multigrid.config import load_config
from multigrid.errors import UserError
from multigrid.ladder import experiment as experiment_module
from multigrid.ladder.experiment import Experiment
from multigrid.ladder.footprint import PROCESS_BYTES, Choice
from multigrid.models.cost import count_parameters


@pytest.fixture
def path(tmp_path):
    problem = {"kind": "poisson", "num_modes": 8}
    return write_experiment(tmp_path / "tiny.yaml", problem=problem, optimizer={"name": "adamw"})


@pytest.fixture
def footprint(path):
    return Experiment(load_config(path)).footprint


def test_what_a_choice_takes(path, footprint):
    weights = 4 * count_parameters(Experiment(load_config(path)).family.blueprint(1))
    plain = footprint.bytes(1, Choice(8, False))
    one = footprint.bytes(1, Choice(1, False))
    base = PROCESS_BYTES + footprint.sample_bytes + 7 * weights  # AdamW, the best state kept
    assert plain - base == pytest.approx(8 * (one - base))
    assert footprint.bytes(1, Choice(1, True)) < one
    spread = footprint.bytes(1, Choice(1, False, 4))
    assert one - spread == pytest.approx(3 * weights - 2 * weights)  # three quarters of four


def test_the_configuration_chooses(path):
    config = load_config(
        path, ["parallel.accumulate=[1,3]", "parallel.checkpoint_activations=[false,true]"]
    )
    footprint = Experiment(config).footprint
    chosen = [footprint.chosen(stage) for stage in footprint.stages.values()]
    assert chosen == [Choice(8, False), Choice(3, True)]


def test_the_table_marks_what_does_not_fit(footprint):
    assert footprint.table().count("*") == 1
    footprint.available = footprint.bytes(1, Choice(1, False)) - 1
    lines = footprint.table().splitlines()
    assert lines[-1].count("*") == 4  # all but the last two
    assert "Checkpointed" in lines[2]


def test_advice_names_what_would_fit(footprint):
    footprint.split_batches = False
    footprint.available = footprint.bytes(1, Choice(8, True))
    with pytest.raises(UserError, match="checkpoint_activations=true would fit"):
        footprint.check()
    footprint.split_batches = True
    footprint.check()  # the batch is taken in parts
    footprint.available = 1.0
    with pytest.raises(UserError, match=r"levels\[0\]: .* use a smaller model.width"):
        footprint.check()


def test_too_little_memory_is_told_before_any_work(path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(experiment_module, "total_memory", lambda device: 1e8)
    for flag in ("--overwrite", "--dry-run"):
        assert run(path, tmp_path, flag) == 2
        shown = capsys.readouterr()
        assert "of memory, but this machine has 100 MB for a process" in shown.err
    assert "One by one" in shown.out
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "data").exists()


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


def test_stages_of_one_level_count_once(path):
    config = load_config(path, ["schedule.cycle=v"])
    footprint = Experiment(config).footprint
    assert sorted(footprint.stages) == [0, 1]
    assert footprint.most == footprint.bytes(1, replace(Choice(8, False)))


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
    text = measure_memory(load_config(path, ["parallel.accumulate=2"]), folder)
    lines = text.splitlines()
    assert lines[-2].startswith("16x16")
    assert lines[-2].split()[1] == "4"
    assert text.startswith((folder / "tiny.txt").read_text())
    assert (folder / "tiny.png").read_bytes().startswith(b"\x89PNG")
