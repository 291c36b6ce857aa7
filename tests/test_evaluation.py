"""Evaluation, roll-outs and comparison from Python, and what checkpoints must say."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import train, write_experiment

import multigrid
from multigrid import UserError
from multigrid.data.time import TimeSetup, Trajectories
from multigrid.records.examples import choose_samples, colour_range
from multigrid.report.comparison import _method
from multigrid.training.checkpoint import load_checkpoint, save_checkpoint
from multigrid.training.evaluation import RolloutErrors, measure_rollout

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Poisson run of two seeds, one on other samples, and a time-dependent one."""
    folder = tmp_path_factory.mktemp("evaluation")
    poisson = write_experiment(folder / "p.yaml", problem={"kind": "poisson", "num_modes": 4})
    for name, seed in (("p_seed0", 0), ("p_s1", 1)):
        train(poisson, folder / name, f"name={name}", f"seed={seed}", "schedule.epochs=[2,1]")
    train(poisson, folder / "other", "name=other", "data.seed=7")
    steps = write_experiment(
        folder / "r.yaml",
        name="steps",
        problem={"kind": "reaction_diffusion", "num_modes": 2},
        data={"rollout_steps": 4},
        model={"padding": "periodic"},
    )
    train(steps, folder / "steps")
    return folder


def run(folder, name):
    return folder / name / "results" / name


