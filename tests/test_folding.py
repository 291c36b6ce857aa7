"""Folded levels lose nothing, and growing them preserves the function on the finest grid."""

import os
import signal
from unittest.mock import patch

import numpy as np
import pytest
import torch
from alike import assert_same_training
from hypothesis import given
from hypothesis import strategies as st
from test_growth import LADDERS, assert_states_equal, ladders, paddings, perturb
from tiny import run, train, write_experiment
from torch import nn

import multigrid
from multigrid.config import load_config
from multigrid.errors import UserError
from multigrid.fields import prolong_to, restrict_to
from multigrid.grid import Grid, Hierarchy
from multigrid.ladder.components import network_family
from multigrid.ladder.recorder import Recorder
from multigrid.models.growth import UNetFamily
from multigrid.models.layers import fold, folding_factors, unfold
from multigrid.models.surgery import add_level, remove_levels
from multigrid.models.transfer import Status, transfer_weights
from multigrid.records.history import read_history

MORE = {
    "1d-cells": ([(8,), (16,), (32,)], "cell"),
    "1d-nodes": ([(9,), (17,), (33,)], "node"),
    "odd-cells": ([(13, 6), (25, 12), (49, 23)], "cell"),
    "closed-even-nodes": ([(16, 11), (32, 22), (64, 43)], "closed"),
}


def build_family(ladder, padding="zeros", min_size=4, **options):
    shapes, centering = {**LADDERS, **MORE}[ladder]
    hierarchy = Hierarchy.build([Grid(shape, centering) for shape in shapes], min_size, padded=True)
    widths = [6, 4, 5, 3, 4, 4][: len(hierarchy.scales)]
    return UNetFamily(hierarchy, widths, 2, 3, padding=padding, fields="folded", **options)


def grow(family, network, level):
    grown = family.build(level)
    report = transfer_weights(network.state_dict(), grown)
    family.prepare_new(grown, report.keys(Status.TRANSFERRED))
    return grown, report


def random_input(family, generator):
    return torch.randn(2, 2, *family.hierarchy.finest.shape, generator=generator)


@pytest.mark.parametrize(
    ("fine", "factors", "shape"),
    [
        ((8,), (4,), (4, 2)),
        ((6, 8), (2, 4), (8, 3, 2)),
        ((17, 9), (4, 4), (16, 5, 3)),
        ((421, 85), (16, 16), (256, 27, 6)),
        ((100, 48), (16, 16), (256, 7, 3)),
        ((4, 6, 8), (2, 2, 4), (16, 2, 3, 2)),
    ],
)
def test_folding_loses_nothing(fine, factors, shape, generator):
    x = torch.randn(2, 1, *fine, generator=generator)
    folded = fold(x, factors)
    assert folded.shape[1:] == shape
    assert torch.equal(unfold(folded, factors, fine), x)


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 4))
def test_any_sizes_fold_and_unfold(channels, n, factor):
    x = torch.arange(channels * n * n, dtype=torch.float32).reshape(1, channels, n, n)
    assert torch.equal(unfold(fold(x, (factor, factor)), (factor, factor), (n, n)), x)


@pytest.mark.parametrize("ladder", [*LADDERS, *MORE])
def test_blocks_begin_at_the_points_that_the_grid_keeps(ladder):
    family = build_family(ladder)
    finest = family.hierarchy.finest
    where = torch.cartesian_prod(*(torch.from_numpy(axis) for axis in finest.axes()))
    where = where.reshape(*finest.shape, finest.ndim).movedim(-1, 0)[None]
    for grid in family.hierarchy.levels:
        factors = folding_factors(finest, grid)
        folded = fold(where, factors)
        assert folded.shape[2:] == grid.shape
        if grid.centering != "cell":
            kept = folded.unflatten(1, (finest.ndim, -1))[:, :, 0]
            assert torch.equal(kept, restrict_to(where, finest, grid))


def test_folding_is_space_to_depth(generator):
    x = torch.randn(2, 3, 12, 8, generator=generator)
    folded = fold(x, (2, 2))
    assert torch.equal(folded, nn.functional.pixel_unshuffle(x, 2))
    assert torch.equal(folded[:, 1], x[:, 0, ::2, 1::2])
    assert folded.is_contiguous(memory_format=torch.channels_last)
    nodes = fold(torch.arange(5.0).reshape(1, 1, 5), (2,))
    assert nodes.tolist() == [[[0, 2, 4], [1, 3, 4]]]  # the last value is repeated


