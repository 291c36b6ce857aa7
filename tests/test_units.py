"""Errors and training know no unit, every output field counts, and a field may be zero."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SECTIONS, run, train, write_experiment
from torch import Tensor, nn

import multigrid
from multigrid.data.samples import Samples, TrainingStatistics
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.metrics import (
    FieldScale,
    field_errors,
    mean_over_fields,
    mean_rel_l2,
    negligible_fields,
    per_field,
    rel_l2,
    vrmse,
)
from multigrid.models.scaling import FieldScaling, Surrogate
from multigrid.problems import FileProblem, Symmetries, build_problem
from multigrid.records.history import read_history
from multigrid.registry import LOSSES, METRICS
from multigrid.training.losses import LossScale, build_loss

GRID = Grid((8, 8))
UNITS = pytest.mark.parametrize("unit", [(1e-30, 1e-30), (1e30, 1e30), (1e30, 1e-30)])
ABSOLUTE = {"rmse", "max", "boundary_rmse"}


def random_fields(num_fields: int = 1, count: int = 6, grid: Grid = GRID) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, num_fields, *grid.shape, generator=generator)


def poisson(unit: tuple[float, float] = (1, 1), count: int = 8) -> Samples:
    """Right-hand sides and solutions in other units, float32 as from a file."""
    rngs = [np.random.default_rng(seed) for seed in range(count)]
    fields = build_problem("poisson", num_modes=3).sample(GRID, rngs)
    return Samples(
        *(torch.from_numpy(f * u).float() for f, u in zip(fields, unit, strict=True)), GRID
    )


def fields_of(samples: Samples) -> tuple[FieldScale, ...]:
    return TrainingStatistics.of(samples).fields


def problem(*outputs: str) -> FileProblem:
    return FileProblem(("f",), outputs or ("u",), Symmetries())


# Units


@settings(deadline=None)
@given(exponent=st.integers(-30, 30), offset=st.sampled_from([0.0, 10.0]))
def test_errors_know_no_unit(exponent: int, offset: float) -> None:
    truth, prediction = random_fields(2) + offset, random_fields(2) * 0.9 + offset
    unit = 10.0**exponent
    found = []
    for factor in (1.0, unit):
        p, u = ((fields.double() * factor).float() for fields in (prediction, truth))
        found.append(field_errors(p, u, GRID, fields_of(Samples(u, u, GRID))))
    assert set(found[0]) >= {*ABSOLUTE, "rel_l2", "rel_l1", "rel_h1", "vrmse", "min_max_rel_l1"}
    for name, errors in found[0].items():
        expected = errors * unit if name in ABSOLUTE else errors
        torch.testing.assert_close(found[1][name], expected, rtol=2e-4, atol=0)


def gradient(samples: Samples, loss: str, kind: Any, residual: float) -> tuple[float, Tensor]:
    """The loss and the gradient of a network's weights."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 1, 3, padding=1))
    surrogate = Surrogate(network, FieldScaling.fit(kind, samples))
    equation = build_problem("poisson", num_modes=3)
    function = build_loss(loss, samples.grid, equation, residual, fields=surrogate.scaling.fields)
    value = function(surrogate(samples.inputs), samples)
    value.backward()
    return value.item(), torch.cat([p.grad.flatten() for p in network.parameters()])


