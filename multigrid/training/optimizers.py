"""Optimizers whose state goes by parameter name, so that it can follow the weights.

An optimizer is made by a function that takes parameter groups and returns a
``torch.optim.Optimizer``, or several of them; a user registers one under a name for experiment
files, or hands it in. Each group is a dictionary with

- ``params``, the parameters, and ``names``, their names in the network, in the same order;
- ``weight_decay``, ``betas`` as the experiment has them;
- ``scale``, a factor on the learning rate, and ``warmup``, the fraction of the steps in which it
  rises from zero; both are applied before every step, through the group's ``lr``.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from multigrid.distributed import ALONE, Processes
from multigrid.registry import OPTIMIZERS

Groups = list[dict[str, Any]]
OptimizerFactory = Callable[[Groups], Optimizer | Sequence[Optimizer]]
OptimizerName: TypeAlias = str | OptimizerFactory


class Muon(Optimizer):
    """Momentum whose matrix is orthogonalised before each step.

    After K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with
    the update scaled to the size of an AdamW step after Liu et al., arXiv:2502.16982, eq. 4. A
    convolution weight ``[out, in, *kernel]`` is taken as the matrix ``[out, in * kernel]``;
    ``torch.optim.Muon`` refuses such weights, which is why this one exists. Weights of equal shape
    are orthogonalised in one batched product, in ``dtype``: rounding in bfloat16 does no harm, as
    singular values are brought near one only roughly. Of weights that are spread over processes,
    each process puts the matrices together and keeps its part of the step (Liu et al., sec. 2.3).
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
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            means = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
            gradients: list[Any] = [parameter.grad for parameter in parameters]
            torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
            # a step ahead (Nesterov)
            gradients = torch._foreach_lerp(gradients, means, group["momentum"])  # type: ignore
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for parameter, gradient in zip(parameters, gradients, strict=True):
                by_shape.setdefault(parameter.shape, []).append((parameter, gradient))
            for pairs in by_shape.values():
                self._update(pairs, group["lr"])

    def _update(self, pairs: list[tuple[Tensor, Tensor]], learning_rate: float) -> None:
        """Takes the step of parameters of one shape.

        Columns are ordered as the layout with the channels last has them in memory, which saves
        copies; their order makes no difference.
        """
        parameters, gradients = map(list, zip(*pairs, strict=True))
        if self.processes.shards:
            gradients = list(map(self.processes.whole, gradients))
        matrices = torch.stack([gradient.movedim(1, -1).flatten(1) for gradient in gradients])
        rate = learning_rate * 0.2 * math.sqrt(max(matrices.shape[1:]))
        rows, columns, *kernel = pairs[0][0].shape
        updates = orthogonalize(matrices, self.dtype)
        updates = updates.reshape(len(pairs), rows, *kernel, columns).movedim(-1, 2)
        steps = list(updates)
        if self.processes.shards:
            steps = list(map(self.processes.spread_like, steps, parameters))
        torch._foreach_add_(parameters, steps, alpha=-rate)


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Brings the singular values of matrices ``[B, m, n]`` near one, keeping their vectors.

    Five steps of a quintic Newton-Schulz iteration with the coefficients of Jordan et al.; the
    singular values end between about 0.7 and 1.2. Computed in ``dtype``, returned in their own.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalize(matrices.mT, dtype).mT
    x = (matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(5):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, polynomial, x, beta=3.4445)
    return x.to(matrices.dtype)


@dataclass(frozen=True)
class ParameterOptions:
    """A parameter's factor on the learning rate, own weight decay and warm-up if it has them."""

    scale: float = 1.0
    weight_decay: float | None = None
    warmup: float = 0.0


@OPTIMIZERS.register("adamw")
def adamw(groups: Groups) -> Optimizer:
    """Returns AdamW for all parameters."""
    complex_ones = any(p.is_complex() for group in groups for p in group["params"])
    return AdamW(groups, fused=not complex_ones)  # torch fuses none with complex numbers


@OPTIMIZERS.register("muon")
def muon(
    groups: Groups, dtype: torch.dtype = torch.float32, processes: Processes = ALONE
) -> list[Optimizer]:
    """Returns Muon for hidden weights of two or more axes and AdamW for the rest."""
    chosen: dict[bool, Groups] = {True: [], False: []}
    for group in groups:
        for hidden, part in chosen.items():
            pairs = zip(group["names"], group["params"], strict=True)
            named = {key: p for key, p in pairs if is_hidden(key, p) == hidden}
            if named:
                part.append({**group, "names": list(named), "params": list(named.values())})
    optimizers: list[Optimizer] = []
    if chosen[True]:
        optimizers.append(Muon(chosen[True], dtype=dtype, processes=processes))
    if chosen[False]:
        optimizers.append(adamw(chosen[False]))
    return optimizers


