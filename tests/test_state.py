"""Where a run is stands in one place, and survives a checkpoint."""

import pytest
import torch
from tiny import SECTIONS

from multigrid.config import parse_config
from multigrid.ladder.experiment import Experiment
from multigrid.ladder.ladder import LadderRun
from multigrid.ladder.state import begin, resumed
from multigrid.records.run_folder import RunFolder

AUTOMATIC = {"epochs": "auto", "cycle": "half-v", "budget": {"work_units": 2}}


def build_experiment(folder, parallel=None, **schedule):
    return Experiment(
        parse_config(
            {
                **SECTIONS,
                "problem": {"kind": "poisson", "num_modes": 4},
                "data": {**SECTIONS["data"], "train": 8, "folder": str(folder / "data")},
                "schedule": {**SECTIONS["schedule"], **schedule},
                "parallel": parallel or {},
            }
        )
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run by measurement, and what its experiment was before."""
    folder = tmp_path_factory.mktemp("run")
    experiment = build_experiment(folder, **AUTOMATIC)
    before = [dict(vars(part)) for part in (experiment, experiment.plan)]
    run = LadderRun(experiment, RunFolder(folder))
    run.train(begin(experiment))
    return run, before


def test_an_experiment_is_not_changed_by_its_run(trained):
    run, before = trained
    assert len(run.state.stages) > 1
    for part, attributes in zip((run.experiment, run.experiment.plan), before, strict=True):
        for name, value in attributes.items():
            assert getattr(part, name) is value
    assert [stage.epochs for stage in run.experiment.plan.stages] == [0, 0]


def test_a_state_survives_its_checkpoint(trained):
    run, _ = trained
    state, stage = run.state, run.state.stages[-1]
    best = state.best[stage.level]
    checkpoint = state.checkpoint(stage, run.experiment.plan)
    checkpoint |= {"stage": stage.index, "level": stage.level, "best": best}
    again = resumed(checkpoint, run.experiment)
    for name in ("stages", "epoch_costs", "rows", "finished", "transfers", "slow"):
        assert getattr(again, name) == getattr(state, name)
    assert again.best.keys() == state.best.keys()
    for level, expected in state.best.items():
        for key, tensor in expected["network"].items():
            assert torch.equal(again.best[level]["network"][key], tensor)
    assert list(again.remaining(run.experiment)) == []


def test_a_run_goes_on_with_another_way_to_save_memory(tmp_path):
    """The rest of its schedule is that of its checkpoint."""
    before = build_experiment(tmp_path, epochs=3)
    now = build_experiment(tmp_path, {"accumulate": 2}, epochs=2)
    state = begin(before)
    checkpoint = {**state.checkpoint(state.stages[0], before.plan), "stage": 0}
    stages = resumed(checkpoint, now).stages
    assert [(stage.epochs, stage.accumulate) for stage in stages] == [(3, 2), (3, 2)]
