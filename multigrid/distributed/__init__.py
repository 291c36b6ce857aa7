"""Several processes that train one network."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from multigrid import signals
from multigrid.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


T = TypeVar("T")

Strategy = Literal["ddp", "fsdp"]


class Processes:
    """A process that trains alone, as number 0 of 1; all that concerns others is trivial."""

    rank = 0
    size = 1
    shards = False
    undisturbed: AbstractContextManager[Any] = nullcontext()
    """A context in which this process is not ended because others are gone."""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Returns which of the ``count`` samples of a batch are for this process, maybe none.

        Shares differ by one sample at most.
        """
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def largest_share(self, count: int) -> int:
        """Returns the size of the largest share of a batch."""
        return -(-count // self.size)

    def total(self, value: float) -> float:
        """Returns the sum of the processes' values."""
        return value

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is set in any process."""
        return self.total(flag) > 0

    def from_first(self, make: Callable[[], T]) -> T:
        """Returns, in all processes, what a call gives in the first one."""
        return make()

    def require_equal(self, facts: Mapping[str, Any]) -> None:
        """Checks that all processes have the same facts, plain values by name."""

    def each(self, compute: "Callable[[slice], Tensor]", count: int) -> "Tensor":
        """Returns ``[count, ...]`` numbers; a call gives those of a range, equally long in all."""
        return compute(slice(0, count))

    def check_signals(self) -> None:
        """Raises Interrupted if a signal is waiting in any process."""
        signals.check()

    def train_together(self, surrogate: "nn.Module") -> "nn.Module":
        """Returns a surrogate whose gradients become the mean over the processes."""
        return surrogate

    def reducing(self, surrogate: "nn.Module", reduce: bool) -> AbstractContextManager[None]:
        """Returns the context of a forward and backward pass."""
        return nullcontext()

    def spread(self, network: "nn.Module") -> None:
        """Spreads the parameters of a network over the processes, if that is the strategy."""

    def whole(self, state: Any) -> Any:
        """Returns nested containers with tensors that are spread over processes put together."""
        return state

    def spread_like(self, tensor: Any, parameter: "Tensor") -> Any:
        """Returns a whole tensor spread as a parameter is, if the shapes are equal."""
        return tensor


ALONE = Processes()


def num_processes() -> int:
    """Returns the number of processes that were started together, as ``torchrun`` says."""
    return _number("WORLD_SIZE", 1)


def local_rank() -> int:
    """Returns the number of this process among those on its machine, from 0."""
    return _number("LOCAL_RANK", 0)


def local_size() -> int:
    """Returns the number of processes on this machine."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise UserError(f"{name}: '{text}' is not a number of processes; torchrun sets it")
    return int(text)


VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def joined(device: str, strategy: Strategy) -> Iterator[Processes]:
    """Joins the other processes, if there are any, and leaves them at the end."""
    if num_processes() == 1:
        yield ALONE
        return
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {num_processes()}, but {', '.join(missing)} must be set too; torchrun "
            "sets them all"
        )
    # imported late, as it takes a while that a process alone can do without
    group = import_module("multigrid.distributed.process_group")
    with group.join(device, strategy) as processes:
        yield processes