def fields(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def test_evaluation_of_arrays_and_of_the_runs_samples(folder):
    surrogate = multigrid.load(run(folder, "p_seed0"))
    inputs = fields(5, 1, 16, 16)
    exact = surrogate.evaluate((inputs, surrogate(inputs)))
    assert exact.mean() < 1e-6
    assert [item.level for item in exact.levels] == [0, 1]
    own = surrogate.evaluate(samples=4, levels=[1])
    assert (own.count, [item.level for item in own.levels]) == (4, [1])
    assert "worst samples on 16x16" in str(own)
    assert "persistence" not in own.levels[0].errors
    with pytest.raises(UserError, match=r"no metric 'rel_l3'; there are .*did you mean 'rel_l"):
        own.mean("rel_l3")
    with pytest.raises(UserError, match=r"the arrays have the shapes \[5, 1, 16, 16\] and"):
        surrogate.evaluate((inputs, inputs[:3]))


def test_metrics_are_reduced_as_in_the_summary(folder):
    place = run(folder, "steps")
    summary = json.loads((place / "summary.json").read_text())["test"]
    (*_, finest) = multigrid.load(place).evaluate().to_json()["levels"]
    assert {k: finest["mean"][k] for k in summary} == pytest.approx(summary, rel=1e-4)


def test_samples_whose_field_counts_as_zero_are_named(folder):
    surrogate = multigrid.load(run(folder, "p_seed0"))
    inputs = fields(5, 1, 16, 16)
    outputs = fields(5, 1, 16, 16)
    outputs[[1, 3]] = 0
    evaluation = surrogate.evaluate((inputs, outputs), batch_size=2)
    assert evaluation.to_json()["negligible_fields"] == {"u": [1, 3]}
    assert (
        "note: samples 1, 3: the field u is zero, or less than 1e-06 of its usual size; their "
        "errors are relative to the usual size"
    ) in str(evaluation)
    evaluation = surrogate.evaluate((inputs, inputs))
    assert evaluation.to_json()["negligible_fields"] == {}
    assert "note" not in str(evaluation)


def test_time_dependent_problems_have_persistence_and_roll_outs_beside_errors(folder):
    surrogate = multigrid.load(run(folder, "steps"))
    evaluation = surrogate.evaluate()
    assert evaluation.levels[-1].mean("persistence") > 0
    assert evaluation.rollout["steps"] == [1, 4]
    assert "nRMSE of persistence" in str(evaluation)
    summary = json.loads((run(folder, "steps") / "summary.json").read_text())
    errors = evaluation.rollout["errors"]["nRMSE"]
    assert errors[-1]["mean"] == pytest.approx(summary["rollout"][-1], rel=1e-5)
    assert json.loads(json.dumps(evaluation.to_json()))["rollout"]["trajectories"] == 16


def test_roll_outs_apply_the_surrogate_to_its_outputs(folder):
    surrogate = multigrid.load(run(folder, "steps"))
    states = fields(3, 2, 16, 16)
    rolled = surrogate.rollout(states, 3)
    assert rolled.shape == (3, 3, 2, 16, 16)
    np.testing.assert_allclose(rolled[:, 1], surrogate(surrogate(states)), atol=1e-5)
    assert isinstance(surrogate.rollout(torch.from_numpy(states), 1), torch.Tensor)
    with pytest.raises(UserError, match="the states have 1 fields"):
        surrogate.rollout(states[:, :1], 2)
    with pytest.raises(UserError, match="num_steps is 0"):
        surrogate.rollout(states, 0)


def test_what_is_no_step_in_time_is_not_rolled_out(folder):
    surrogate = multigrid.load(run(folder, "p_seed0"))
    with pytest.raises(UserError, match=r"rollout: .* maps f to u, which is no step in time; "):
        surrogate.rollout(fields(1, 1, 16, 16), 2)


def test_roll_out_metrics_by_hand():
    states = torch.randn(3, 6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = RolloutErrors.of(iter(states[:, 1:].unbind(1)), states)
    assert exact.nrmse.abs().max() == 0
    torch.testing.assert_close(exact.correlation, torch.ones(3, 5, dtype=torch.float64))
    assert exact.correlation_steps.tolist() == [5, 5, 5]
    double = RolloutErrors.of(iter((2 * states[:, 1:]).unbind(1)), states)
    torch.testing.assert_close(double.nrmse, torch.ones(3, 5, dtype=torch.float64))
    assert (double.vrmse >= double.nrmse).all()
    wrong = states[:, 1:].clone()
    wrong[1, 2] = torch.nan
    record = RolloutErrors.of(iter(wrong.unbind(1)), states).to_json(exact)
    assert record["blow_up"] == pytest.approx(1 / 3)
    assert record["errors"]["nRMSE"][-1] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    _, persistence = measure_rollout(lambda x: x, Trajectories(states[:, 0], states, TimeSetup(1)))
    error = (states[0, 0] - states[0, 3]).norm() / states[0, 3].norm()
    assert persistence.nrmse[0, 2].item() == pytest.approx(error.item(), rel=1e-5)


def test_no_samples_are_predicted(folder):
    surrogate = multigrid.load(run(folder, "p_seed0"))
    assert surrogate.predict(fields(0, 1, 16, 16)).shape == (0, 1, 16, 16)
    assert surrogate.predict(torch.zeros(0, 1, 8, 8)).shape == (0, 1, 8, 8)


def test_several_levels_in_one_file(folder, tmp_path):
    surrogate = multigrid.load(run(folder, "p_seed0"))
    surrogate.save(tmp_path / "all.safetensors", levels=[0, 1])
    again = multigrid.load(tmp_path / "all.safetensors")
    for shape in ((2, 1, 8, 8), (2, 1, 16, 16)):
        inputs = fields(*shape)
        np.testing.assert_array_equal(again(inputs), surrogate(inputs))
    with pytest.raises(UserError, match="level 5: not there"):
        surrogate.save(tmp_path / "b.safetensors", levels=[5])


def test_checkpoints_of_other_runs_and_levels_are_refused(folder, tmp_path):
    shutil.copytree(run(folder, "p_seed0"), tmp_path / "run")
    best = tmp_path / "run" / "level_1_16x16" / "best.pt"
    shutil.copy(run(folder, "p_s1") / "level_1_16x16" / "best.pt", best)
    with pytest.raises(UserError, match=r"of another run, 'p_s1'; its config.*name"):
        multigrid.load(tmp_path / "run")
    shutil.copy(tmp_path / "run" / "level_0_8x8" / "best.pt", best)
    with pytest.raises(UserError, match="is of level 0 on 8x8, not of this folder's"):
        multigrid.load(tmp_path / "run")


WRONG = {
    "level": (None, "1", -1, 9, 0.5),
    "grid": ([4], "16x16", None, [16, "a"]),
    "config": ({}, None, [1], {"name": "a"}),
    "fields": ({}, {"input": ["f"]}, {"input": "f", "output": ["u"]}, {"input": [], "output": []}),
    "scaling": ({}, {"kind": "other"}, None, {"kind": "none", "input_shift": [1.0, 2.0]}),
    "network": ({}, {"a": 3}, [], {"a": torch.zeros(3, device="meta")}),
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in WRONG.items() for value in values]
)
def test_wrong_fields_of_a_checkpoint_get_one_sentence(folder, tmp_path, key, value):
    payload = load_checkpoint(run(folder, "p_seed0") / "level_1_16x16" / "best.pt")
    payload.pop("format")
    save_checkpoint(tmp_path / "best.pt", {**payload, key: value})
    with pytest.raises(UserError, match=r"best\.pt: "):
        multigrid.load(tmp_path / "best.pt").surrogate()


def test_comparison_from_python(folder):
    paths = [run(folder, name) for name in ("p_seed0", "p_s1", "other")]
    table = multigrid.compare(paths)
    assert [row["method"] for row in table.rows] == ["p", "other"]
    assert table.rows[0]["seeds"] == [0, 1]
    assert table.rows[0]["speed_up"]["flops"] == pytest.approx(1)
    assert set(table.rows[1]["speed_up"].values()) == {None}
    assert any("no speed-up between them" in note for note in table.notes)
    assert "speed-up to" in str(table)


def test_a_method_is_named_without_its_seed():
    def name(*runs):
        configs = [SimpleNamespace(name=name, seed=seed) for name, seed in runs]
        return _method([SimpleNamespace(config=config) for config in configs])

    assert name(("a_seed3", 3)) == name(("a-seed0", 0), ("a-s1", 1)) == "a"
    assert name(("a-3", 3), ("a-4", 4)) == "a"
    assert name(("width-40", 0)) == "width-40"
    assert name(("rate-0.004", 4), ("other", 1)) == "rate-0.004"


@pytest.mark.parametrize("cut", [1, 40, 150])
def test_a_cut_history_gets_one_sentence(folder, tmp_path, cut):
    shutil.copytree(run(folder, "p_s1"), tmp_path / "run")
    path = tmp_path / "run" / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UserError, match=r"metrics\.csv: unreadable or half-written"):
        multigrid.compare([tmp_path / "run"])


