"""How a network's tensors are trained in a stage: rates, frozen ones, and when they unfreeze.

Pure planning by name, and the one class that applies a plan to a network. What a trunk that stays
frozen gives may be computed once and kept in memory, after the "bottleneck features" of transfer
learning in image recognition, and exact: an epoch on features has the losses of one on fields.
"""

import math
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from multigrid.config.settings import TransferConfig
from multigrid.data.samples import Samples, TrainingSamples
from multigrid.distributed import local_size
from multigrid.errors import UserError
from multigrid.hardware import PrecisionName, autocast, total_memory
from multigrid.models.cost import FlopCounter, without_data
from multigrid.models.scaling import Surrogate
from multigrid.models.transfer import matches, require_match, tensors_of
from multigrid.tables import counted, si
from multigrid.training.optimizers import ParameterOptions


@dataclass(frozen=True)
class Unfreezing:
    """After how many epochs or plateaus of the validation error a frozen tensor is trained."""

    epoch: float = math.inf
    plateaus: float = math.inf


@dataclass(frozen=True)
class Finetuning:
    """How tensors are trained, by name; ``patience`` epochs without gain make a plateau."""

    options: Mapping[str, ParameterOptions] = field(default_factory=dict)
    unfreezings: Mapping[str, Unfreezing] = field(default_factory=dict)
    patience: int = 3

    def frozen(self, epoch: int = 0, plateaus: int = 0) -> frozenset[str]:
        """Returns the names that are frozen after so many epochs and plateaus."""
        return frozenset(
            name
            for name, when in self.unfreezings.items()
            if epoch < when.epoch and plateaus < when.plateaus
        )

    @property
    def always_frozen(self) -> frozenset[str]:
        """Names that are frozen to the end."""
        return frozenset(name for name, when in self.unfreezings.items() if when == Unfreezing())


def plan_finetuning(
    section: TransferConfig,
    names: Collection[str],
    group_of: Callable[[str], int],
    transferred: Collection[str],
    slow: Collection[str],
    ratio: float,
) -> Finetuning:
    """Resolves all settings for one network.

    The rate of transferred weights over that of new ones is ``lower * decay ** d``, d being the
    number of transferred groups between the tensor's and the nearest that is all new, or the output
    if there is none; ``lower`` is 1 in the mode ``full`` and for weights that are not slow, else
    ``ratio``. Groups (scales, modules) are counted outwards.
    """
    groups = {group_of(name) for name in names}
    new = groups - {group_of(name) for name in transferred} or {max(groups, default=0) + 1}
    inwards = {group: max(0, min(abs(group - other) for other in new) - 1) for group in groups}
    some_are_new = any(name not in transferred for name in names)
    options = dict.fromkeys(names, ParameterOptions())
    unfreezings: dict[str, Unfreezing] = {}
    for name in transferred:
        lower = 1.0 if section.mode == "full" or name not in slow else ratio
        steps = inwards[group_of(name)]
        options[name] = ParameterOptions(scale=lower * section.decay**steps)
        if section.mode == "features":
            unfreezings[name] = Unfreezing()
        elif section.mode == "gradual":
            unfreezings[name] = _gradual(section.unfreeze, steps, some_are_new)
    for rule in section.rules:
        for name in names:
            if matches(name, rule.pattern) and rule.concerns(name in transferred):
                options[name] = replace(options[name], **rule.optimizer_options())
                if name not in transferred or rule.freeze is None:
                    continue
                if rule.freeze == "plateau":
                    unfreezings[name] = Unfreezing(plateaus=1)
                else:
                    epoch = math.inf if rule.freeze is True else rule.freeze
                    unfreezings[name] = Unfreezing(epoch)
    frozen = {name: when for name, when in unfreezings.items() if when != Unfreezing(0)}
    return Finetuning(options, frozen, section.patience)


