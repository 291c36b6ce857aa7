"""A residual block's arithmetic that keeps nothing but its input for the backward pass."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from multigrid.hardware import working_dtype


def frugal_residual(x: Tensor, conv1: nn.Module, conv2: nn.Module) -> Tensor:
    """Computes ``x + conv2(silu(conv1(x)))``, keeping ``x`` for the backward pass.

    What lies between is computed anew there, one piece at a time, so that no more than four
    tensors of the size of ``x`` are alive at once, where automatic differentiation has five. The
    same kernels give the same results and gradients, bit for bit. To be differentiated once.

    Args:
        x: Features ``[N, C, *grid]``.
        conv1: Convolution with odd kernel, stride 1 and zeros outside, which keeps the shape.
        conv2: Another one.
    """
    dtype = working_dtype(x)
    weights = (conv1.weight, conv1.bias, conv2.weight, conv2.bias)
    result: Tensor = _Residual.apply(x.to(dtype), *(weight.to(dtype) for weight in weights))
    return result


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, weight1, bias1, weight2)
        return x + _convolve(F.silu(_convolve(x, weight1, bias1), inplace=True), weight2, bias2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight1, bias1, weight2 = ctx.saved_tensors
        for_x, *for_weights = ctx.needs_input_grad
        hidden = _convolve(x, weight1, bias1)
        _, *own2 = _gradients(grad, F.silu(hidden), weight2, [False, *for_weights[2:]])
        if not (for_x or any(for_weights[:2])):
            return None, None, None, *own2
        inner = _gradients(grad, hidden, weight2, [True, False, False])[0]
        torch.ops.aten.silu_backward.grad_input(inner, hidden, grad_input=inner)
        del hidden
        _, *own1 = _gradients(inner, x, weight1, [False, *for_weights[:2]])
        outer = _gradients(inner, x, weight1, [True, False, False])[0].add_(grad) if for_x else None
        return outer, *own1, *own2


def _geometry(weight: Tensor) -> tuple[list[int], list[int], list[int], bool, list[int], int]:
    """Returns stride, padding, dilation, whether transposed, output padding and groups."""
    ndim = weight.ndim - 2
    return [1] * ndim, [n // 2 for n in weight.shape[2:]], [1] * ndim, False, [0] * ndim, 1


def _convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.convolution(x, weight, bias, *_geometry(weight))


def _gradients(grad: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Any, ...]:
    """Returns the gradients of input, weight and bias where wanted, None elsewhere.

    For the gradient of the input alone, any ``x`` of its shape and layout will do.
    """
    found: tuple[Any, ...] = torch.ops.aten.convolution_backward(
        grad, x, weight, [len(weight)], *_geometry(weight), wanted
    )
    return found