def test_examples_are_the_best_the_median_and_the_worst():
    errors = np.array([0.3, 0.1, 0.5, 0.2, 0.4])
    assert choose_samples(errors, 3) == (
        [1, 0, 2],
        ["best: sample 1", "median: sample 0", "worst: sample 2"],
    )
    places = [f"step {number}" for number in range(5)]
    assert choose_samples(errors, 1, None, places)[1] == ["best: sample 1, step 1"]
    indices, _ = choose_samples(errors, 3, trajectories=[0, 0, 1, 1, 2])
    assert len({[0, 0, 1, 1, 2][i] for i in indices}) == 3
    assert len(choose_samples(errors, 16)[0]) == 5
    assert choose_samples(errors[:1], 3)[0] == [0]


def test_fields_of_both_signs_have_symmetric_colours():
    assert colour_range(np.array([-1.0, 2.0])) == ("signed", -2.0, 2.0)
    assert colour_range(np.array([1.0, 2.0])) == ("unsigned", 1.0, 2.0)
    assert colour_range(np.array([0.0, 0.5]), "error") == ("error", -0.5, 0.5)


def test_figures_can_be_left_out(tmp_path):
    experiment = write_experiment(tmp_path / "e.yaml", problem={"kind": "poisson", "num_modes": 4})
    train(experiment, tmp_path, "output.figures=false", pictures=True)
    folder = Path(tmp_path / "results" / "tiny")
    assert not list(folder.glob("*.png"))
    assert "<h2>Convergence</h2>" in (folder / "report.html").read_text()
