"""How tensors are trained: rates, what is frozen, and when it thaws."""

import copy
import math

import pytest
import torch
from torch import nn

from multigrid.errors import UserError
from multigrid.training.finetuning import (
    Anatomy,
    Regime,
    RegimeSettings,
    Rule,
    Thaw,
    check_regime,
    check_rules,
    plan_regime,
)
from multigrid.training.freezing import Freezer
from multigrid.training.optimizers import NamedOptimizer, ParameterOptions

NAMES = tuple(f"scales.{k}.{part}" for k in range(4) for part in ("stem", "head"))
OLD = [name for name in NAMES if not name.startswith("scales.3.")]


def anatomy(names=NAMES):
    return Anatomy(names, lambda n: int(n.split(".")[1]), lambda n: min(int(n.split(".")[1]), 2))


def plan(transferred=OLD, slow=None, ratio=0.2, **settings):
    slow = transferred if slow is None else slow
    return plan_regime(RegimeSettings(**settings), anatomy(), transferred, slow, ratio)


def scales(regime, part="stem"):
    return [regime.options[f"scales.{k}.{part}"].scale for k in range(4)]


def thaws(regime):
    return [regime.thaw.get(f"scales.{k}.stem", Thaw(0)) for k in range(4)]


def test_rates():
    assert scales(plan()) == [0.2, 0.2, 0.2, 1.0]
    assert scales(plan(regime="full")) == [1.0] * 4
    assert scales(plan(decay=0.5)) == pytest.approx([0.05, 0.1, 0.2, 1.0])
    assert scales(plan(regime="full", decay=0.5)) == [0.25, 0.5, 1.0, 1.0]
    assert scales(plan(slow=())) == [1.0] * 4
    assert not plan().thaw


def test_with_nothing_new_the_distance_counts_from_the_output():
    assert scales(plan(NAMES, (), decay=0.5)) == [0.125, 0.25, 0.5, 1.0]
    assert thaws(plan(NAMES, (), regime="gradual", unfreeze=2)) == [
        Thaw(6), Thaw(4), Thaw(2), Thaw(0),
    ]  # fmt: skip
    assert thaws(plan(NAMES, (), regime="gradual", unfreeze=(0, 3))) == [
        Thaw(3), Thaw(3), Thaw(3), Thaw(0),
    ]  # fmt: skip


def test_features_are_frozen_for_good():
    regime = plan(regime="features")
    assert regime.frozen(10**6, 10**6) == regime.always_frozen == set(OLD)


@pytest.mark.parametrize(
    ("unfreeze", "expected"),
    [
        (3, [Thaw(9), Thaw(6), Thaw(3), Thaw(0)]),
        ((1, 5), [Thaw(5), Thaw(5), Thaw(1), Thaw(0)]),
        ("plateau", [Thaw(plateaus=3), Thaw(plateaus=2), Thaw(plateaus=1), Thaw(0)]),
    ],
)
def test_gradual_unfreezing_goes_inwards_from_what_is_new(unfreeze, expected):
    assert thaws(plan(regime="gradual", unfreeze=unfreeze)) == expected


def test_new_weights_alone_may_warm_up():
    regime = plan(warmup=0.1)
    assert {n for n in NAMES if regime.options[n].warmup} == set(NAMES) - set(OLD)


def test_rules_by_pattern_and_level_and_the_last_one_counts():
    regime = plan(
        rules=(
            Rule(("scales.0", "*.head"), freeze=True),
            Rule(("scales.1.head",), freeze=False, rate=0.7),
            Rule((), (1,), freeze=4),
            Rule(("*.stem",), weights="new", rate=3.0, weight_decay=0.1, warmup=0.5),
            Rule(("scales.2.head",), freeze="plateau"),
            Rule(("*",), weights="all", weight_decay=0.2),
        )
    )
    assert dict(regime.thaw) == {
        "scales.0.stem": Thaw(),
        "scales.0.head": Thaw(),
        "scales.1.stem": Thaw(4),
        "scales.1.head": Thaw(4),
        "scales.2.head": Thaw(plateaus=1),
    }
    assert regime.options["scales.1.head"] == ParameterOptions(0.7, 0.2, 0.0)
    assert regime.options["scales.3.stem"] == ParameterOptions(3.0, 0.2, 0.5)
    assert regime.options["scales.3.head"] == ParameterOptions(1.0, 0.2, 0.0)


