import math

import pytest
import torch
from torch import nn

import multigrid
from multigrid.errors import UserError
from multigrid.ladder.recorder import Recorder
from multigrid.models.layers import channels_last
from multigrid.registry import OPTIMIZERS
from multigrid.training.optimizers import (
    Muon,
    NamedOptimizer,
    ParameterOptions,
    is_hidden,
    orthogonalize,
)


def build_net():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(12, 1, 1),
    )


def train(net, optimizer, first, last):
    for step in range(first, last):
        x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.set_learning_rate(1e-2 / (1 + step))
        net.zero_grad()
        (net(x) - x.cumsum(-1)).square().mean().backward()
        optimizer.step()


def assert_equal_states(a, b):
    for key, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[key]), key


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 8, 72), (2, 72, 8), (2, 48, 432)])
def test_orthogonalize_brings_singular_values_near_one(shape, generator):
    rank = min(shape[1:])
    u, _, vh = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    spectrum = torch.logspace(0, -1.5, rank)
    result = orthogonalize((u * spectrum) @ vh * 100)
    assert result.shape == shape
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    # the same singular vectors: u^T result v is diagonal
    inner = u.mT @ result @ vh.mT
    off_diagonal = inner - torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < 1e-4


def test_orthogonalize_of_nothing_is_nothing():
    assert torch.equal(orthogonalize(torch.zeros(1, 4, 4)), torch.zeros(1, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(8, 16), (8, 8, 3, 3), (8, 8, 3, 3, 3)])
def test_muon_step_by_hand(generator, shape, dtype):
    weight = nn.Parameter(channels_last(torch.zeros(shape)))
    weight.grad = channels_last(torch.randn(shape, generator=generator))
    Muon([weight], lr=0.1, momentum=0.9, dtype=dtype).step()
    update = orthogonalize(weight.grad.flatten(1)[None])[0]
    expected = -0.1 * 0.2 * math.sqrt(update.shape[1]) * update.reshape(shape)
    near = {"rtol": 1e-3, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.005}
    torch.testing.assert_close(weight.detach(), expected, **near)


def test_muon_decays_weights():
    weight = nn.Parameter(torch.ones(8, 8))
    weight.grad = torch.zeros(8, 8)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((8, 8), 0.95))


@pytest.mark.parametrize(
    ("key", "shape", "hidden"),
    [
        ("scales.1.encoder.0.conv1.weight", (8, 8, 3, 3), True),
        ("layers.0.weight", (16, 8), True),
        ("scales.1.stem.weight", (16, 8, 3, 3), False),
        ("scales.1.head.hidden.weight", (16, 8, 1, 1), False),
        ("layers.0.weight", (8, 1, 3, 3), False),
        ("layers.0.weight", (1, 8), False),
        ("layers.0.bias", (8,), False),
    ],
)
def test_hidden_weights(key, shape, hidden):
    assert is_hidden(key, torch.zeros(shape)) == hidden


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_every_parameter_has_one_group_with_its_scale(name):
    net = build_net()
    transferred = {"2.weight", "2.bias"}
    optimizer = NamedOptimizer(net, name, dict.fromkeys(transferred, ParameterOptions(0.2)))
    optimizer.set_learning_rate(0.5)
    rates = {
        id(parameter): group["lr"]
        for part in optimizer.optimizers
        for group in part.param_groups
        for parameter in group["params"]
    }
    num_entries = sum(len(g["params"]) for o in optimizer.optimizers for g in o.param_groups)
    assert num_entries == len(list(net.parameters()))
    for key, parameter in net.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.1 if key in transferred else 0.5)


def test_muon_takes_hidden_weights_only():
    net = build_net()
    muon = next(o for o in NamedOptimizer(net, "muon").optimizers if isinstance(o, Muon))
    taken = [p for group in muon.param_groups for p in group["params"]]
    assert [p.shape for p in taken] == [(8, 8, 3, 3), (12, 8, 3, 3)]
    assert not any(isinstance(o, Muon) for o in NamedOptimizer(net, "adamw").optimizers)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_ratio_of_zero_freezes_transferred_weights(name):
    net = build_net()
    before = {key: p.detach().clone() for key, p in net.named_parameters()}
    options = dict.fromkeys(["2.weight", "0.bias"], ParameterOptions(0.0))
    train(net, NamedOptimizer(net, name, options), 0, 3)
    for key, parameter in net.named_parameters():
        assert torch.equal(parameter, before[key]) == (key in {"2.weight", "0.bias"})


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_training_continued_equals_uninterrupted(name, tmp_path):
    options = {"options": {"2.weight": ParameterOptions(0.2)}, "weight_decay": 0.1}
    whole = build_net()
    train(whole, NamedOptimizer(whole, name, **options), 0, 8)

    first = build_net()
    optimizer = NamedOptimizer(first, name, **options)
    train(first, optimizer, 0, 5)
    torch.save((first.state_dict(), optimizer.state_dict()), tmp_path / "state.pt")

    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    second = build_net()
    second.load_state_dict(weights)
    optimizer = NamedOptimizer(second, name, **options)
    assert optimizer.load_state_dict(state) == len(list(second.parameters()))
    train(second, optimizer, 5, 8)
    assert_equal_states(second, whole)


