"""Layers of a UNet: the way up is the transposed convolution; activations can be left out."""

import pytest
import torch

from multigrid.grid import Grid, refinements
from multigrid.models.layers import Up, channels_last
from multigrid.models.unet import UNet


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("layout", [channels_last, torch.Tensor.contiguous])
def test_the_way_up_is_the_transposed_convolution_with_its_gradient(ndim, layout, generator):
    up = Up(ndim, (5, 3), "cell", "zeros")
    x = layout(torch.randn(2, 5, *(4, 6, 2)[:ndim], generator=generator)).requires_grad_()
    fine = tuple(2 * n for n in x.shape[2:])
    gradient = torch.randn(2, 3, *fine, generator=generator)
    wanted, found = up.conv(x), up(x, fine)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    inputs = [x, up.conv.weight, up.conv.bias]
    for a, b in zip(
        torch.autograd.grad(found, inputs, gradient),
        torch.autograd.grad(wanted, inputs, gradient),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_the_way_up_in_bfloat16_rounds_like_the_transposed_convolution(generator):
    up = Up(2, (64, 48), "cell", "zeros")
    x = channels_last(torch.randn(2, 64, 8, 8, generator=generator))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted, found = up.conv(x), up(x, (16, 16))
    exact = torch.nn.functional.conv_transpose2d(x, up.conv.weight, up.conv.bias, stride=2)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - exact).norm() <= 1.01 * (wanted - exact).norm()


@pytest.mark.parametrize("form", ["pyramid", "classic"])
@pytest.mark.parametrize("field_grid", [None, Grid((32, 32))])
def test_a_network_without_activations_is_an_affine_map(form, field_grid, generator):
    grids = refinements(Grid((4, 4)), 3)
    network = UNet(grids, [6, 8, 8], 2, 1, form, field_grid=field_grid, activation="none").double()
    shape = 2, *(field_grid or grids[-1]).shape
    x, y = (torch.randn(3, *shape, generator=generator, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        combined = network(2 * x - 5 * y) - network(0 * x)
        apart = 2 * (network(x) - network(0 * x)) - 5 * (network(y) - network(0 * y))
    torch.testing.assert_close(combined, apart, rtol=0, atol=1e-10)
    assert combined.abs().max() > 0.01
