"""Growing the network preserves its function, exactly."""

from itertools import pairwise

import pytest
import torch

from multigrid.fields import prolong_to, restrict_to
from multigrid.grid import Grid, Hierarchy
from multigrid.models.growth import UNetFamily
from multigrid.models.transfer import Status, transfer_weights

LADDERS = {
    "2d-cells": ([(8, 8), (16, 16), (32, 32)], "cell"),
    "2d-cells-6-to-48": ([(6, 6), (12, 12), (48, 48)], "cell"),
    "2d-anisotropic": ([(4, 12), (8, 24), (16, 48)], "cell"),
    "2d-odd-nodes": ([(9, 9), (17, 17), (33, 33)], "node"),
    "2d-even-nodes": ([(8, 8), (16, 16), (32, 32)], "node"),
    "2d-22-nodes": ([(22, 22), (43, 43), (85, 85)], "node"),
    "3d-cells": ([(4, 4, 4), (8, 8, 8), (16, 16, 16)], "cell"),
    "3d-odd-nodes": ([(5, 5, 5), (9, 9, 9), (17, 17, 17)], "node"),
    "3d-even-nodes": ([(4, 4, 4), (8, 8, 8), (16, 16, 16)], "node"),
}
ladders = pytest.mark.parametrize("ladder", LADDERS)
paddings = pytest.mark.parametrize("padding", ["zeros", "replicate", "periodic"])


def build_family(ladder, padding="zeros", **options):
    shapes, centering = LADDERS[ladder]
    hierarchy = Hierarchy.build([Grid(shape, centering) for shape in shapes], min_size=4)
    widths = [6, 4, 5, 3, 4, 4][: len(hierarchy.scales)]
    return UNetFamily(hierarchy, widths, 2, 3, padding=padding, **options)


