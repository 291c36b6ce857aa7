"""The way up is the transposed convolution."""

import pytest
import torch

from multigrid.models.layers import Up, channels_last


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