NARROW, WIDE = 8, 32
"""Rows and columns from which on a matrix is worth orthogonalising: hidden ones, and outer ones."""


def is_hidden(key: str, parameter: Tensor) -> bool:
    """Whether Muon is meant for a parameter: a matrix between two sets of features.

    Vectors are not, nor the weights of stems and heads, the first and last layers, unless these
    are wide on both sides, as those of folded fields are.
    """
    outer = {"stem", "head"} & set(key.split("."))
    matrix = parameter.ndim >= 2 and not parameter.is_complex()
    return matrix and min(parameter.shape[:2]) >= (WIDE if outer else NARROW)


STATE: dict[type[Optimizer], set[str]] = {
    Muon: {"momentum_buffer"},
    AdamW: {"exp_avg", "exp_avg_sq", "step"},
}
"""Names of the state that a parameter has; that of other optimizers is taken as it comes."""


class NamedOptimizer:
    """The optimizers of a network's trainable parameters, with state by name."""

    def __init__(
        self,
        model: nn.Module,
        name: OptimizerName = "muon",
        options: Mapping[str, ParameterOptions] | None = None,
        weight_decay: float = 0.0,
        betas: Sequence[float] = (0.9, 0.999),
        matrix_dtype: torch.dtype = torch.float32,
        processes: Processes = ALONE,
    ) -> None:
        self.parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
        names: dict[ParameterOptions, list[str]] = {}
        for key in self.parameters:
            names.setdefault((options or {}).get(key, ParameterOptions()), []).append(key)
        groups = [
            {
                "params": [self.parameters[key] for key in keys],
                "names": keys,
                "scale": one.scale,
                "weight_decay": weight_decay if one.weight_decay is None else one.weight_decay,
                "warmup": one.warmup,
                "betas": tuple(betas),
            }
            for one, keys in names.items()
        ]
        make: OptimizerFactory = OPTIMIZERS.get(name) if isinstance(name, str) else name
        if make is muon:
            make = partial(muon, dtype=matrix_dtype, processes=processes)
        made = make(groups) if groups else []
        self.optimizers = [made] if isinstance(made, Optimizer) else list(made)
        self._names = {id(parameter): key for key, parameter in self.parameters.items()}
        every = (group for optimizer in self.optimizers for group in optimizer.param_groups)
        self._groups = [(group, dict(group)) for group in every]

    def set_learning_rate(self, rate: float, done: float = 1.0) -> None:
        """Sets every group's learning rate: ``rate``, times its scale, times its own warm-up."""
        for group, _ in self._groups:
            warmup = group.get("warmup", 0.0)
            rise = min(1.0, done / warmup) if warmup else 1.0
            group["lr"] = rate * group.get("scale", 1.0) * rise

    def step(self) -> None:
        """Updates all parameters."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Returns the state by parameter name: tensors, and plain values of some optimizers.

        What an optimizer changes in a group, such as a step size that it finds itself, is under
        ``group`` in the state of each of the group's parameters.
        """
        state = {
            key: dict(optimizer.state[parameter])
            for key, parameter in self.parameters.items()
            for optimizer in self.optimizers
            if parameter in optimizer.state
        }
        for group, at_first in self._groups:
            fixed = {"params", "lr"} | {key for key in group if group[key] is at_first.get(key)}
            found = {key: value for key, value in group.items() if key not in fixed}
            for key in (self._names[id(parameter)] for parameter in group["params"]):
                if found and key in state:
                    state[key]["group"] = found
        return state

    def load_state_dict(self, state: Mapping[str, dict[str, Any]]) -> int:
        """Loads the state of parameters by their names; returns how many take it."""
        count = 0
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    entry = state.get(self._names[id(parameter)])
                    if entry is not None:
                        count += _load(optimizer, parameter, entry)
                        group.update(deepcopy(entry.get("group", {})))
        return count


def _load(optimizer: Optimizer, parameter: Tensor, entry: dict[str, Any]) -> bool:
    """Gives a parameter a copy of its state; returns whether the optimizer keeps such a state."""
    entry = {name: value for name, value in entry.items() if name != "group"}
    if set(entry) != STATE.get(type(optimizer), set(entry)):
        return False
    # torch wants the number of steps beside the weights where they are updated in one go
    fused = bool(optimizer.defaults.get("fused"))
    place = parameter.device if fused else torch.device("cpu")

    def copy(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return deepcopy(value)
        if value.shape == parameter.shape:  # in the layout of the weights
            return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        return value.to(parameter.device if value.ndim else place, copy=True)

    optimizer.state[parameter] = {name: copy(value) for name, value in entry.items()}
    return True