def _gradual(unfreeze: int | list[int] | str, steps: int, some_are_new: bool) -> Unfreezing:
    """Returns when a group unfreezes that is so many steps inwards of the first one to do so.

    Where nothing is new, that first one is trained from the start.
    """
    if isinstance(unfreeze, list):
        return Unfreezing(unfreeze[min(steps, len(unfreeze) - 1)])
    turn = steps + some_are_new
    if isinstance(unfreeze, int):
        return Unfreezing(turn * unfreeze)
    return Unfreezing(plateaus=turn) if turn else Unfreezing(0)


def check_finetuning(
    plan: Finetuning, parameters: Collection[str], epochs: float, where: str
) -> None:
    """Checks that a plan makes sense in a stage; infinite epochs are as many as it takes."""
    if epochs and not set(parameters) - plan.frozen():
        raise UserError(
            f"transfer: all {len(parameters)} parameters of {where} are frozen, so nothing is left "
            "to train; let a rule with freeze: false spare some, such as the heads, or begin "
            "transfer.unfreeze with 0"
        )
    late = [int(t.epoch) for t in plan.unfreezings.values() if epochs <= t.epoch < math.inf]
    if late and epochs:
        raise UserError(
            f"transfer: weights are to unfreeze after epoch {min(late)}, but {where} has "
            f"{counted(int(epochs), 'epoch')}; it must be before that, or freeze: true for the "
            "whole stage"
        )


def check_rules(section: TransferConfig, names: Collection[str]) -> None:
    """Checks that every rule has something to apply to in the largest network."""
    for index, rule in enumerate(section.rules):
        for pattern in rule.pattern:
            require_match(pattern, names, f"transfer.rules[{index}].pattern")


class Freezer:
    """Keeps tensors of a network frozen until they unfreeze.

    No update, no weight decay, no moving statistics: a layer whose parameters are all frozen keeps
    its buffers too, and works as in evaluation.
    """

    def __init__(self, network: nn.Module, plan: Finetuning) -> None:
        self.network = network
        self.plan = plan
        self.trainable = {name for name, p in _parameters(network) if p.requires_grad}
        self.num_plateaus = 0
        self.last_plateau = 0
        self.frozen: frozenset[str] = frozenset()
        self._freeze(0)

    def update(self, epoch: int, best_epoch: int) -> bool:
        """Unfreezes the weights scheduled for an epoch; returns whether there were any."""
        waiting = any(t.plateaus > self.num_plateaus for t in self.plan.unfreezings.values())
        if waiting and epoch - max(best_epoch, self.last_plateau) >= self.plan.patience:
            self.num_plateaus += 1
            self.last_plateau = epoch
        return self._freeze(epoch)

    def train(self) -> None:
        """Puts the network into training mode, and the frozen layers into evaluation mode."""
        self.network.train()
        for prefix, module in self.network.named_modules():
            parameters = {name for name, _ in module.named_parameters(prefix, True, False)}
            names = parameters or {name for name, _ in module.named_buffers(prefix)}
            if names and names <= self.frozen:
                module.eval()

    def state_dict(self) -> dict[str, Any]:
        """Returns what a continuation needs."""
        return {"num_plateaus": self.num_plateaus, "last_plateau": self.last_plateau}

    def load_state_dict(self, state: dict[str, Any], epoch: int) -> None:
        """Continues after an epoch."""
        self.num_plateaus, self.last_plateau = state["num_plateaus"], state["last_plateau"]
        self._freeze(epoch)

    def _freeze(self, epoch: int) -> bool:
        frozen = self.plan.frozen(epoch, self.num_plateaus)
        if frozen == self.frozen:
            return False
        self.frozen = frozen
        parameters = _parameters(self.network)
        kept = {id(parameter) for name, parameter in parameters if name in frozen}
        for name, parameter in parameters:
            parameter.requires_grad_(name in self.trainable and id(parameter) not in kept)
            if not parameter.requires_grad:
                parameter.grad = None
        return True


