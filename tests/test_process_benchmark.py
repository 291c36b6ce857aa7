"""Processes beside threads, measured in processes that the benchmark starts itself."""

from functools import partial

import pytest
from tiny import write_experiment

from experiments.benchmarks import __main__ as command
from experiments.benchmarks import processes
from experiments.benchmarks.group import Group
from multigrid.config import load_config
from multigrid.errors import UserError


@pytest.fixture
def path(tmp_path):
    problem = {"kind": "poisson", "num_modes": 4}
    return write_experiment(
        tmp_path / "tiny.yaml", problem=problem, data={"folder": str(tmp_path / "data")}
    )


def test_both_ways_train_on_the_coarsest_and_the_finest_level(path, monkeypatch):
    monkeypatch.setattr(processes, "NUM_ROUNDS", 1)
    text = processes.measure(load_config(path, ["levels=[4,8,16]"]))
    rows = [line.split() for line in text.splitlines()[3:5]]
    assert [row[:2] for row in rows] == [["4x4", "8"], ["16x16", "8"]]
    assert all(float(cell) > 0 for row in rows for cell in row[2:])


def test_a_process_that_ends_is_told(path):
    group = Group(partial(processes.epoch_timer, load_config(path).model_dump()), 1)
    group.processes[0].kill()
    with pytest.raises(UserError, match="a process of the benchmark has ended"):
        group.answers(0)
    group.end()


@pytest.mark.parametrize("suite", command.UNCOMPILED)
def test_what_is_never_compiled_says_so(path, suite, capsys):
    assert command.main([suite, "--experiment", str(path), "compute.compile=true"]) == 2
    assert f"true has no effect on '{suite}'" in capsys.readouterr().err
