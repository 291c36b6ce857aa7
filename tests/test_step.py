"""The plain network that training steps are compared with, and the table of the comparison."""

import pytest
import torch
from tiny import write_experiment

from experiments.benchmarks import step as step_module
from experiments.benchmarks.plain import PlainUNet, plain_step
from experiments.benchmarks.step import LevelSteps, measure, repeated
from multigrid.config import load_config
from multigrid.grid import Grid, Hierarchy
from multigrid.ladder.experiment import Experiment
from multigrid.models.growth import UNetFamily


def build(shape, centering="cell", **options):
    hierarchy = Hierarchy.build([Grid(shape, centering)], min_size=4)
    return UNetFamily(hierarchy, [5, 6, 7][: len(hierarchy.scales)], 2, 3, **options).build(0)


@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (8, 8, 8)])
@pytest.mark.parametrize("num_blocks", [1, 2])
def test_the_plain_network_is_the_same_function_with_the_same_gradient(
    shape, num_blocks, generator
):
    network = build(shape, num_blocks=num_blocks, prolongation=2)
    plain = PlainUNet(network)
    assert PlainUNet.matches(network)
    x = torch.randn(2, 2, *shape, generator=generator)
    outputs = network(x), plain(x)
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)
    for output in outputs:
        output.square().mean().backward()
    twins = dict(plain.weights.items())
    for name, parameter in network.named_parameters():
        twin = twins.pop(name.replace(".", "_"))
        assert twin.is_contiguous()
        torch.testing.assert_close(parameter.grad, twin.grad, rtol=1e-4, atol=1e-6)
    assert not twins


@pytest.mark.parametrize(
    "options",
    [
        {"form": "classic"},
        {"padding": "periodic"},
        {"norm": "group"},
        {"centering": "node"},
    ],
)
def test_other_networks_are_not_known(options):
    assert not PlainUNet.matches(build((16, 16), **options))
    assert not PlainUNet.matches(torch.nn.Conv2d(1, 1, 3))


def test_steps_of_folded_levels(tmp_path):
    problem = {"kind": "poisson", "num_modes": 4}
    path = write_experiment(tmp_path / "e.yaml", problem=problem, model={"fields": "folded"})
    experiment = Experiment(load_config(path))
    names = [LevelSteps.of(experiment, level, 2).name for level in (0, 1)]
    assert names == [str(grid) for grid in experiment.hierarchy.levels]


def test_the_plain_loop_lowers_its_loss(generator):
    plain = PlainUNet(build((8, 8)))
    before = plain(torch.ones(1, 2, 8, 8)).square().mean().item()
    step = plain_step(plain, (4, 2, 8, 8))
    for _ in range(20):
        step()
    assert plain(torch.ones(1, 2, 8, 8)).square().mean().item() < before


def test_a_call_is_repeated_until_it_can_be_timed(monkeypatch):
    ticks = iter([0.05, 0.9])
    monkeypatch.setattr(step_module, "seconds", lambda call: (call(), next(ticks))[1])
    calls = []
    assert repeated(lambda: calls.append(1)) == pytest.approx(0.3)
    assert len(calls) == 4


def test_rows_are_medians_of_ratios_within_rounds():
    times = {"ours": [4.0, 8.0, 4.0], "plain": [8.0, 16.0, 20.0], "compiled": [2.0, 4.0, 3.0]}
    fine = LevelSteps("32x32", 8, 400.0, {}, times)
    coarse = LevelSteps("16x16", 16, 200.0, {}, {"ours": [3.0, 8.0, 3.0]})
    assert coarse.row([100.0, 50.0, 100.0], fine) == [
        "16x16", "16", "3.0000", "5.333", "66.7", "0.67", "1.50", "-", "-",
    ]  # fmt: skip
    assert fine.row([100.0, 50.0, 100.0], fine)[-4:] == ["1.00", "1.00", "2.00", "0.50"]


@pytest.fixture
def quick(tmp_path, monkeypatch):
    monkeypatch.setattr(step_module, "NUM_ROUNDS", 2)
    monkeypatch.setattr(step_module, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(step_module, "MATRIX_SIZE", 64)
    return write_experiment(tmp_path / "tiny.yaml", problem={"kind": "poisson", "num_modes": 4})


def rows_of(text):
    return [cells for line in text.splitlines() if "x" in (cells := line.split() or [""])[0]]


def test_tables_of_a_tiny_ladder(quick):
    equal, larger = (rows_of(part) for part in measure(load_config(quick, [])).split("\n\n"))
    assert [row[0] for row in equal] == ["8x8", "16x16"]
    assert all(float(cell) > 0 for row in equal for cell in (row[2], *row[-4:-1]))
    assert [row[-1] for row in equal] == ["-", "-"]
    ((grid, *cells),) = larger
    assert grid == "8x8"
    assert len(cells) == 3  # batches of 8, 16 and 32: as many operations as 8 on 16x16
    assert all(float(cell) > 0 for cell in cells)


def test_a_compiled_network_has_a_column_of_its_own(quick, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network, **options: compiled.append(1) or network)
    rows = rows_of(measure(load_config(quick, ["compute.compile=true"])).split("\n\n")[0])
    assert all(float(row[-1]) > 0 for row in rows)
    assert len(compiled) == 2