def _parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Returns all parameters under all their names."""
    return list(module.named_parameters(remove_duplicate=False))


@runtime_checkable
class HasTail(Protocol):
    """A network for which ``network(x)`` is ``network.finish(network.features(x))``.

    ``tail`` holds patterns of the names of the tensors that ``finish`` uses; features are
    ``[N, ...]``, the output ``[N, out, *grid]``.
    """

    tail: tuple[str, ...]

    def features(self, x: Tensor) -> Sequence[Tensor]:
        """Returns the features of inputs ``[N, in, *grid]``."""

    def finish(self, features: Sequence[Tensor]) -> Tensor:
        """Returns the network's output."""


def trains_its_tail(network: nn.Module, frozen: Collection[str]) -> bool:
    """Whether a network has a tail, something of which is trained and nothing besides."""
    if not isinstance(network, HasTail):
        return False
    names = set(tensors_of(network))
    trunk = {name for name in names if not matches(name, network.tail)}
    return bool(trunk) and trunk <= set(frozen) and not names <= set(frozen)


def require_features(networks: Iterable[tuple[nn.Module, Collection[str]]]) -> None:
    """Checks that there is something to compute once."""
    if not any(trains_its_tail(network, frozen) for network, frozen in networks):
        raise UserError(
            "transfer.featurize: nothing can be computed once, as more than the network's heads is "
            "trained; freeze the rest with transfer.rules, such as {pattern: '*', freeze: true} "
            "and {pattern: '*.head', freeze: false}, or set it to false (a network of your own "
            "must have tail, features and finish)"
        )


class FeaturizedSamples:
    """Training samples with a frozen trunk's features ``[N, *grid, C]`` in the CPU's memory.

    ``flops`` are the operations that they took.
    """

    def __init__(self, samples: TrainingSamples, features: Sequence[Tensor], flops: float) -> None:
        self.samples = samples
        self.features = features
        self.flops = flops
        self.grid = samples.grid
        self.num_channels = samples.num_channels

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, indices: Sequence[Tensor]) -> Generator[Samples]:
        """Yields a batch with features ``[N, C, *grid]`` for each index tensor."""
        for index, batch in zip(indices, self.samples.batches(indices), strict=True):
            device = batch.inputs.device
            features = [f[index].movedim(-1, 1).to(device) for f in self.features]
            yield replace(batch, features=features)


@torch.no_grad()
def featurize(
    surrogate: Surrogate, samples: TrainingSamples, batch_size: int, precision: PrecisionName
) -> FeaturizedSamples:
    """Computes the features of all samples; raises UserError if the memory is too small."""
    surrogate.eval()
    network, kept = cast(HasTail, surrogate.network), list[Tensor]()
    with FlopCounter() as counter:
        for number, block in enumerate(samples.split(batch_size)):
            with autocast(block.inputs.device, precision):
                computed = network.features(surrogate.scaled(block.inputs)[0])
            features = [tensor.movedim(1, -1) for tensor in computed]
            kept = kept or _room(features, len(samples))
            for whole, part in zip(kept, features, strict=True):
                whole[number * batch_size :][: len(part)] = part
    return FeaturizedSamples(samples, kept, float(counter.get_total_flops()))


def finishing(network: nn.Module, features: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """Returns what gives a network's output from its features instead of its input."""
    return lambda x: cast(HasTail, network).finish(features)


def finishing_flops(network: nn.Module, features: Sequence[Tensor]) -> int:
    """Returns the operations of a forward and backward pass on features."""
    twin = without_data(network)
    dtype = next(twin.parameters()).dtype  # there is no autocast here
    with FlopCounter() as counter:
        cast(HasTail, twin).finish([x.to("meta", dtype) for x in features]).sum().backward()
    return counter.get_total_flops()


def _room(features: Sequence[Tensor], count: int) -> list[Tensor]:
    """Returns tensors for the features of so many samples, from those of a few."""
    needed = count * sum(tensor[0].nbytes for tensor in features)
    available = total_memory(torch.device("cpu")) / local_size()
    if needed > available:
        raise UserError(
            f"transfer.featurize: the features of {count} samples take {si(needed)}B of memory, "
            f"but this machine has {si(available)}B for a process; set it to false"
        )
    return [torch.empty(count, *tensor.shape[1:], dtype=tensor.dtype) for tensor in features]