def test_mistakes():
    for rule, sentence in (
        (Rule(("scale.0",)), "'scale.0' matches no tensor; did you mean 'scales.0'"),
        (Rule((), (7,)), "there is no level 7 that owns weights; there are 0, 1, 2"),
    ):
        with pytest.raises(UserError, match=sentence):
            check_rules(RegimeSettings(rules=(rule,)), anatomy())
    with pytest.raises(UserError, match="epoch 9, but level 1 has 5 epochs; it must be before"):
        check_regime(Regime(thaw={"a": Thaw(9)}), ["a", "b"], 5, "level 1")
    with pytest.raises(UserError, match="all 2 parameters of level 1 are frozen"):
        check_regime(Regime(thaw={"a": Thaw(), "b": Thaw(1)}), ["a", "b"], 5, "level 1")
    check_regime(Regime(thaw={"a": Thaw(), "b": Thaw()}), ["a", "b"], 0, "level 1")


def test_own_warm_up_and_weight_decay_of_groups():
    net = nn.Linear(2, 2)
    options = {"weight": ParameterOptions(0.5, 0.3, 0.25)}
    optimizer = NamedOptimizer(net, "adamw", options, weight_decay=0.1)
    groups = {g["params"][0].ndim: g for o in optimizer.optimizers for g in o.param_groups}
    assert (groups[2]["weight_decay"], groups[1]["weight_decay"]) == (0.3, 0.1)
    for done, factor in ((0.05, 0.2), (0.25, 1.0), (0.9, 1.0)):
        optimizer.set_learning_rate(4.0, done)
        assert groups[2]["lr"] == pytest.approx(2.0 * factor)
        assert groups[1]["lr"] == 4.0


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5))
        self.outer = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))

    def forward(self, x):
        return self.outer(self.inner(x))


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_frozen_means_no_update_no_decay_and_no_moving_statistics(name):
    net = Net()
    patterns = [k for k in net.state_dict() if k.startswith("inner") and "running" not in k]
    freezer = Freezer(net, Regime(thaw={key: Thaw(epoch=2) for key in patterns}))

    def train_epoch():
        before = copy.deepcopy(net.state_dict())
        optimizer = NamedOptimizer(net, name, weight_decay=0.5)
        optimizer.set_learning_rate(0.1)
        freezer.train()
        net(torch.randn(4, 1, 6, 6) + 3).square().mean().backward()
        optimizer.step()
        return {k for k, t in net.state_dict().items() if not torch.equal(t, before[k])}

    for epoch in (0, 1):
        assert freezer.update(epoch, 0) is False
        assert train_epoch() == {k for k in net.state_dict() if k.startswith("outer")}
    assert freezer.update(2, 0) is True
    assert train_epoch() == set(net.state_dict())
    assert net.inner.training


def test_plateaus_survive_a_checkpoint():
    regime = Regime(thaw={"weight": Thaw(plateaus=2)}, patience=2)
    whole = Freezer(nn.Linear(2, 2), regime)
    changes = [whole.update(epoch, best) for epoch, best in ((1, 1), (2, 1), (3, 1), (4, 1))]
    assert (changes, whole.num_plateaus) == ([False] * 4, 1)
    continued = Freezer(nn.Linear(2, 2), regime)
    continued.load_state_dict(whole.state_dict(), 4)
    assert whole.update(5, 1) is continued.update(5, 1) is True
    assert all(p.requires_grad for p in continued.network.parameters())


def test_what_the_user_froze_stays_so():
    net = nn.Linear(2, 2)
    net.weight.requires_grad_(False)
    freezer = Freezer(net, Regime(thaw={"weight": Thaw(1), "bias": Thaw(1)}))
    freezer.update(1, 0)
    assert [p.requires_grad for p in (net.weight, net.bias)] == [False, True]


def test_a_shared_parameter_is_frozen_under_any_of_its_names():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    Freezer(net, Regime(thaw={"1.weight": Thaw()}))
    assert not net[0].weight.requires_grad


def test_never_is_later_than_any_epoch():
    assert Thaw().epoch == math.inf
    assert Regime(thaw={"a": Thaw()}).frozen(10**9, 10**9) == {"a"}
