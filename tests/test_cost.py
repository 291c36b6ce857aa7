import math

import pytest
import torch
from torch import nn

from multigrid.config import parse_config
from multigrid.grid import Grid, Hierarchy
from multigrid.ladder.cost import overview
from multigrid.ladder.experiment import Experiment
from multigrid.ladder.state import begin
from multigrid.models.cost import (
    activation_bytes,
    count_flops,
    count_parameters,
    without_data,
)
from multigrid.models.growth import UNetFamily
from multigrid.models.layers import Head, set_activation_checkpointing
from multigrid.models.surgery import replace_module
from multigrid.models.unet import UNet

WIDTH = 5


@pytest.fixture
def unet():
    return UNet([Grid((4, 4)), Grid((8, 8))], [WIDTH, WIDTH], in_channels=2, out_channels=1)


def conv_flops(points, kernel_points, inputs, outputs):
    """A multiplication and an addition for each weight and point."""
    return 2 * points * kernel_points * inputs * outputs


def unet_flops(width=WIDTH):
    total = 0
    for points in (16, 64):
        total += conv_flops(points, 9, 2, width)  # stem
        total += 2 * conv_flops(points, 9, width, width)  # encoder
        total += conv_flops(points, 1, width, Head.HIDDEN)
        total += conv_flops(points, 1, Head.HIDDEN, 1)
    total += 2 * conv_flops(64, 9, width, width)  # decoder
    total += conv_flops(16, 4, width, width)  # down: each coarse cell sees four fine ones
    total += conv_flops(16, 4, width, width)  # up: each coarse cell feeds four fine ones
    return total


def prolongation_flops():
    """Matrices of 8 x 4, first along one axis and then along the other."""
    return 2 * 8 * 4 * 4 + 2 * 8 * 4 * 8


def test_flops_of_a_small_unet_by_hand(unet):
    assert count_flops(unet, (1, 2, 8, 8)).forward == unet_flops() + prolongation_flops()


def test_a_copy_without_data_has_what_decides_on_the_operations(unet):
    unet.scales[0].stem.requires_grad_(False)
    unet.again = unet.scales[1].stem  # a module with two names
    twin = without_data(unet)
    flags = {name: p.requires_grad for name, p in twin.named_parameters()}
    assert flags == {name: p.requires_grad for name, p in unet.named_parameters()}
    assert not all(flags.values())
    assert twin.again.conv.weight is twin.scales[1].stem.conv.weight
    assert {tensor.device.type for tensor in twin.state_dict().values()} == {"meta"}
    assert {tensor.device.type for tensor in unet.state_dict().values()} == {"cpu"}


def test_flops_grow_with_the_batch(unet):
    assert count_flops(unet, (3, 2, 8, 8)).forward == 3 * count_flops(unet, (1, 2, 8, 8)).forward


def test_training_takes_about_three_times_the_forward_pass(unet):
    # the gradient with respect to the input fields is not needed
    ratio = training_flops(unet, (1, 2, 8, 8)) / count_flops(unet, (1, 2, 8, 8)).forward
    assert 2.6 < ratio < 3.0


def training_flops(network, shape):
    return count_flops(network, shape).training


def test_training_flops_of_one_convolution_by_hand():
    layer = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    first, second = conv_flops(64, 1, 3, 4), conv_flops(64, 1, 4, 5)
    assert count_flops(layer, (1, 3, 8, 8)).forward == first + second
    assert training_flops(layer, (1, 3, 8, 8)) == 2 * first + 3 * second


def test_counting_leaves_the_network_alone(unet):
    before = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    training_flops(unet, (1, 2, 8, 8))
    assert all(parameter.grad is None for parameter in unet.parameters())
    assert all(torch.equal(t, before[k]) for k, t in unet.state_dict().items())


def test_parameters_by_hand():
    assert count_parameters(nn.Linear(3, 4)) == 16


def test_activations_of_a_chain_by_hand():
    chain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU(), nn.Conv2d(4, 1, 1))
    # the input, what SiLU takes and what it gives; the largest once more, for gradients
    assert activation_bytes(chain, (2, 3, 8, 8), 4) == 4 * 2 * 64 * (3 + 4 + 4 + 4)


def test_activations_grow_with_batch_and_element_size(unet):
    one = activation_bytes(unet, (8, 2, 8, 8), 2)
    assert 1.9 * one < activation_bytes(unet, (16, 2, 8, 8), 2) <= 2 * one
    assert activation_bytes(unet, (8, 2, 8, 8), 4) == 2 * one


def test_printing_a_family_shows_its_ladder():
    hierarchy = Hierarchy.build([Grid((8, 8)), Grid((16, 16))], depth=1)
    family = UNetFamily(hierarchy, [4, 5, 6], in_channels=1, out_channels=1)
    _, _, coarse, fine = str(family).splitlines()
    assert coarse.split()[:4] == ["0", "8x8", "2", "5"]
    assert fine.split()[:4] == ["1", "16x16", "3", "6"]
    assert fine.split()[4] == f"{count_parameters(family.build(1)):,}"


