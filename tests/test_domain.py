"""A sample whose domain is split over two processes."""

from functools import partial

import pytest
import torch
from tiny import write_experiment
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_module, distribute_tensor

from multigrid.benchmark import __main__ as command
from multigrid.benchmark import domain
from multigrid.benchmark.group import Group


def gradients(shape, team):
    """Returns what gives the outputs and the gradients of inputs and weights, all in float64."""
    torch.manual_seed(0)
    network = domain.Chain(4, len(shape), team).double()
    field = torch.randn(1, 4, *shape, dtype=torch.float64)
    part = field.chunk(team.size, domain.SPLIT)[team.rank].clone().requires_grad_()

    def answer(order):
        output = network(part)
        output.square().sum().backward()
        network.add_up_gradients()
        weights = [parameter.grad.tolist() for parameter in network.parameters()]
        return output.tolist(), part.grad.tolist(), weights

    return answer


@pytest.mark.parametrize("shape", [(8, 6), (6, 4, 5)], ids=["2-D", "3-D"])
def test_a_split_sample_gives_the_same_outputs_and_gradients(shape):
    groups = [Group(partial(gradients, shape), size) for size in (1, 2)]
    (whole,), halves = (group.answers(None) for group in groups)
    for group in groups:
        group.end()
    for index in range(2):
        parts = [torch.tensor(half[index]) for half in halves]
        torch.testing.assert_close(torch.cat(parts, domain.SPLIT), torch.tensor(whole[index]))
    for half in halves:
        for mine, expected in zip(half[2], whole[2], strict=True):
            torch.testing.assert_close(torch.tensor(mine), torch.tensor(expected))


def convolution_of_torch(team):
    """Returns what tells the size along the split axis of a convolution by PyTorch's DTensor."""
    mesh = init_device_mesh("cpu", (team.size,))
    network = distribute_module(torch.nn.Conv2d(4, 4, 3, padding=1), mesh)
    field = distribute_tensor(torch.zeros(1, 4, 8, 8), mesh, [Shard(3)])
    return lambda order: network(field).full_tensor().shape[3]


def test_convolutions_of_dtensor_are_of_no_use_yet():
    """If this fails, PyTorch has learned to split a domain, and could do so for us."""
    group = Group(convolution_of_torch, 2)
    assert group.answers(None) == [4, 4]  # a half, which it takes for the whole
    group.end()


@pytest.fixture
def path(tmp_path):
    problem = {"kind": "poisson", "num_modes": 4}
    return str(write_experiment(tmp_path / "tiny.yaml", problem=problem))


def test_both_ways_are_timed_and_the_memory_is_halved(path, monkeypatch, capsys):
    monkeypatch.setattr(domain, "NUM_ROUNDS", 1)
    assert command.main(["domain", "--experiment", path]) == 0
    last = [line.split() for line in capsys.readouterr().out.splitlines()][4]
    assert last[0] == "split"
    assert 1.2 < float(last[-1]) < 2.1


def test_an_odd_grid_is_not_split(path, capsys):
    node = ["data.centering=node", "levels=[5,9]"]
    assert command.main(["domain", "--experiment", path, *node]) == 2
    assert "levels: 9 points cannot be split evenly over 2" in capsys.readouterr().err
