import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from multigrid.data.samples import Samples
from multigrid.grid import Grid
from multigrid.metrics import FieldScale
from multigrid.models.scaling import FieldScaling, Surrogate, root_mean_square

GRID = Grid((6, 8))


@pytest.fixture
def samples(generator):
    inputs = 3 + 2 * torch.randn(16, 2, *GRID.shape, generator=generator)
    outputs = 50 + 10 * torch.randn(16, 1, *GRID.shape, generator=generator)
    return Samples(inputs, outputs, GRID)


def test_gaussian_scaling_shows_the_network_standardised_fields(samples):
    seen = []
    scaling = FieldScaling.fit("gaussian", samples)
    surrogate = Surrogate(nn.Conv2d(2, 1, 1), scaling)
    surrogate.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    surrogate(samples.inputs)
    assert seen[0].mean().item() == pytest.approx(0, abs=1e-5)
    assert seen[0].std().item() == pytest.approx(1, abs=1e-3)
    assert scaling.output_shift[0] == pytest.approx(samples.outputs.mean().item())
    assert scaling.output_scale[0] == pytest.approx(samples.outputs.std().item())


def test_min_max_scaling_shows_the_network_fields_from_0_to_1(samples):
    seen = []
    scaling = FieldScaling.fit("min-max", samples)
    surrogate = Surrogate(nn.Conv2d(2, 1, 1), scaling)
    surrogate.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    surrogate(samples.inputs)
    low, high = seen[0].movedim(1, 0).flatten(1).aminmax(dim=1)
    torch.testing.assert_close(low, torch.zeros(2))
    torch.testing.assert_close(high, torch.ones(2))


def test_min_max_scaling_by_hand():
    inputs = torch.tensor([[[[1.0, 2.0]], [[7.0, 7.0]]], [[[3.0, 5.0]], [[7.0, 7.0]]]])
    outputs = torch.tensor([[[[-10.0, 0.0]]], [[[30.0, 10.0]]]])
    scaling = FieldScaling.fit("min-max", Samples(inputs, outputs, Grid((1, 2))))
    assert (scaling.input_shift, scaling.input_scale) == ((1.0, 7.0), (4.0, 7.0))
    assert (scaling.output_shift, scaling.output_scale) == ((-10.0,), (40.0,))
    half = Surrogate(nn.Conv2d(2, 1, 1), scaling)
    nn.init.zeros_(half.network.weight)
    nn.init.constant_(half.network.bias, 0.5)
    assert half(inputs).unique().tolist() == [10.0]  # the middle of the range


@pytest.mark.parametrize("kind", ["gaussian", "min-max"])
def test_constant_channels_stay_harmless(samples, kind):
    samples.inputs[:, 1] = 0.5
    scaling = FieldScaling.fit(kind, samples)
    assert scaling.input_scale[1] == 0.5
    samples.inputs[:, 1] += 1e-7
    assert Surrogate(nn.Conv2d(2, 1, 1), scaling)(samples.inputs).abs().max() < 1e4


def test_homogeneous_scaling_makes_any_network_homogeneous(samples):
    scaling = FieldScaling.fit("homogeneous", samples)
    network = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 1, 3, padding=1))
    surrogate = Surrogate(network, scaling)
    factors = torch.logspace(-6, 6, 16).reshape(-1, 1, 1, 1)
    scaled, plain = surrogate(factors * samples.inputs), surrogate(samples.inputs)
    torch.testing.assert_close(scaled / factors, plain, rtol=1e-4, atol=1e-4)


def test_no_scaling_is_the_network_itself(samples):
    network = nn.Conv2d(2, 1, 1)
    surrogate = Surrogate(network, FieldScaling.fit("none", samples))
    torch.testing.assert_close(surrogate(samples.inputs), network(samples.inputs))


@pytest.mark.parametrize("kind", ["none", "gaussian", "min-max", "homogeneous"])
def test_scalings_survive_a_checkpoint(samples, kind, tmp_path):
    scaling = FieldScaling.fit(kind, samples)
    torch.save(scaling.to_dict(), tmp_path / "x.pt")
    assert FieldScaling.from_dict(torch.load(tmp_path / "x.pt", weights_only=True)) == scaling


def test_root_mean_square_by_hand():
    fields = torch.tensor([[[1.0, 1.0]], [[3.0, 4.0]], [[0.0, 0.0]]])
    values = root_mean_square(fields).flatten().tolist()
    assert values[:2] == pytest.approx([1, math.sqrt(12.5)])
    assert values[2] > 0


def test_a_field_of_zeros_gives_numbers(samples):
    surrogate = Surrogate(nn.Conv2d(2, 1, 1), FieldScaling.fit("homogeneous", samples))
    assert surrogate(torch.zeros(1, 2, *GRID.shape)).isfinite().all()


def test_scaling_and_boundary_values_move_with_the_surrogate(samples):
    boundary = torch.zeros(1, *GRID.shape, dtype=torch.bool), torch.zeros(1, *GRID.shape)
    network = nn.Conv2d(2, 1, 1)
    surrogate = Surrogate(network, FieldScaling.fit("gaussian", samples), boundary)
    assert set(surrogate.state_dict()) == {"network.weight", "network.bias"}
    moved = deepcopy(surrogate).to("meta")
    assert all(buffer.is_meta for buffer in moved.buffers())
    assert moved(samples.inputs.to("meta")).is_meta
    inputs, outputs = samples.inputs.double(), surrogate(samples.inputs)
    torch.testing.assert_close(surrogate.double()(inputs).float(), outputs)


def test_scalings_of_earlier_versions_are_read(samples):
    scaling = FieldScaling.fit("gaussian", samples)
    values = scaling.to_dict()
    del values["fields"]
    restored = FieldScaling.from_dict(values)
    assert restored == replace(scaling, fields=(FieldScale(),))


def test_input_and_output_may_have_any_unit(samples):
    big = Samples(samples.inputs * 1e30, samples.outputs * 1e-30, GRID)
    plain, scaled = (FieldScaling.fit("homogeneous", s) for s in (samples, big))
    network = nn.Conv2d(2, 1, 3)
    expected = Surrogate(network, plain)(samples.inputs)
    torch.testing.assert_close(Surrogate(network, scaled)(big.inputs) * 1e30, expected)
