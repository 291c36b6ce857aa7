"""A network as named steps, so that what never changes can be computed once."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

INPUT = "input"


@dataclass(frozen=True)
class Step:
    """A part of a forward pass.

    Attributes:
        name: Name of its result.
        needs: Names of the results that it is computed from; ``input`` is what the network takes.
        run: Computes it from them.
        modules: The modules whose weights it uses.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[..., Tensor]
    modules: tuple[nn.Module, ...] = ()


@runtime_checkable
class Stepwise(Protocol):
    """A network that tells its steps, in an order in which they can be computed."""

    def steps(self) -> Sequence[Step]:
        """Returns the steps; the result of the last one is the network's output."""


@runtime_checkable
class Recomputing(Protocol):
    """A network that can compute activations anew in the backward pass instead of keeping them."""

    recompute: bool


def set_recompute(network: nn.Module, recompute: bool) -> None:
    """Chooses whether a network computes activations anew, if it can."""
    if isinstance(network, Recomputing):
        network.recompute = recompute


def run_steps(
    steps: Sequence[Step], known: Mapping[str, Tensor], recompute: bool = False
) -> Tensor:
    """Returns the result of the last step; others are forgotten after their last use.

    Args:
        steps: The steps, each after those it needs.
        known: Results of other steps, or the input.
        recompute: Whether of the steps with weights only the results are kept for the backward
            pass, which computes anew what lies within them; no step may draw random numbers then.
    """
    results = dict(known)
    last_use = {name: step for step in steps for name in step.needs}
    for step in steps:
        needs = [results[name] for name in step.needs]
        if recompute and step.modules:
            results[step.name] = checkpoint(
                step.run, *needs, use_reentrant=False, preserve_rng_state=False
            )
        else:
            results[step.name] = step.run(*needs)
        del needs
        for name in set(step.needs):
            if last_use[name] is step:
                del results[name]
    return results[steps[-1].name]


def steps_of(network: nn.Module) -> Sequence[Step] | None:
    """Returns the steps of a network that tells them, or of a chain of modules; else None."""
    if isinstance(network, Stepwise):
        return network.steps()
    if not isinstance(network, nn.Sequential) or not len(network):
        return None
    names = [INPUT, *(name for name, _ in network.named_children())]
    return [
        Step(name, (before,), module, (module,))
        for before, (name, module) in zip(names, network.named_children(), strict=False)
    ]


class SplitNetwork:
    """A network in two parts: what depends on the input and frozen weights alone, and the rest.

    Args:
        network: The network.
        frozen: Names in its state dictionary of what never changes.

    Attributes:
        kept: Names of the results of the first part that the second one needs.
    """

    def __init__(self, network: nn.Module, frozen: Collection[str]) -> None:
        names = {id(module): prefix for prefix, module in network.named_modules()}
        self.network = network

        def never_changes(module: nn.Module) -> bool:
            prefix = names[id(module)]
            return all(f"{prefix}.{key}" in frozen for key in module.state_dict())

        self.first: list[Step] = []
        self.rest: list[Step] = []
        fixed = {INPUT}
        for step in steps_of(network) or ():
            if fixed.issuperset(step.needs) and all(map(never_changes, step.modules)):
                self.first.append(step)
                fixed.add(step.name)
            else:
                self.rest.append(step)
        needed = {name for step in self.rest for name in step.needs}
        self.kept = sorted(needed & fixed)

    @property
    def is_worthwhile(self) -> bool:
        """Whether the first part has weights, and the second something left to do."""
        used = self._used()
        return bool(self.rest) and any(s.modules for s in self.first if s.name in used)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Returns the results that are kept, for inputs ``[N, in, *grid]``."""
        used, results = self._used(), {INPUT: x}
        for step in self.first:
            if step.name in used:
                results[step.name] = step.run(*(results[name] for name in step.needs))
        return {name: results[name] for name in self.kept}

    def finish(self, features: Mapping[str, Tensor]) -> Tensor:
        """Returns the network's output from the results that were kept."""
        recompute = isinstance(self.network, Recomputing) and self.network.recompute
        return run_steps(self.rest, features, recompute)

    def _used(self) -> set[str]:
        """Returns the steps of the first part that what is kept depends on."""
        used = set(self.kept)
        for step in reversed(self.first):
            if step.name in used:
                used.update(step.needs)
        return used