@pytest.mark.parametrize("ladder", [*LADDERS, *MORE])
@paddings
@torch.no_grad()
def test_growth_preserves_the_function_on_the_finest_grid(ladder, padding, generator):
    family = build_family(ladder, padding)
    network = perturb(family.build(0), generator)
    x = random_input(family, generator)
    for level in range(3):
        assert family.input_grid(level) == network.field_grid == family.hierarchy.finest
        expected = network(x)
        assert expected.shape == (2, 3, *x.shape[2:])
        assert expected.std() > 1e-3
        if level < 2:
            grown, report = grow(family, network, level + 1)
            assert torch.equal(grown(x), expected)
            assert report.keys(Status.UNUSED) == report.keys(Status.MISMATCHED) == []
            assert_states_equal(grown.state_dict(), network.state_dict())
            network = perturb(grown, generator)


@ladders
@torch.no_grad()
def test_grow_then_truncate_is_the_identity(ladder, generator):
    family = build_family(ladder)
    network = perturb(family.build(0), generator)
    grown, _ = grow(family, network, 2)
    truncated = family.build(0)
    transfer_weights(grown.state_dict(), truncated)
    assert_states_equal(truncated.state_dict(), network.state_dict())
    x = random_input(family, generator)
    assert torch.equal(truncated(x), network(x))
    assert torch.equal(grown(x), network(x))


@ladders
@pytest.mark.parametrize("depth", [4, 100])
def test_every_weight_is_used(ladder, depth, generator):
    family = build_family(ladder, min_size=depth)
    network = perturb(family.build(1), generator)
    network(random_input(family, generator)).square().mean().backward()
    unused = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


@torch.no_grad()
def test_scales_below_level_0_see_restricted_fields(generator):
    """With the folded scales silent, they answer by themselves, prolonged."""
    family = build_family("2d-cells")
    network = perturb(family.build(0), generator)
    hierarchy = family.hierarchy
    (inner,) = hierarchy.scales[: hierarchy.tops[0]]
    alone = UNetFamily(Hierarchy.build([inner], depth=0), family.widths[:1], 2, 3).build(0)
    transfer_weights(network.state_dict(), alone)
    family.prepare_new(network, alone.state_dict())
    x = random_input(family, generator)
    expected = prolong_to(alone(restrict_to(x, hierarchy.finest, inner)), inner, hierarchy.finest)
    torch.testing.assert_close(network(x), expected, rtol=1e-6, atol=1e-6)


def test_heads_are_wide_enough_for_their_blocks():
    family = build_family("2d-cells")
    first, *_, last = family.hierarchy.tops
    scales = family.build(2).scales
    assert scales[first].stem.conv.in_channels == 2 * 16
    assert scales[first].head.project.weight.shape == (3 * 16, 32)
    assert scales[last].head.project.weight.shape == (3, 16)


def test_classic_networks_fold_at_their_top(generator):
    family = build_family("2d-cells", form="classic")
    for level in range(3):
        assert family.build(level)(random_input(family, generator)).shape == (2, 3, 32, 32)


@torch.no_grad()
def test_surgery_on_folded_networks(generator):
    family = build_family("2d-cells")
    network = perturb(family.build(0), generator)
    x = random_input(family, generator)
    grown, _ = add_level(network, Grid((16, 16)))
    assert torch.equal(grown(x), network(x))
    assert torch.equal(remove_levels(grown)[0](x), network(x))
    finest, _ = add_level(grown, Grid((32, 32)))
    with pytest.raises(UserError, match="64x64 is finer than the folded fields, 32x32"):
        add_level(finest, Grid((64, 64)))
    with pytest.raises(UserError, match="from 1 to 2, as one folded scale must stay"):
        remove_levels(finest, 3)