@UNITS
@pytest.mark.parametrize("kind", ["gaussian", "min-max", "homogeneous"])
@pytest.mark.parametrize("loss", ["rel_l2", "rel_l1", "rel_h1", "mse"])
def test_gradients_know_no_unit(unit: tuple[float, float], kind: str, loss: str) -> None:
    plain, slope = gradient(poisson(), loss, kind, 0.0)
    value, other = gradient(poisson(unit), loss, kind, 0.0)
    assert value == pytest.approx(plain, rel=1e-4)
    torch.testing.assert_close(other, slope, rtol=1e-3, atol=1e-4 * slope.abs().max().item())


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_residuals_know_no_unit(unit: float) -> None:
    plain, slope = gradient(poisson(), "rel_l2", "gaussian", 0.1)
    value, other = gradient(poisson((unit, unit)), "rel_l2", "gaussian", 0.1)
    assert value == pytest.approx(plain, rel=1e-4)
    torch.testing.assert_close(other, slope, rtol=1e-3, atol=1e-4 * slope.abs().max().item())


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_the_energy_knows_no_unit(unit: float) -> None:
    grid = Grid((9, 9), "node")
    diffusion = build_problem("diffusion")
    rngs = [np.random.default_rng(seed) for seed in (1, 2, 3)]
    log_nu = torch.from_numpy(diffusion.draw_inputs(grid, rngs)).float()
    u = torch.from_numpy(diffusion.initial_outputs(grid).copy()).float().expand(3, 1, 9, 9)
    loss = build_loss("energy", grid, diffusion)
    plain, other = (
        loss(u, Samples(inputs, u, grid)).item() for inputs in (log_nu, log_nu + np.log(unit))
    )
    assert other == pytest.approx(plain, rel=1e-2)  # the steps amplify rounding errors


