"""Optimisers whose state goes by parameter name, so that it can follow the weights.

Convolution weights are trained by Muon or AdamW, everything else by AdamW. Both take the same
learning rate, and each parameter group carries a ``scale`` that multiplies it.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from multigrid.distributed.processes import ALONE, Processes

OptimizerName: TypeAlias = str


class Muon(Optimizer):
    """Momentum whose matrix is orthogonalised before each step.

    After K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with
    the update scaled to the size of an AdamW step after Liu et al., arXiv:2502.16982, eq. 4. A
    convolution weight ``[out, in, *kernel]`` is taken as the matrix ``[out, in * kernel]``;
    ``torch.optim.Muon`` refuses such weights, which is why this one exists. Weights of equal
    shape are orthogonalised in one batched product. Of weights that are spread over processes,
    each process puts the matrices together and keeps its part of the step (Liu et al., sec. 2.3).

    Args:
        params: Parameters with two or more axes, or groups of them.
        lr: Learning rate.
        momentum: Decay of the gradient's running mean, with Nesterov's look-ahead.
        weight_decay: Decoupled weight decay.
        dtype: Number format of the matrix products. Rounding in bfloat16 does no harm, as the
            singular values are brought near one only roughly.
        processes: The processes over which the weights may be spread.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
        processes: Processes = ALONE,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype
        self.processes = processes

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Updates all parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for pair in zip(
                parameters, self._look_ahead(parameters, group["momentum"]), strict=True
            ):
                by_shape.setdefault(pair[0].shape, []).append(pair)
            for pairs in by_shape.values():
                self._update(pairs, group["lr"])

    def _look_ahead(self, parameters: list[Tensor], momentum: float) -> tuple[Tensor, ...]:
        """Moves the running means on and returns the gradients as they will be, by Nesterov."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        return torch._foreach_lerp(gradients, buffers, momentum)

    def _update(self, pairs: list[tuple[Tensor, Tensor]], learning_rate: float) -> None:
        """Takes the step of parameters of one shape.

        Columns are ordered as the layout with the channels last has them in memory, which saves
        copies; their order makes no difference.
        """
        whole = [self.processes.whole(update) for _, update in pairs]
        matrices = torch.stack([update.movedim(1, -1).flatten(1) for update in whole])
        rate = learning_rate * 0.2 * math.sqrt(max(matrices.shape[1:]))
        rows, columns, *kernel = pairs[0][0].shape
        updates = orthogonalize(matrices, dtype=self.dtype)
        updates = updates.reshape(len(pairs), rows, *kernel, columns).movedim(-1, 2)
        parameters = [parameter for parameter, _ in pairs]
        steps = [
            self.processes.spread_like(*each) for each in zip(updates, parameters, strict=True)
        ]
        torch._foreach_add_(parameters, steps, alpha=-rate)


def orthogonalize(
    matrices: Tensor, num_steps: int = 5, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Brings the singular values of matrices ``[B, m, n]`` near one, keeping their vectors.

    A quintic Newton-Schulz iteration with the coefficients of Jordan et al.; the singular values
    end between about 0.7 and 1.2. Computed in ``dtype``, and returned in the matrices' own.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalize(matrices.mT, num_steps, dtype).mT
    x = (matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(num_steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, polynomial, x, beta=3.4445)
    return x.to(matrices.dtype)


@dataclass(frozen=True)
class ParameterOptions:
    """What a parameter may have of its own.

    Attributes:
        scale: Factor on the learning rate.
        weight_decay: Decoupled weight decay; None for that of all.
        warmup: Fraction of the steps in which the rate rises from zero, on top of the stage's.
    """

    scale: float = 1.0
    weight_decay: float | None = None
    warmup: float = 0.0


class NamedOptimizer:
    """The optimisers of one network, with state by parameter name.

    Args:
        model: Network to train; only parameters that require gradients are.
        name: ``muon`` for hidden weights of two or more axes and AdamW for the rest, or ``adamw``.
        options: Options by parameter name; those not named have the default.
        weight_decay: Decoupled weight decay of those without one of their own.
        betas: AdamW's decay rates.
        matrix_dtype: Number format of Muon's matrix products.
        processes: The processes over which the parameters may be spread.
    """

    def __init__(
        self,
        model: nn.Module,
        name: OptimizerName = "muon",
        options: Mapping[str, ParameterOptions] | None = None,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        matrix_dtype: torch.dtype = torch.float32,
        processes: Processes = ALONE,
    ) -> None:
        self.parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
        groups: dict[bool, dict[ParameterOptions, list[Tensor]]] = {True: {}, False: {}}
        for key, parameter in self.parameters.items():
            own = (options or {}).get(key, ParameterOptions())
            hidden = name == "muon" and is_hidden(key, parameter)
            groups[hidden].setdefault(own, []).append(parameter)
        muon, adamw = (
            [_group(own, params, weight_decay) for own, params in groups[hidden].items()]
            for hidden in (True, False)
        )
        self.optimizers: list[Optimizer] = []
        if muon:
            self.optimizers.append(
                Muon(muon, weight_decay=weight_decay, dtype=matrix_dtype, processes=processes)
            )
        if adamw:
            fused = not any(p.is_complex() for p in self.parameters.values())  # torch knows no such
            self.optimizers.append(
                AdamW(adamw, betas=betas, weight_decay=weight_decay, fused=fused)
            )

    def set_learning_rate(self, rate: float, done: float = 1.0) -> None:
        """Sets every group's learning rate: ``rate``, times its scale, times its own warm-up.

        Args:
            rate: Learning rate of the step.
            done: Fraction of the stage's steps that are done with it.
        """
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                rise = min(1.0, done / group["warmup"]) if group["warmup"] else 1.0
                group["lr"] = rate * group["scale"] * rise

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def step(self) -> None:
        """Updates all parameters."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Returns the state tensors by parameter name."""
        found = {}
        for key, parameter in self.parameters.items():
            for optimizer in self.optimizers:
                if parameter in optimizer.state:
                    found[key] = dict(optimizer.state[parameter])
        return found

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> int:
        """Loads the state of every parameter whose name and shape fit.

        Returns:
            The number of parameters whose state was loaded.
        """
        count = 0
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                names = [
                    k for k, p in self.parameters.items() if any(p is q for q in group["params"])
                ]
                for key in names:
                    count += self._load(optimizer, key, state.get(key))
        return count

    def _load(self, optimizer: Optimizer, key: str, entry: dict[str, Tensor] | None) -> bool:
        parameter = self.parameters[key]
        kind = (
            {"momentum_buffer"}
            if isinstance(optimizer, Muon)
            else {"exp_avg", "exp_avg_sq", "step"}
        )
        if entry is None or set(entry) != kind:
            return False
        if any(t.ndim and t.shape != parameter.shape for t in entry.values()):
            return False
        # torch wants the number of steps beside the weights where they are updated in one go
        fused = bool(optimizer.defaults.get("fused"))
        place = parameter.device if fused else torch.device("cpu")
        optimizer.state[parameter] = {
            name: tensor.to(place, copy=True)
            if name == "step"
            else torch.empty_like(parameter).copy_(tensor)
            for name, tensor in entry.items()
        }
        return True


def _group(own: ParameterOptions, params: list[Tensor], weight_decay: float) -> dict[str, Any]:
    decay = weight_decay if own.weight_decay is None else own.weight_decay
    return {"params": params, "scale": own.scale, "weight_decay": decay, "warmup": own.warmup}


def is_hidden(key: str, parameter: Tensor) -> bool:
    """Whether Muon is meant for a parameter: a matrix between two sets of features.

    Vectors are not, nor the weights of stems and heads, the first and last layers.
    """
    outer = {"stem", "head"} & set(key.split("."))
    matrix = parameter.ndim >= 2 and not parameter.is_complex()
    return not outer and matrix and min(parameter.shape[:2]) >= 8
