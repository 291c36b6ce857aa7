"""The way up is the transposed convolution, and a frugal block the automatic one."""

import pytest
import torch

from multigrid.models.activations import PeakMeter
from multigrid.models.blocks import ResidualBlock, Up, channels_last


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("layout", [channels_last, torch.Tensor.contiguous])
def test_the_way_up_is_the_transposed_convolution_with_its_gradient(ndim, layout, generator):
    up = Up(ndim, 5, 3, "cell", "zeros")
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
    up = Up(2, 64, 48, "cell", "zeros")
    x = channels_last(torch.randn(2, 64, 8, 8, generator=generator))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted, found = up.conv(x), up(x, (16, 16))
    exact = torch.nn.functional.conv_transpose2d(x, up.conv.weight, up.conv.bias, stride=2)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - exact).norm() <= 1.01 * (wanted - exact).norm()


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frozen", [(), ("conv1.bias",), ("conv1.weight", "conv1.bias"), ("x",)])
def test_a_frugal_block_is_the_automatic_one_bit_for_bit(ndim, precision, frozen, generator):
    block = ResidualBlock(ndim, 16, "zeros", "none")
    x = channels_last(torch.randn(2, 16, *(8, 6, 4)[:ndim], generator=generator)).to(precision)
    tensors = {"x": x, **dict(block.named_parameters())}
    for name, tensor in tensors.items():
        tensor.requires_grad_(name not in frozen)
    wanted = [tensor for tensor in tensors.values() if tensor.requires_grad]
    found = []
    for block.checkpoint_activations in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            y = block(x)
        found.append([y, *torch.autograd.grad(y.float().square().sum(), wanted)])
    for automatic, frugal in zip(*found, strict=True):
        assert frugal.dtype == automatic.dtype
        assert torch.equal(frugal, automatic)


def test_a_frugal_block_needs_two_tensors_besides_input_result_and_gradient(generator):
    block = ResidualBlock(2, 16, "zeros", "none")
    block.checkpoint_activations = True
    x = channels_last(torch.randn(1, 16, 64, 64, generator=generator)).requires_grad_()
    gradient = torch.ones_like(x)
    with PeakMeter([x, gradient, *block.parameters()]) as meter:
        (found,) = torch.autograd.grad(block(x), x, gradient)
    size = x.numel() * x.element_size()
    assert found.shape == x.shape
    assert meter.peak < 3.1 * size  # two of them and the result; input and gradient were there