def test_without_the_state_training_continues_differently():
    whole, cut = build_net(), build_net()
    train(whole, NamedOptimizer(whole), 0, 8)
    train(cut, NamedOptimizer(cut), 0, 5)
    train(cut, NamedOptimizer(cut), 5, 8)
    assert not torch.equal(whole[2].weight, cut[2].weight)


def test_loaded_state_shares_no_memory():
    net = build_net()
    optimizer = NamedOptimizer(net)
    train(net, optimizer, 0, 1)
    state = optimizer.state_dict()
    saved = state["2.weight"]["momentum_buffer"].clone()
    other = NamedOptimizer(build_net())
    other.load_state_dict(state)
    train(net, optimizer, 1, 2)
    assert torch.equal(other.state_dict()["2.weight"]["momentum_buffer"], saved)


def test_state_that_does_not_fit_is_left_out():
    net = build_net()
    optimizer = NamedOptimizer(net, "muon")
    train(net, optimizer, 0, 1)
    state = optimizer.state_dict()
    state["elsewhere"] = {"momentum_buffer": torch.zeros(3, 3)}
    num_parameters = len(list(net.parameters()))
    assert NamedOptimizer(build_net(), "muon").load_state_dict(state) == num_parameters
    # the two hidden weights have other state under AdamW
    assert NamedOptimizer(build_net(), "adamw").load_state_dict(state) == num_parameters - 2


class Counting(torch.optim.SGD):
    """Keeps a plain number, a text and numbers in bfloat16 for each parameter."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state.setdefault("count", 0)
                state.setdefault("history", [])
                state["count"] += 1
                state["history"].append(float(group["lr"]))
                past = state.setdefault("past", torch.zeros_like(p, dtype=torch.bfloat16))
                past.mul_(0.9).add_(p.grad)
                p.data.add_(past, alpha=-sum(state["history"]) / state["count"])


class Adapting(Counting):
    """Finds its step size by itself and keeps it with the group, as Prodigy does."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["d"] = group.get("d", 1.0) / 2
            group["sum"] = group.get("sum", torch.zeros(1)) + group["d"]
            for p in group["params"]:
                self.state[p]["seen"] = True
                p.data.add_(p.grad, alpha=-group["lr"] * group["d"] * group["sum"].item())


@pytest.mark.parametrize(
    "kind", ["NAdam", "Adafactor", "RAdam", "Rprop", "ASGD", Counting, Adapting]
)
def test_state_of_any_shape_is_kept(kind, tmp_path):
    make = getattr(torch.optim, kind) if isinstance(kind, str) else kind
    whole, cut = build_net(), build_net()
    train(whole, NamedOptimizer(whole, make), 0, 4)
    optimizer = NamedOptimizer(cut, make)
    train(cut, optimizer, 0, 2)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    optimizer = NamedOptimizer(cut, make)
    assert optimizer.load_state_dict(state) == len(list(cut.parameters()))
    train(cut, optimizer, 2, 4)
    assert_equal_states(cut, whole)


def test_a_run_that_goes_on_with_another_optimizer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = {
        "name": "tiny",
        "problem": {"kind": "poisson", "num_modes": 4},
        "levels": [8],
        "data": {"train": 16, "validation": 4, "test": 4},
        "schedule": {"epochs": 2},
        "model": {"width": 8},
    }

    def stop(*args):
        raise UserError("stop")

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_level_end", stop)
        with pytest.raises(UserError, match="stop"):
            multigrid.train(experiment, optimizer=Counting)
    with pytest.raises(UserError, match="the run was begun with another optimizer"):
        multigrid.train(experiment, resume=True)


def momentum(groups):
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9)


def test_an_optimizer_that_is_handed_in(tmp_path):
    options = {"2.weight": ParameterOptions(scale=0.5, weight_decay=0.1)}
    whole, cut = build_net(), build_net()
    optimizer = NamedOptimizer(whole, momentum, options, weight_decay=0.2)
    (sgd,) = optimizer.optimizers
    assert [(g["scale"], g["weight_decay"]) for g in sgd.param_groups] == [(1.0, 0.2), (0.5, 0.1)]
    train(whole, optimizer, 0, 4)

    optimizer = NamedOptimizer(cut, momentum, options, weight_decay=0.2)
    train(cut, optimizer, 0, 2)
    state = optimizer.state_dict()
    optimizer = NamedOptimizer(cut, momentum, options, weight_decay=0.2)
    assert optimizer.load_state_dict(state) == len(list(cut.parameters()))
    train(cut, optimizer, 2, 4)
    assert_equal_states(cut, whole)


def test_an_optimizer_by_its_registered_name():
    OPTIMIZERS.register("momentum")(momentum)
    assert isinstance(NamedOptimizer(build_net(), "momentum").optimizers[0], torch.optim.SGD)
    with pytest.raises(UserError, match=r"there is no optimizer 'adam'; .* did you mean 'adamw'"):
        NamedOptimizer(build_net(), "adam")


def test_a_run_with_an_optimizer_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []

    def own(groups):
        made.extend(group["weight_decay"] for group in groups)
        return momentum(groups)

    multigrid.train(
        {
            "name": "tiny",
            "problem": {"kind": "poisson", "num_modes": 4},
            "levels": [8],
            "data": {"train": 16, "validation": 4, "test": 4},
            "schedule": {"epochs": 1},
            "optimizer": {"weight_decay": 0.25},
            "model": {"width": 4},
        },
        optimizer=own,
    )
    assert set(made) == {0.25}