def test_too_many_channels_are_refused():
    levels = [Grid((n, n, n)) for n in (4, 8, 16, 32, 64, 128)]
    hierarchy = Hierarchy.build(levels)
    with pytest.raises(UserError, match=r"32768 channels .* so start with 8x8x8"):
        UNetFamily(hierarchy, [4] * len(hierarchy.scales), 1, 1, fields="folded")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two folded levels; its folder and summary."""
    folder = tmp_path_factory.mktemp("folded")
    experiment = write_experiment(
        folder / "tiny.yaml",
        problem={"kind": "poisson", "num_modes": 12},
        model={"width": 8, "fields": "folded", "depth": 1},
        schedule={"epochs": [6, 3]},
    )
    return folder, train(experiment, folder)


def test_every_level_is_measured_on_the_finest_grid(trained):
    folder, summary = trained
    rows = read_history(folder / "results" / "tiny" / "metrics.csv")
    assert all(row.val_rel_l2 == row.val_finest_rel_l2 for row in rows)
    assert {row.grid for row in rows} == {"8x8", "16x16"}
    before = [row.val_rel_l2 for row in rows if row.level == 0]
    after = [row.val_rel_l2 for row in rows if row.level == 1]
    assert after[0] == pytest.approx(min(before), rel=1e-6)  # growth changes nothing
    assert min(after) < after[0] < before[0]
    assert summary["levels"][1]["transferred"] == summary["levels"][0]["parameters"]


def test_one_surrogate_predicts_fine_fields_from_any_of_its_levels(trained):
    surrogate = multigrid.load(trained[0] / "results" / "tiny")
    assert str(surrogate).endswith("on 16x16")
    x = np.random.default_rng(0).standard_normal((3, 1, 16, 16))
    best, cheap = surrogate(x), surrogate(x, level=0)
    assert best.shape == cheap.shape == (3, 1, 16, 16)
    np.testing.assert_array_equal(best, surrogate.predict(x, level=1))
    assert 0 < np.abs(best - cheap).max() < np.abs(best).max()
    for level, shape, sentence in (
        (2, 16, r"level 2: not there; trained are 0 \(8x8\), 1 \(16x16\)"),
        (0, 8, "the input is on a 8x8 grid, but folded levels all take and give fields on 16x16; "
         "give the input on 16x16, and choose a level by level=0 or 1, the coarser the cheaper"),
        (None, 32, "restrict it to 16x16"),
    ):  # fmt: skip
        x = np.ones((3, 1, shape, shape))
        with pytest.raises(UserError, match=sentence):
            surrogate(x, level=level)


def test_folded_runs_cycle_and_resume(trained, tmp_path):
    folder, _ = trained
    experiment = folder / "tiny.yaml"
    cycle = ["schedule.cycle=v", "schedule.epochs=[2,1]", "compute.precision=float32"]
    assert run(experiment, tmp_path / "one", *cycle) == 0
    step = Recorder.on_step

    def stopped(recorder, trainer):
        step(recorder, trainer)
        if (trainer.stage.index, trainer.progress.step) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)

    with patch.object(Recorder, "on_step", stopped):
        assert run(experiment, tmp_path / "again", *cycle) == 75
    assert run(experiment, tmp_path / "again", *cycle, "--resume") == 0
    one, again = (tmp_path / name / "results" / "tiny" for name in ("one", "again"))
    assert_same_training(one, again)


def test_a_folded_surrogate_is_exported(trained, tmp_path):
    surrogate = multigrid.load(trained[0] / "results" / "tiny")
    surrogate.export(tmp_path / "cheap.pt2", level=0)
    program = torch.export.load(tmp_path / "cheap.pt2").module()
    x = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(program(x), surrogate(x, level=0))


def test_folded_levels_need_growth_and_networks_of_ours(trained, capsys):
    folder, _ = trained
    assert run(folder / "tiny.yaml", folder, "model.growth=false") == 2
    assert "model.growth: false is not possible with model.fields 'folded'" in (
        capsys.readouterr().err
    )
    config = load_config(folder / "tiny.yaml")
    with pytest.raises(UserError, match=r"model.fields: 'folded' is for the networks of"):
        network_family(config, 1, 1, lambda grid: nn.Conv2d(1, 1, 1))


def test_a_folded_level_costs_what_its_features_cost():
    shapes, _ = LADDERS["2d-cells"]
    hierarchy = Hierarchy.build([Grid(shape) for shape in shapes], 4)
    folded, plain = (
        UNetFamily(hierarchy, [32] * len(hierarchy.scales), 1, 1, fields=fields)
        for fields in ("folded", "restricted")
    )
    costs = [folded.flops(level).forward for level in range(3)]
    assert costs[0] < costs[1] / 2 < costs[2] / 4
    assert costs[0] < 1.6 * plain.flops(0).forward
