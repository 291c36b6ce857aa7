"""How tensors are trained: rates, what is frozen, and when it unfreezes."""

import copy
import math

import pytest
import torch
from torch import nn

from multigrid.config.settings import TransferConfig
from multigrid.errors import UserError
from multigrid.training.finetuning import (
    Finetuning,
    Freezer,
    Unfreezing,
    check_finetuning,
    check_rules,
    plan_finetuning,
)
from multigrid.training.optimizers import NamedOptimizer, ParameterOptions

NAMES = tuple(f"scales.{k}.{part}" for k in range(4) for part in ("stem", "head"))
OLD = [name for name in NAMES if not name.startswith("scales.3.")]


def plan(transferred=OLD, slow=None, ratio=0.2, **settings):
    slow = transferred if slow is None else slow
    section = TransferConfig(**settings)
    return plan_finetuning(section, NAMES, lambda n: int(n.split(".")[1]), transferred, slow, ratio)


def scales(plan, part="stem"):
    return [plan.options[f"scales.{k}.{part}"].scale for k in range(4)]


def unfreezings(plan):
    return [plan.unfreezings.get(f"scales.{k}.stem", Unfreezing(0)) for k in range(4)]


def test_rates():
    assert scales(plan()) == [0.2, 0.2, 0.2, 1.0]
    assert scales(plan(mode="full")) == [1.0] * 4
    assert scales(plan(decay=0.5)) == pytest.approx([0.05, 0.1, 0.2, 1.0])
    assert scales(plan(mode="full", decay=0.5)) == [0.25, 0.5, 1.0, 1.0]
    assert scales(plan(slow=())) == [1.0] * 4
    assert not plan().unfreezings


def test_with_nothing_new_the_distance_counts_from_the_output():
    assert scales(plan(NAMES, (), decay=0.5)) == [0.125, 0.25, 0.5, 1.0]
    assert unfreezings(plan(NAMES, (), mode="gradual", unfreeze=2)) == [
        Unfreezing(6), Unfreezing(4), Unfreezing(2), Unfreezing(0),
    ]  # fmt: skip
    assert unfreezings(plan(NAMES, (), mode="gradual", unfreeze=[0, 3])) == [
        Unfreezing(3), Unfreezing(3), Unfreezing(3), Unfreezing(0),
    ]  # fmt: skip


def test_features_are_frozen_for_good():
    always = plan(mode="features")
    assert always.frozen(10**6, 10**6) == always.always_frozen == set(OLD)


@pytest.mark.parametrize(
    ("unfreeze", "expected"),
    [
        (3, [Unfreezing(9), Unfreezing(6), Unfreezing(3), Unfreezing(0)]),
        ([1, 5], [Unfreezing(5), Unfreezing(5), Unfreezing(1), Unfreezing(0)]),
        (
            "plateau",
            [Unfreezing(plateaus=3), Unfreezing(plateaus=2), Unfreezing(plateaus=1), Unfreezing(0)],
        ),
    ],
)
def test_gradual_unfreezing_goes_inwards_from_what_is_new(unfreeze, expected):
    assert unfreezings(plan(mode="gradual", unfreeze=unfreeze)) == expected


def test_new_weights_alone_may_warm_up():
    options = plan(rules=[{"pattern": "*", "weights": "new", "warmup": 0.1}]).options
    assert {n for n in NAMES if options[n].warmup} == set(NAMES) - set(OLD)


def test_rules_by_pattern_and_the_last_one_counts():
    rules = [
        {"pattern": ["scales.0", "*.head"], "freeze": True},
        {"pattern": "scales.1.head", "freeze": False, "rate": 0.7},
        {"pattern": "scales.1", "freeze": 4},
        {
            "pattern": "*.stem",
            "weights": "new",
            "rate": 3.0,
            "weight_decay": 0.1,
            "warmup": 0.5,
        },
        {"pattern": "scales.2.head", "freeze": "plateau"},
        {"pattern": "*", "weights": "all", "weight_decay": 0.2},
    ]
    ruled = plan(rules=rules)
    assert dict(ruled.unfreezings) == {
        "scales.0.stem": Unfreezing(),
        "scales.0.head": Unfreezing(),
        "scales.1.stem": Unfreezing(4),
        "scales.1.head": Unfreezing(4),
        "scales.2.head": Unfreezing(plateaus=1),
    }
    assert ruled.options["scales.1.head"] == ParameterOptions(0.7, 0.2, 0.0)
    assert ruled.options["scales.3.stem"] == ParameterOptions(3.0, 0.2, 0.5)
    assert ruled.options["scales.3.head"] == ParameterOptions(1.0, 0.2, 0.0)
    spared = plan(mode="features", rules=[{"pattern": "scales.2", "freeze": False}])
    assert spared.always_frozen == {name for name in OLD if not name.startswith("scales.2.")}


def test_mistakes():
    section = TransferConfig(rules=[{"pattern": "scale.0"}])
    with pytest.raises(UserError, match=r"'scale.0' matches no tensor; did you mean 'scales.0'"):
        check_rules(section, NAMES)
    late = Finetuning(unfreezings={"a": Unfreezing(9)})
    with pytest.raises(UserError, match="epoch 9, but level 1 has 5 epochs; it must be before"):
        check_finetuning(late, ["a", "b"], 5, "level 1")
    both = Finetuning(unfreezings={"a": Unfreezing(), "b": Unfreezing(1)})
    with pytest.raises(UserError, match="all 2 parameters of level 1 are frozen"):
        check_finetuning(both, ["a", "b"], 5, "level 1")
    check_finetuning(both, ["a", "b"], 0, "level 1")


def test_warm_up_and_weight_decay_of_groups():
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
    freezer = Freezer(net, Finetuning(unfreezings={key: Unfreezing(epoch=2) for key in patterns}))

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
    waiting = Finetuning(unfreezings={"weight": Unfreezing(plateaus=2)}, patience=2)
    whole = Freezer(nn.Linear(2, 2), waiting)
    changes = [whole.update(epoch, best) for epoch, best in ((1, 1), (2, 1), (3, 1), (4, 1))]
    assert (changes, whole.num_plateaus) == ([False] * 4, 1)
    continued = Freezer(nn.Linear(2, 2), waiting)
    continued.load_state_dict(whole.state_dict(), 4)
    assert whole.update(5, 1) is continued.update(5, 1) is True
    assert all(p.requires_grad for p in continued.network.parameters())


def test_what_the_user_froze_stays_so():
    net = nn.Linear(2, 2)
    net.weight.requires_grad_(False)
    freezer = Freezer(net, Finetuning(unfreezings={"weight": Unfreezing(1), "bias": Unfreezing(1)}))
    freezer.update(1, 0)
    assert [p.requires_grad for p in (net.weight, net.bias)] == [False, True]


def test_a_shared_parameter_is_frozen_under_any_of_its_names():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    Freezer(net, Finetuning(unfreezings={"1.weight": Unfreezing()}))
    assert not net[0].weight.requires_grad


def test_never_is_later_than_any_epoch():
    assert Unfreezing().epoch == math.inf
    assert Finetuning(unfreezings={"a": Unfreezing()}).frozen(10**9, 10**9) == {"a"}
