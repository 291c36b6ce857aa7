"""A network as named steps, so that what never changes can be computed once."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

INPUT = "input"

MAX_SLABS = 8
SLAB_POINTS = 2**14
"""Fewest points of a slab, all samples together: smaller ones would save little and take longer."""


@dataclass(frozen=True)
class Step:
    """A part of a forward pass.

    Attributes:
        name: Name of its result.
        needs: Names of the results that it is computed from; ``input`` is what the network takes.
        run: Computes it from them.
        modules: The modules whose weights it uses.
        keeps: Whether its backward pass needs more than what it is computed from.
        is_pointwise: Whether each point of the result ``[N, out, *grid]`` depends on the same point
            alone of what it is computed from.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[..., Tensor]
    modules: tuple[nn.Module, ...] = ()
    keeps: bool = True
    is_pointwise: bool = False


@runtime_checkable
class Stepwise(Protocol):
    """A network that tells its steps, in an order in which they can be computed."""

    def steps(self) -> Sequence[Step]:
        """Returns the steps; the result of the last one is the network's output."""


class ActivationCheckpointing(nn.Module):
    """A module that can compute activations anew in the backward pass instead of keeping them.

    Attributes:
        checkpoint_activations: Whether it does.
    """

    checkpoint_activations = False


def set_activation_checkpointing(network: nn.Module, wanted: bool) -> None:
    """Chooses whether a network and its parts compute activations anew, where they can."""
    for module in network.modules():
        if isinstance(module, ActivationCheckpointing):
            module.checkpoint_activations = wanted


def run_steps(
    steps: Sequence[Step], known: Mapping[str, Tensor], checkpointed: bool = False
) -> Tensor:
    """Returns the result of the last step; others are forgotten after their last use.

    Args:
        steps: The steps, each after those it needs.
        known: Results of other steps, or the input.
        checkpointed: Whether to keep for the backward pass only what steps with weights are
            computed from, what lies within them being computed anew, for steps that go point by
            point one slab of the grid at a time; no step may draw random numbers then.
    """
    results = dict(known)
    last_use = {name: step for step in steps for name in step.needs}
    for group in _groups(steps, checkpointed):
        needs = [results[name] for name in group[0].needs]
        found: tuple[Tensor, ...]
        if checkpointed and group[0].is_pointwise:
            found = (_run_in_slabs(group[0], *needs),)
        elif checkpointed and group[0].modules and group[0].keeps:
            found = _recomputed(partial(_run_chain, group), *needs)
        else:
            found = _run_chain(group, *needs)
        del needs
        results.update(zip((step.name for step in group), found, strict=True))
        for step in group:
            for name in set(step.needs):
                if last_use[name] is step:
                    del results[name]
    return results[steps[-1].name]


def _groups(steps: Sequence[Step], checkpointed: bool) -> Iterator[list[Step]]:
    """Yields each step; with it one that keeps its result alone, if that is to be recomputed."""
    group: list[Step] = []
    for step in steps:
        recomputed = checkpointed and group and group[0].keeps
        if recomputed and not step.keeps and step.needs == (group[-1].name,):
            group.append(step)
            continue
        if group:
            yield group
        group = [step]
    yield group


def _run_chain(group: Sequence[Step], *needs: Tensor) -> tuple[Tensor, ...]:
    """Runs steps each of which needs the one before, and returns all results."""
    results = [group[0].run(*needs)]
    for step in group[1:]:
        results.append(step.run(results[-1]))
    return tuple(results)


def _run_in_slabs(step: Step, x: Tensor) -> Tensor:
    """Runs a step that goes point by point on parts of ``[N, in, *grid]`` along the first axis."""
    num_points = x.numel() // x.shape[1]
    slabs = x.chunk(min(MAX_SLABS, max(1, num_points // SLAB_POINTS)), dim=2)
    return torch.cat([_recomputed(step.run, slab) for slab in slabs], dim=2)


_recomputed = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)


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
        network = self.network
        checkpointed = (
            isinstance(network, ActivationCheckpointing) and network.checkpoint_activations
        )
        return run_steps(self.rest, features, checkpointed)

    def _used(self) -> set[str]:
        """Returns the steps of the first part that what is kept depends on."""
        used = set(self.kept)
        for step in reversed(self.first):
            if step.name in used:
                used.update(step.needs)
        return used