def perturb(network, generator):
    """Stands for a training: no weight stays where it was."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def grow(family, network, level, copy=False):
    grown = family.build(level)
    report = transfer_weights(network.state_dict(), grown)
    family.prepare_new(grown, report.keys(Status.TRANSFERRED), copy)
    return grown, report


def random_input(family, level, generator):
    grid = family.hierarchy.levels[level]
    return torch.randn(2, family.in_channels, *grid.shape, generator=generator)


def prolonged_coarse_output(family, network, x, level, from_level):
    fine, coarse = family.hierarchy.levels[level], family.hierarchy.levels[from_level]
    y = network(restrict_to(x, fine, coarse))
    periodic = network.padding == "periodic"
    return prolong_to(y, coarse, fine, network.prolongation, periodic)


def assert_states_equal(actual, expected):
    for key, tensor in expected.items():
        assert torch.equal(actual[key], tensor), key


@ladders
@paddings
@torch.no_grad()
def test_growth_preserves_the_function_on_every_level(ladder, padding, generator):
    family = build_family(ladder, padding)
    network = perturb(family.build(0), generator)
    for level in range(1, len(family.hierarchy.levels)):
        grown, report = grow(family, network, level)
        x = random_input(family, level, generator)
        expected = prolonged_coarse_output(family, network, x, level, level - 1)
        assert expected.std() > 1e-3
        torch.testing.assert_close(grown(x), expected, rtol=1e-6, atol=1e-6)
        assert report.keys(Status.UNUSED) == report.keys(Status.MISMATCHED) == []
        assert report.count(Status.TRANSFERRED)[0] == len(network.state_dict())
        assert_states_equal(grown.state_dict(), network.state_dict())
        network = perturb(grown, generator)


@pytest.mark.parametrize("norm", ["group", "instance"])
@pytest.mark.parametrize("prolongation", [1, 2])
@torch.no_grad()
def test_growth_preserves_the_function_whatever_the_options(norm, prolongation, generator):
    family = build_family("2d-cells", norm=norm, prolongation=prolongation, num_blocks=2)
    network = perturb(family.build(0), generator)
    grown, _ = grow(family, network, 1)
    x = random_input(family, 1, generator)
    expected = prolonged_coarse_output(family, network, x, 1, 0)
    torch.testing.assert_close(grown(x), expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_growth_preserves_the_function_in_double_precision(generator):
    family = build_family("2d-cells")
    network = perturb(family.build(0), generator)
    grown, _ = grow(family, network, 1)
    x = random_input(family, 1, generator).double()
    expected = prolonged_coarse_output(family, network.double(), x, 1, 0)
    torch.testing.assert_close(grown.double()(x), expected, rtol=1e-14, atol=1e-14)


@torch.no_grad()
def test_a_copied_scale_preserves_the_function_too(generator):
    family = build_family("2d-cells")
    family.widths = (4,) * len(family.widths)
    network = perturb(family.build(0), generator)
    grown, _ = grow(family, network, 1, copy=True)
    x = random_input(family, 1, generator)
    expected = prolonged_coarse_output(family, network, x, 1, 0)
    torch.testing.assert_close(grown(x), expected, rtol=1e-6, atol=1e-6)
    coarser, new = (grown.scales[k].state_dict() for k in family.hierarchy.tops[:2])
    copied = {k for k in new if torch.equal(new[k], coarser[k])}
    assert copied == {k for k in new if k.startswith(("encoder.", "decoder.", "up."))}


def test_only_scales_of_the_same_widths_are_copied():
    family = build_family("2d-cells")
    family.widths = tuple(8 - k for k in range(len(family.widths)))
    names = [name for name, _ in family.build(0).named_parameters()]
    copies = family.prepare_new(family.blueprint(1), names, copy=True)
    first = len(family.blueprint(0).grids)
    assert copies == {f"scales.{first}.{part}": False for part in ("encoder", "decoder", "up")}


@torch.no_grad()
def test_without_silence_growth_does_not_preserve_the_function(generator):
    family = build_family("2d-cells")
    network, fresh = family.build(0), family.build(1)
    transfer_weights(network.state_dict(), fresh)
    x = random_input(family, 1, generator)
    expected = prolonged_coarse_output(family, network, x, 1, 0)
    assert (fresh(x) - expected).norm() > 0.1 * expected.norm()


@ladders
@torch.no_grad()
def test_grow_then_truncate_is_the_identity(ladder, generator):
    family = build_family(ladder)
    network = perturb(family.build(0), generator)
    grown, _ = grow(family, network, 2)
    truncated = family.build(0)
    transfer_weights(grown.state_dict(), truncated)
    assert_states_equal(truncated.state_dict(), network.state_dict())
    x = random_input(family, 0, generator)
    assert torch.equal(truncated(x), network(x))


@ladders
@paddings
@torch.no_grad()
def test_growing_twice_equals_growing_by_two(ladder, padding, generator):
    family = build_family(ladder, padding)
    network = perturb(family.build(0), generator)
    once, _ = grow(family, network, 1)
    twice, _ = grow(family, once, 2)
    by_two, _ = grow(family, network, 2)
    assert twice.state_dict().keys() == by_two.state_dict().keys()
    assert_states_equal(twice.state_dict(), by_two.state_dict())
    x = random_input(family, 2, generator)
    assert torch.equal(twice(x), by_two(x))


@ladders
def test_a_coarse_network_is_a_sub_network(ladder):
    family = build_family(ladder)
    states = [family.build(level).state_dict() for level in range(3)]
    for coarse, fine in pairwise(states):
        assert coarse.keys() < fine.keys()
        assert {k: t.shape for k, t in coarse.items()} == {k: fine[k].shape for k in coarse}


def test_initial_weights_depend_on_scale_and_seed_only():
    family, again = build_family("2d-cells"), build_family("2d-cells")
    again.build(0)
    assert_states_equal(again.build(2).state_dict(), family.build(1).state_dict())
    other = build_family("2d-cells", seed=1).build(0).state_dict()
    stem = "scales.0.stem.conv.weight"
    assert not torch.equal(other[stem], family.build(0).state_dict()[stem])


def test_building_leaves_the_global_random_state_alone():
    state = torch.random.get_rng_state()
    build_family("2d-cells").build(1)
    assert torch.equal(torch.random.get_rng_state(), state)


@ladders
def test_gradients_reach_the_new_scale_at_birth(ladder, generator):
    family = build_family(ladder)
    grown, _ = grow(family, family.build(1), 2)
    grown(random_input(family, 2, generator)).square().mean().backward()
    first = family.hierarchy.tops[1] + 1
    gradients = {key: parameter.grad for key, parameter in grown.named_parameters()}
    for part in ("down", "head.project"):
        found = [g for k, g in gradients.items() if k.startswith(f"scales.{first}.{part}.")]
        assert found
        assert all(g.abs().max() > 0 for g in found)


@ladders
@paddings
def test_every_weight_is_used(ladder, padding, generator):
    family = build_family(ladder, padding)
    network = perturb(family.build(1), generator)
    x = random_input(family, 1, generator)
    y = network(x)
    assert y.shape == (2, 3, *x.shape[2:])
    y.square().mean().backward()
    unused = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


def test_classic_form_starts_with_fresh_outer_layers():
    family = build_family("2d-cells", form="classic")
    coarse, fine = family.hierarchy.tops[:2]
    _, report = grow(family, family.build(0), 1)

    def parts(status):
        return {".".join(key.split(".")[1:3]) for key in report.keys(status)}

    unused = report.keys(Status.UNUSED)
    assert {tuple(key.split(".")[1:3]) for key in unused} == {
        (str(coarse), "stem"),
        (str(coarse), "head"),
    }
    new = report.keys(Status.NEW)
    assert all(key.startswith(f"scales.{fine}.") for key in new)
    assert {f"{fine}.stem", f"{fine}.head", f"{fine}.down", f"{fine}.up"} <= parts(Status.NEW)
    assert report.keys(Status.MISMATCHED) == []


def test_classic_form_has_one_stem_and_one_head(generator):
    family = build_family("2d-cells", form="classic")
    network = family.build(2)
    names = {".".join(key.split(".")[1:3]) for key in network.state_dict()}
    top = family.hierarchy.tops[2]
    assert {n for n in names if "stem" in n or "head" in n} == {f"{top}.stem", f"{top}.head"}
    assert network(random_input(family, 2, generator)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("ladder", ["2d-cells", "2d-even-nodes"])
def test_padding_by_axis(ladder):
    """A shift along a periodic axis shifts the output, a shift along the other one does not."""
    mixed = {"x": "periodic", "y": "zeros"}
    paddings = (mixed, "periodic", dict.fromkeys("xy", "periodic"))
    networks = [build_family(ladder, padding).build(2).double() for padding in paddings]
    perturb(networks[0], torch.Generator().manual_seed(0))
    x = torch.randn(2, 2, 32, 32, dtype=torch.double)
    with torch.no_grad():
        y = networks[0](x)
        for axis, wraps in ((2, True), (3, False)):
            shifted = networks[0](x.roll(8, axis)).roll(-8, axis)
            assert torch.allclose(shifted, y, rtol=1e-9, atol=1e-9) == wraps
        for network in networks[1:]:
            network.load_state_dict(networks[0].state_dict())
        torch.testing.assert_close(networks[2](x), networks[1](x), rtol=1e-12, atol=1e-12)