def build_experiment(levels, **schedule):
    return Experiment(
        parse_config(
            {
                "name": "x",
                "problem": {"kind": "poisson", "num_modes": 4},
                "levels": levels,
                "data": {"train": 40, "validation": 2, "test": 3},
                "model": {"width": 4},
                "schedule": {"batch_size": 8, **schedule},
            }
        )
    )


def test_work_units_of_a_ladder():
    experiment = build_experiment([8, 16, {"grid": 32, "samples": 10}], epochs=[4, 2, 1])
    assert experiment.plan.work_units(2, 1) == 1
    assert experiment.plan.work_units(2, 7) == 7
    per_sample = [
        training_flops(experiment.family.build(level), (1, 1, n, n))
        for level, n in enumerate((8, 16, 32))
    ]
    plan = experiment.plan
    assert plan.epoch_flops == [40 * per_sample[0], 40 * per_sample[1], 10 * per_sample[2]]
    assert plan.work_units(0, 3) == pytest.approx(3 * 4 * per_sample[0] / per_sample[2])


def test_coarse_levels_of_constant_width_are_almost_free():
    experiment = build_experiment([16, 32, 64])
    units = [experiment.plan.work_units(level, 1) for level in range(3)]
    assert units[0] < 0.08
    assert units[1] < 0.27


def test_description_adds_up():
    experiment = build_experiment([8, 16], epochs=[4, 3])
    total = 3 + experiment.plan.work_units(0, 4)
    assert f"total: {total:.2f} work units" in overview(experiment, begin(experiment))


def gradients_both_ways(network, x):
    """Pairs of each weight's gradient, with activations kept and computed anew."""
    gradients = []
    for checkpointed in (False, True):
        set_activation_checkpointing(network, checkpointed)
        network.zero_grad()
        network(x).square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    return list(zip(*gradients, strict=True))


def test_checkpointed_activations_take_less_and_give_the_same_gradient():
    grids = [Grid((8, 8)), Grid((16, 16)), Grid((32, 32))]
    network = UNet(grids, [8] * 3, 1, 1, num_blocks=2)
    pairs = gradients_both_ways(network, torch.randn(2, 1, 32, 32))
    assert all(torch.equal(plain, checkpointed) for plain, checkpointed in pairs)
    assert training_flops(network, (1, 1, 32, 32)) > 0


class Kept:
    """Bytes of tensors kept for the backward pass."""

    def __init__(self):
        self.bytes = 0

    def pack(self, tensor):
        self.bytes += tensor.numel() * tensor.element_size()
        return tensor


def test_checkpointing_keeps_less():
    grids = [Grid((n, n)) for n in (8, 16, 32, 64)]
    network = UNet(grids, [8] * 4, 1, 1)
    counts = []
    for checkpointed in (False, True):
        set_activation_checkpointing(network, checkpointed)
        kept = Kept()
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
            network(torch.randn(2, 1, 64, 64))
        counts.append(kept.bytes)
    assert counts[1] < counts[0] / 2
    plain, less = (activation_bytes(network, (2, 1, 64, 64), 4, c) for c in (False, True))
    assert less < plain / 1.5


@pytest.mark.parametrize("module", [nn.GroupNorm(4, 8), nn.Conv2d(8, 8, 3, padding=2, dilation=2)])
def test_a_module_swapped_into_a_block_counts_with_recomputed_activations(module):
    grids = [Grid((8, 8)), Grid((16, 16))]
    plain = UNet(grids, [8] * 2, 1, 1)
    network = replace_module(plain, "scales.1.encoder.0.conv1", module)
    x = torch.randn(2, 1, 16, 16)
    assert not torch.allclose(network(x), plain(x), rtol=1e-3)
    pairs = gradients_both_ways(network, x)
    assert all(torch.equal(kept, recomputed) for kept, recomputed in pairs)
    set_activation_checkpointing(network, True)
    recomputed = network(x)
    assert torch.equal(recomputed, network.eval()(x))


class Spectral(nn.Module):
    """A spectral convolution as in Fourier neural operators, without truncation."""

    def __init__(self, channels, modes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, *modes, dtype=torch.cfloat))

    def forward(self, x):
        coefficients = torch.einsum("nixy,ioxy->noxy", torch.fft.rfft2(x), self.weight)
        return torch.fft.irfft2(coefficients, s=x.shape[2:])


def test_transforms_and_complex_products_count_as_they_are():
    n, channels = 16, 3
    layer = Spectral(channels, (n, n // 2 + 1))
    transforms = 2 * channels * 2.5 * n**2 * math.log2(n**2)
    products = 8 * n * (n // 2 + 1) * channels**2
    assert count_flops(layer, (1, channels, n, n)).forward == transforms + products
    # going backward: both transforms, and the gradient of the weight; none of the input
    training = training_flops(layer, (1, channels, n, n))
    assert training >= 2 * products + 1.5 * transforms