def write(path: Path, inputs: Tensor | np.ndarray, outputs: Tensor | np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["inputs"], file["outputs"] = (
            np.asarray(f, dtype=np.float32) for f in (inputs, outputs)
        )
    return path


def summary(tmp_path: Path, file: Path, *overrides: str, **sections: Any) -> Any:
    experiment = write_experiment(
        tmp_path / f"{file.stem}.yaml",
        name=file.stem,
        problem={"kind": "file", "file": str(file)},
        levels=[4, 8],
        data={"train": 16, "validation": 4, "test": 4},
        **sections,
    )
    return train(experiment, tmp_path / file.stem, *overrides)


@pytest.mark.parametrize("offset", [1e6, 4e6, 1e7])
def test_the_error_relative_to_the_fluctuation_is_true_whatever_the_offset(offset: float) -> None:
    samples = poisson()
    u = 2 * samples.outputs.double() / samples.outputs.double().std() + offset
    u = u.float()  # as read
    fields = fields_of(Samples(samples.inputs, u, samples.grid))
    prediction = torch.full_like(u, offset + 100)
    errors = field_errors(prediction, u, samples.grid, fields)
    u = u.double().flatten(1)
    rmse = (u - prediction[0, 0, 0, 0].item()).square().mean(1).sqrt()
    expected = rmse / u.std(1, correction=0)
    assert expected.min() > 10
    torch.testing.assert_close(errors["vrmse"][:, 0], expected)
    in_range = 100 * (100 / offset) / ((fields[0].high - fields[0].low) / offset)
    assert errors["min_max_rel_l1"].max() > in_range / 2


def test_a_fluctuation_that_float32_does_not_hold_is_told(tmp_path: Path, capsys: Any) -> None:
    samples = poisson(count=24)
    u = 2 * samples.outputs.double() / samples.outputs.double().std() + 5e7
    file = write(tmp_path / "offset.h5", samples.inputs, u)
    experiment = write_experiment(
        tmp_path / "offset.yaml",
        problem={"kind": "file", "file": str(file)},
        levels=[4, 8],
        data={"train": 16, "validation": 4, "test": 4},
    )
    assert run(experiment, tmp_path) == 2
    assert re.fullmatch(
        r"error: data: the output field 'outputs' varies by \d\.?\d* \(standard deviation\) "
        r"around 5e\+07, which float32, in which samples are held, cannot tell apart; subtract its "
        r"mean in the file\n",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize("loss", ["rel_l2", "mse"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_run_knows_no_unit(tmp_path: Path, optimizer: str, loss: str) -> None:
    results = []
    for number, unit in enumerate([(1.0, 1.0), (1e-30, 1e-30), (1e30, 1e30), (1e30, 1e-30)]):
        samples = poisson(unit, 24)
        file = write(tmp_path / f"file{number}.h5", samples.inputs, samples.outputs)
        sections = {"loss": {"name": loss}, "optimizer": {"name": optimizer}}
        results.append((unit[1], summary(tmp_path, file, **sections)["test"]))
    (_, plain), *others = results
    for unit, test in others:
        for name, value in plain.items():
            expected = value * unit if name in ABSOLUTE else value
            assert test[name] == pytest.approx(expected, rel=1e-3), name


# Zero fields


def test_the_error_of_a_zero_field_is_relative_to_what_is_typical() -> None:
    truth = torch.stack([torch.full((1, 4), 2.0), torch.zeros(1, 4), torch.full((1, 4), 1e-7)])
    field = FieldScale(size=2.0, spread=2.0)
    prediction = truth + 0.5
    assert rel_l2(prediction, truth, field).tolist() == pytest.approx([0.25, 0.25, 0.25])
    assert vrmse(prediction, truth, field).tolist() == pytest.approx([0.25] * 3)
    assert rel_l2(prediction, truth)[1] == torch.inf
    assert negligible_fields(truth, [field], ["u"]) == {"u": [1, 2]}
    assert negligible_fields(truth[:1], [field], ["u"]) == {}


def test_a_small_field_is_not_yet_zero() -> None:
    truth = torch.full((1, 1, 4), 1e-3)
    assert rel_l2(2 * truth, truth, FieldScale(size=2.0)).item() == pytest.approx(1)


@pytest.mark.parametrize("loss", ["rel_l2", "rel_l1", "rel_h1", "mse"])
def test_samples_with_zero_outputs_train_validate_and_test(tmp_path: Path, loss: str) -> None:
    samples = poisson(count=24)
    samples.outputs[[3, 17, 22]] = 0  # one for training, validation and test each
    file = write(tmp_path / "zero.h5", samples.inputs, samples.outputs)
    result = summary(tmp_path, file, loss={"name": loss})
    (log,) = tmp_path.glob("zero/results/*/run.log")
    assert "train samples 3: the field outputs is zero" in log.read_text()
    assert all(level["went_back"] == [] for level in result["levels"])
    assert np.isfinite(list(result["test"].values())).all()
    assert result["test"]["rel_l2"] < 2
    assert result["negligible_fields"] == {
        "train": {"outputs": [3]},
        "validation": {"outputs": [1]},
        "test": {"outputs": [2]},
    }


def test_zero_training_samples_are_counted() -> None:
    samples = poisson()
    samples.outputs[[1, 5]] = 0
    statistics = TrainingStatistics.of(samples)
    assert statistics.negligible(["u"]) == {"u": [1, 5]}
    assert TrainingStatistics.of(poisson()).negligible(["u"]) == {}


def test_outputs_that_are_always_zero_have_a_scale() -> None:
    samples = poisson()
    samples.outputs.zero_()
    assert fields_of(samples) == (FieldScale(1.0, 1.0, 0.0, 0.0),)
    for kind in ("gaussian", "min-max", "homogeneous"):
        assert FieldScaling.fit(kind, samples).output_scale == (1.0,)


# Several fields


def two_fields() -> tuple[Samples, Tensor]:
    """The second field is 1e-4 of the first, and its prediction 64 % off."""
    truth = random_fields(2)
    truth[:, 1] *= 1e-4
    prediction = truth * torch.tensor([1.01, 1.64]).reshape(1, 2, 1, 1)
    return Samples(random_fields(1), truth, GRID), prediction


def test_a_small_field_counts_as_much_as_a_large_one() -> None:
    samples, prediction = two_fields()
    errors = field_errors(prediction, samples.outputs, GRID, fields_of(samples))
    table = per_field(errors, ["u", "p"])
    assert table["rel_l2"] == pytest.approx({"u": 0.01, "p": 0.64}, rel=1e-4)
    assert mean_over_fields(table)["rel_l2"] == pytest.approx(0.325, rel=1e-4)
    assert mean_over_fields(table)["max"] == table["max"]["u"]
    torch.testing.assert_close(mean_rel_l2(prediction, samples.outputs), errors["rel_l2"].mean(1))
    assert rel_l2(prediction, samples.outputs).mean() < 0.0101  # one norm hides it


@pytest.mark.parametrize("name", ["rel_l2", "rel_l1", "rel_h1", "mse"])
def test_a_loss_sees_every_field(name: str) -> None:
    samples, prediction = two_fields()
    fields = fields_of(samples)
    loss = build_loss(name, GRID, problem("u", "p"), fields=fields)
    better = [prediction.clone(), prediction.clone()]
    for channel, improved in enumerate(better):
        improved[:, channel] = samples.outputs[:, channel]
    whole, without_u, without_p = (loss(p, samples).item() for p in (prediction, *better))
    assert without_u > 0.9 * whole
    assert without_p < 0.1 * whole


def test_mse_is_relative_to_the_spread_of_each_field() -> None:
    samples, prediction = two_fields()
    spread = torch.tensor([field.spread for field in fields_of(samples)]).reshape(1, 2, 1, 1)
    loss = build_loss("mse", GRID, problem("u", "p"), fields=fields_of(samples))
    expected = ((prediction - samples.outputs) / spread).square().mean()
    torch.testing.assert_close(loss(prediction, samples), expected)


def test_weights_of_fields_multiply_their_errors() -> None:
    samples, prediction = two_fields()
    build = partial(build_loss, "mse", GRID, problem("u", "p"), fields=fields_of(samples))
    only_u, only_p = prediction.clone(), prediction.clone()
    only_u[:, 1], only_p[:, 0] = samples.outputs[:, 1], samples.outputs[:, 0]
    plain, weighted = build(), build(weights={"p": 3.0})
    torch.testing.assert_close(weighted(only_u, samples), plain(only_u, samples))
    torch.testing.assert_close(weighted(only_p, samples), 9 * plain(only_p, samples))
    with pytest.raises(UserError, match=r"loss\.weights: .* no output field 'q'; there are u, p"):
        build(weights={"q": 1.0})


def test_weights_count_where_a_field_is_constant() -> None:
    samples, prediction = two_fields()
    fields = [replace(fields_of(samples)[0], spread=0.0), fields_of(samples)[1]]
    build = partial(build_loss, "mse", GRID, problem("u", "p"), fields=fields)
    prediction[:, 0] = samples.outputs[:, 0]
    plain, weighted = build(), build(weights={"p": 3.0})
    torch.testing.assert_close(weighted(prediction, samples), 9 * plain(prediction, samples))


def test_weights_never_go_unnoticed() -> None:
    samples, prediction = two_fields()
    fields, names = fields_of(samples), problem("u", "p")

    def plain(prediction: Tensor, batch: Samples) -> Tensor:
        return (prediction - batch.outputs).square().mean()

    def scaled(prediction: Tensor, batch: Samples, scale: LossScale) -> Tensor:
        return plain(scale(prediction), replace(batch, outputs=scale(batch.outputs)))

    with pytest.raises(UserError, match=r"weights: have no effect on the loss test_units.*plain, "):
        build_loss(plain, GRID, names, fields=fields, weights={"p": 3.0})
    few, many = (
        build_loss(scaled, GRID, names, fields=fields, weights={"p": w})(prediction, samples)
        for w in (1.0, 3.0)
    )
    assert many > 1.01 * few


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (lambda p: p.square().mean(dim=(1, 2, 3)), r"returned a tensor of shape \[6\]; it must"),
        (lambda p: p.square().mean().item(), "returned a float; it must return one number as a"),
        (lambda p: p.detach().mean(), "returned a tensor that does not depend on the prediction"),
        (lambda p: None, "returned a NoneType"),
    ],
)
def test_what_a_loss_returns_is_checked(returned: Any, sentence: str) -> None:
    samples, prediction = two_fields()
    loss = build_loss(lambda p, batch: returned(p), GRID, problem("u", "p"))
    with pytest.raises(UserError, match=sentence):
        loss(prediction.requires_grad_(), samples)


def test_an_offset_does_not_hide_the_error_of_the_fluctuation() -> None:
    truth = 1e5 + random_fields().double()
    prediction = torch.full_like(truth, 1e5)
    samples = Samples(truth, truth, GRID)
    table = per_field(field_errors(prediction, truth, GRID, fields_of(samples)), ["u"])
    assert table["rel_l2"]["u"] < 2e-5
    assert table["vrmse"]["u"] == pytest.approx(1, abs=0.05)


def test_one_field_keeps_its_digits() -> None:
    samples, prediction = poisson(), random_fields(count=8)
    loss = build_loss("rel_l2", GRID, problem(), fields=fields_of(samples))
    assert loss(prediction, samples) == rel_l2(prediction, samples.outputs).mean()


# Losses and metrics of the user's


def test_a_registered_loss_is_used_by_its_name() -> None:
    @LOSSES.register("largest_of_test")
    def largest(prediction: Tensor, batch: Samples) -> Tensor:
        return (prediction - batch.outputs).abs().amax()

    samples = poisson()
    loss = build_loss("largest_of_test", GRID, problem(), fields=fields_of(samples))
    assert loss(samples.outputs + 0.25, samples).item() == pytest.approx(0.25)


def test_a_loss_can_be_handed_in_and_asks_for_the_scale() -> None:
    def scaled(prediction: Tensor, batch: Samples, scale: LossScale) -> Tensor:
        return (scale(prediction) - scale(batch.outputs)).square().mean()

    samples, prediction = two_fields()
    fields = fields_of(samples)
    own = build_loss(scaled, GRID, problem("u", "p"), fields=fields)
    mse = build_loss("mse", GRID, problem("u", "p"), fields=fields)
    ratio = own(prediction, samples) / mse(prediction, samples)
    torch.testing.assert_close(ratio.item(), 1 / LossScale(fields).square)


def test_an_unknown_loss_is_told_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"no loss 'rel_l3'.*rel_l2"):
        build_loss("rel_l3", GRID, problem())


def test_metrics_are_registered_or_handed_in() -> None:
    truth = random_fields(2)
    mean_error = {"bias": lambda prediction, truth: (prediction - truth).flatten(1).mean(1)}
    errors = field_errors(truth + 0.5, truth, GRID, metrics=mean_error)
    assert set(errors) == {"bias"}
    torch.testing.assert_close(errors["bias"], torch.full((6, 2), 0.5).double(), atol=1e-6, rtol=0)
    assert {"rel_l2", "rel_l2_low", "vrmse"} <= set(METRICS.names())


def test_a_metric_without_a_value_for_each_sample_is_refused() -> None:
    truth = random_fields()
    with pytest.raises(UserError, match=r"metrics: 'mse' returns the shape \(\), .* 6 samples"):
        field_errors(truth, truth, GRID, metrics={"mse": nn.functional.mse_loss})


def test_loss_and_metrics_are_handed_in_from_python(tmp_path: Path) -> None:
    calls = []

    def loss(prediction: Tensor, batch: Samples) -> Tensor:
        calls.append(len(batch))
        return (prediction - batch.outputs).abs().mean()

    def bias(prediction: Tensor, truth: Tensor) -> Tensor:
        return (prediction - truth).flatten(1).mean(1).abs()

    experiment = {
        **SECTIONS,
        "problem": {"kind": "poisson", "num_modes": 4},
        "data": {**SECTIONS["data"], "folder": str(tmp_path / "data")},
        "output": {"folder": str(tmp_path)},
    }
    multigrid.train(experiment, loss=loss, metrics={"bias": bias})
    assert sum(calls) >= 2 * 32
    test = json.loads((tmp_path / "tiny" / "summary.json").read_text())["test"]
    assert 0 <= test["bias"] <= test["rmse"]


def test_errors_of_each_output_field_are_in_the_metrics_and_in_comparisons(tmp_path):
    problem = {"kind": "burgers", "num_starts": 2, "resolution": 1, "num_modes": 2}
    experiment = write_experiment(tmp_path / "tiny.yaml", problem=problem)
    summary = train(experiment, tmp_path, "data.rollout_steps=0")
    folder = tmp_path / "results" / "tiny"
    for row in read_history(folder / "metrics.csv"):
        one, other = map(float, row.val_by_field.split(";"))
        assert one != other
        assert (one + other) / 2 == pytest.approx(row.val_rel_l2, rel=1e-12)
    comparison = multigrid.compare([folder])
    by_field = summary["test_by_field"]["rel_l2"]
    found = comparison.rows[0]["test_by_field"]
    assert {name: spread["median"] for name, spread in found.items()} == by_field
    (line,) = str(comparison).partition("test error by output field\n")[2].splitlines()[2:]
    assert line.split() == ["tiny", *(f"{error:.4g}" for error in by_field.values())]
