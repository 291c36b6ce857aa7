import pytest
import torch

from multigrid.data.samples import Samples
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.metrics import bind, mse, rel_h1, rel_l1, rel_l2
from multigrid.problems.elliptic import Diffusion, Poisson
from multigrid.training.losses import build_loss

GRID = Grid((4, 6))
GRIDS = [Grid((9,), "node"), GRID, Grid((4, 2, 6))]
METRICS = {
    "rel_l2": rel_l2,
    "rel_l1": rel_l1,
    "rel_h1": rel_h1,
    "mse": mse,
}
names = pytest.mark.parametrize("name", METRICS)


@pytest.fixture(params=GRIDS, ids=str)
def batch(request, generator):
    grid = request.param
    inputs, outputs = torch.randn(2, 3, 1, *grid.shape, generator=generator)
    return Samples(inputs, outputs, grid)


@names
def test_a_loss_is_the_mean_of_a_metric_over_the_batch(name, batch, generator):
    prediction = torch.randn(batch.outputs.shape, generator=generator)
    loss = build_loss(name, batch.grid, Poisson())(prediction, batch)
    assert loss.shape == ()
    metric = bind(METRICS[name], grid=batch.grid)
    torch.testing.assert_close(loss, metric(prediction, batch.outputs).mean())


@names
def test_a_perfect_prediction_costs_nothing(name, batch):
    assert build_loss(name, batch.grid, Poisson())(batch.outputs, batch).item() == 0


@names
def test_going_down_the_gradient_lowers_the_loss(name, batch):
    loss = build_loss(name, batch.grid, Poisson())
    prediction = torch.zeros_like(batch.outputs, requires_grad=True)
    before = loss(prediction + 0.5, batch)
    (gradient,) = torch.autograd.grad(before, prediction)
    step = 1e-2 * before.item() / gradient.norm().square().item()
    assert loss(0.5 - step * gradient, batch) < before


@names
def test_a_perfect_prediction_has_a_gradient(name, batch):
    prediction = batch.outputs.clone().requires_grad_()
    build_loss(name, batch.grid, Poisson())(prediction, batch).backward()
    assert prediction.grad.isfinite().all()


def test_energy_by_hand():
    grid = Grid((3, 3), "node")
    falling = torch.tensor([1.0, 0.25, 0.0])[:, None].expand(1, 1, 3, 3)
    log_nu = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 3, 3)
    loss = build_loss("energy", grid, Diffusion())
    # a step leads from 1/4 to 1/2 in the middle, whatever nu is
    prediction = falling.expand(2, 1, 3, 3)
    assert loss(prediction, Samples(log_nu, prediction, grid)).item() == pytest.approx(
        0.25 / 1.25**0.5
    )


def test_a_problem_without_energy_says_so():
    with pytest.raises(UserError, match=r"loss\.name: 'energy' is not available .*'poisson'"):
        build_loss("energy", GRID, Poisson())
