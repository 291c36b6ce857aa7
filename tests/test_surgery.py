"""Surgery returns a new network, and leaves the old one untouched."""

import pytest
import torch
from torch import nn

from multigrid.errors import UserError
from multigrid.fields import prolong, restrict
from multigrid.grid import Grid, Hierarchy
from multigrid.models.growth import UNetFamily
from multigrid.models.surgery import (
    add_level,
    remove_levels,
    replace_head,
    replace_module,
    replace_stem,
    transplant,
)
from multigrid.models.transfer import COPIED, IN_TARGET, Status


def build(form="pyramid", seed=0):
    hierarchy = Hierarchy.build([Grid((16, 16), "cell")], 4, None)
    return UNetFamily(hierarchy, [8, 8, 8], 2, 3, form=form, seed=seed).build(0)


@pytest.fixture(params=["pyramid", "classic"])
def unet(request):
    network = build(request.param)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    yield network
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def assert_adds_up(report, source, target):
    tensors, parameters = report.count(*IN_TARGET)
    assert tensors == len(target.state_dict())
    assert parameters == sum(t.numel() for t in target.state_dict().values())
    known = [e for e in report.entries if e.source_shape is not None]
    assert len(known) == len(source.state_dict())


def test_a_new_head(unet):
    new, report = replace_head(unet, 5)
    assert new(torch.randn(1, 2, 16, 16)).shape == (1, 5, 16, 16)
    changed = report.keys(Status.MISMATCHED)
    assert changed
    assert all(".head.project." in key for key in changed)
    assert report.count(*COPIED)[0] == len(unet.state_dict()) - len(changed)
    assert_adds_up(report, unet, new)


def test_a_new_stem(unet):
    new, report = replace_stem(unet, 4)
    assert new(torch.randn(1, 4, 16, 16)).shape == (1, 3, 16, 16)
    changed = report.keys(Status.MISMATCHED)
    assert all(key.endswith("stem.conv.weight") for key in changed)
    assert_adds_up(report, unet, new)


@torch.no_grad()
def test_an_added_level_prolongs_and_can_be_removed_again(unet):
    grid = Grid((32, 32), "cell")
    new, report = add_level(unet, grid)
    assert_adds_up(report, unet, new)
    x = torch.randn(2, 2, 32, 32)
    if unet.form == "pyramid":
        expected = prolong(unet(restrict(x, grid)), grid, 4)
        torch.testing.assert_close(new(x), expected, rtol=1e-6, atol=1e-6)
        old, report = remove_levels(new)
        assert_adds_up(report, new, old)
        assert all(torch.equal(t, unet.state_dict()[k]) for k, t in old.state_dict().items())
    else:
        assert new(x).shape == (2, 3, 32, 32)


def test_selected_levels_are_transplanted(unet):
    donor = build(unet.form, seed=1).state_dict()
    new, report = transplant(unet, donor, ["scales.0", "scales.1.up"])
    for key, tensor in new.state_dict().items():
        taken = key.startswith(("scales.0.", "scales.1.up."))
        assert torch.equal(tensor, (donor if taken else unet.state_dict())[key]), key
        assert (key in report.keys(Status.TRANSFERRED)) == taken


def test_any_module_is_replaced():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.Conv2d(4, 2, 1)))
    new = replace_module(network, "1.0", nn.Conv2d(4, 7, 1))
    assert new(torch.zeros(1, 1, 4, 4)).shape[1] == 7
    assert network(torch.zeros(1, 1, 4, 4)).shape[1] == 2


@pytest.mark.parametrize(
    ("operate", "sentence"),
    [
        (lambda u: replace_head(u, 0), "out_channels: 0 must be at least 1"),
        (lambda u: replace_stem(u, -1), "in_channels: -1 must be at least 1"),
        (lambda u: remove_levels(u, 3), "num_levels: 3 must be from 1 to 2"),
        (lambda u: remove_levels(u, 0), "num_levels: 0 must be from 1 to 2"),
        (lambda u: add_level(u, Grid((24, 24), "cell")), "24x24 is not one halving finer"),
        (lambda u: add_level(u, Grid((32, 32), "node")), "is not one halving finer than 16x16"),
        (lambda u: add_level(u, Grid((32, 32), "cell"), 0), "width: 0 must be at least 1"),
        (
            lambda u: transplant(u, u.state_dict(), ["scale.0"]),
            "'scale.0' matches no tensor; did you mean 'scales.0'",
        ),
        (
            lambda u: transplant(u, {"other": torch.zeros(1)}, ["other"]),
            "'other' does not fit into the network",
        ),
        (
            lambda u: replace_module(u, "scales.1.encodr", nn.Identity()),
            "no module 'scales.1.encodr'; did you mean 'scales.1.encoder'",
        ),
    ],
)
def test_mistakes(unet, operate, sentence):
    with pytest.raises(UserError, match=sentence):
        operate(unet)
