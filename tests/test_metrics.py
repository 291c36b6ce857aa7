import math

import pytest
import torch

from multigrid.grid import Grid
from multigrid.metrics import (
    FieldScale,
    band_error,
    boundary_rmse,
    field_errors,
    max_error,
    min_max_rel_l1,
    mse,
    rel_h1,
    rel_l1,
    rel_l2,
    rmse,
)

GRID = Grid((2, 2))

# Two samples of one field on 2 x 2 cells, spacing 1/2.
TRUTH = torch.tensor([[[[2.0, 2.0], [2.0, 2.0]]], [[[1.0, 3.0], [1.0, 3.0]]]])
ERROR = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]], [[[0.0, 0.0], [0.0, -2.0]]]])
PREDICTION = TRUTH + ERROR

L2 = [2 / 4, 2 / math.sqrt(20)]
L1 = [4 / 8, 2 / 8]
MSE = [1.0, 1.0]
# Mean squares of values and, per axis, of differences over spacing.
H1 = [
    math.sqrt((1 + 0 + 16) / (4 + 0 + 0)),
    math.sqrt((1 + (0 + 16) / 2 + (0 + 16) / 2) / (5 + 0 + 16)),
]


def values(tensor):
    return tensor.tolist()


def test_each_metric_by_hand():
    assert values(rel_l2(PREDICTION, TRUTH)) == pytest.approx(L2)
    assert values(rel_l1(PREDICTION, TRUTH)) == pytest.approx(L1)
    assert values(mse(PREDICTION, TRUTH)) == pytest.approx(MSE)
    assert values(rmse(PREDICTION, TRUTH)) == pytest.approx([1.0, 1.0])
    assert values(max_error(PREDICTION, TRUTH)) == pytest.approx([1.0, 2.0])
    assert values(rel_h1(PREDICTION, TRUTH, GRID)) == pytest.approx(H1)


def test_channels_count_together():
    truth = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    prediction = torch.tensor([[[3.0, 0.0], [0.0, 3.0]]])
    assert rel_l2(prediction, truth).item() == pytest.approx(1 / 5)
    assert rel_l1(prediction, truth).item() == pytest.approx(1 / 7)
    assert max_error(prediction, truth).item() == pytest.approx(1.0)


def test_h1_uses_the_spacing_of_each_axis():
    truth = torch.zeros(1, 1, 2, 4)
    truth[..., 1:, :] = 1.0
    prediction = 1.5 * truth
    steep = torch.zeros_like(truth)
    steep[0, 0, 0, 0] = 1.0
    # truth: mean square 1/2, along axis 0 (1 / 0.5)^2, along axis 1 nothing
    assert rel_h1(prediction, truth, Grid((2, 4))).item() == pytest.approx(0.5)
    # error: 1/8, one of 4 differences 1/0.5, one of 6 differences 1/0.25
    expected = math.sqrt((1 / 8 + 4 / 4 + 16 / 6) / (1 / 2 + 4))
    assert rel_h1(truth + steep, truth, Grid((2, 4))).item() == pytest.approx(expected)


def test_h1_converges_to_the_integral():
    # u = sin(2 pi x), error 0.1 cos(2 pi x): both H1 norms squared are (1 + 4 pi^2)/2 times a^2.
    grid = Grid((512,))
    x = torch.from_numpy(grid.axes()[0])[None, None]
    truth, error = torch.sin(2 * math.pi * x), 0.1 * torch.cos(2 * math.pi * x)
    assert rel_h1(truth + error, truth, grid).item() == pytest.approx(0.1, rel=1e-2)


def test_field_errors_hold_every_metric():
    errors = field_errors(PREDICTION, TRUTH, GRID)
    assert {"rel_l2", "rel_l1", "rel_h1", "rmse", "max", "boundary_rmse"} <= set(errors)
    assert {"rel_l2_low", "rel_l2_mid", "rel_l2_high"} <= set(errors)
    assert all(error.shape == (2, 1) for error in errors.values())
    assert values(errors["rel_h1"][:, 0]) == pytest.approx(H1)
    assert values(errors["max"][:, 0]) == pytest.approx([1.0, 2.0])


def test_boundary_error_counts_the_outermost_points_only():
    error = torch.full((1, 1, 3, 4), 2.0)
    error[0, 0, 1, 1:3] = 100.0
    assert boundary_rmse(error, torch.zeros_like(error)).item() == pytest.approx(2.0)
    error[0, 0, 0, 0] = 12.0
    # 9 boundary points with 4 and one with 144
    expected = math.sqrt((9 * 4 + 144) / 10)
    assert boundary_rmse(error, torch.zeros_like(error)).item() == pytest.approx(expected)


@pytest.mark.parametrize(("wavenumber", "band"), [(1, "low"), (3, "mid"), (5, "high"), (6, "high")])
def test_a_wave_is_an_error_of_its_band(wavenumber, band):
    x = torch.arange(12) / 12
    wave = torch.cos(2 * math.pi * wavenumber * x).expand(1, 1, 12, 12)
    truth = torch.ones(1, 1, 12, 12)
    errors = {name: band_error(truth + wave, truth, band=name) for name in ("low", "mid", "high")}
    size = rel_l2(truth + wave, truth).item()
    for name, error in errors.items():
        assert error.item() == pytest.approx(size if name == band else 0, abs=1e-6)


def test_bands_add_up(generator):
    truth, prediction = torch.randn(2, 3, 2, 8, 10, 6, generator=generator)
    bands = (band_error(prediction, truth, band=name) for name in ("low", "mid", "high"))
    squares = sum(error.square() for error in bands)
    torch.testing.assert_close(squares, rel_l2(prediction, truth).square())


def test_min_max_error_by_hand():
    truth = torch.tensor([[[1.0, 3.0], [10.0, 30.0]]])
    prediction = torch.tensor([[[2.0, 3.0], [10.0, 40.0]]])
    # scaled truth 0, 0.5 and 0, 0.5; scaled error 0.25, 0 and 0, 0.25
    ranges = FieldScale(1, 1, low=1.0, high=5.0), FieldScale(1, 1, low=10.0, high=50.0)
    for channel, field in enumerate(ranges):
        part = slice(channel, channel + 1)
        error = min_max_rel_l1(prediction[:, part], truth[:, part], field)
        assert error.item() == pytest.approx(50.0)
