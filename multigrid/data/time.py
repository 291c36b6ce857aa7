"""How samples are made from trajectories, and how a one-step surrogate is rolled out."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Target = Literal["state", "delta"]


@dataclass(frozen=True)
class TimeOptions:
    """How samples are made of trajectories.

    Attributes:
        stride: Every ``stride``-th state is used; the others are ignored.
        history: Number of successive states in an input.
        target: ``state``, the next state, or ``delta``, its difference from the last one.
        start: Number of the first state that is used.
        end: Number of the first state that is no longer used; None for all.
        trajectory: Number of successive pairs of one trajectory in files that hold pairs.
    """

    stride: int = 1
    history: int = 1
    target: Target = "state"
    start: int = 0
    end: int | None = None
    trajectory: int | None = None

    @classmethod
    def of(cls, settings: Any) -> "TimeOptions":
        """Returns what an object says that has attributes of these names; None says nothing."""
        if settings is None:
            return cls()
        return cls(**{name: getattr(settings, name) for name in cls.__dataclass_fields__})

    def states(self, num_steps: int) -> range:
        """Returns the numbers of the states that are used, of so many."""
        return range(num_steps)[self.start : self.end : self.stride]


@dataclass(frozen=True)
class TimeSetup:
    """How the states of a roll-out become inputs of the network.

    The channels of an input are those of ``history`` states, oldest first, then those that stay as
    they are: fields constant in time and parameters.

    Attributes:
        num_channels: Channels of one state.
        history: Number of states in an input.
        target: Whether the network predicts the next state or the difference to it.
    """

    num_channels: int
    history: int = 1
    target: Target = "state"

    def state(self, inputs: "Tensor", prediction: "Tensor") -> "Tensor":
        """Returns the next state ``[N, C, *grid]`` that a prediction stands for."""
        return prediction if self.target == "state" else self.last_state(inputs) + prediction

    def last_state(self, inputs: "Tensor") -> "Tensor":
        """Returns the latest state ``[N, C, *grid]`` of an input ``[N, in, *grid]``."""
        stop = self.history * self.num_channels
        return inputs[:, stop - self.num_channels : stop]

    def next_input(self, inputs: "Tensor", prediction: "Tensor") -> "Tensor":
        """Returns the input of the next step, ``[N, in, *grid]``."""
        stop = self.history * self.num_channels
        state = self.state(inputs, prediction)
        return _join(inputs[:, self.num_channels : stop], state, inputs[:, stop:])

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TimeSetup":
        """Returns what :meth:`to_dict` has given."""
        return cls(**values)


@dataclass(frozen=True)
class Trajectories:
    """True trajectories to roll out against.

    Attributes:
        inputs: The first input of each trajectory, ``[N, in, *grid]``.
        states: The state it ends with and those that follow, ``[N, num_steps + 1, C, *grid]``.
        setup: How states become inputs.
    """

    inputs: "Tensor"
    states: "Tensor"
    setup: TimeSetup

    def to(self, device: "torch.device") -> "Trajectories":
        """Returns them on a device."""
        return Trajectories(self.inputs.to(device), self.states.to(device), self.setup)


def _join(*parts: "Tensor") -> "Tensor":
    import torch  # not needed for checking settings

    return torch.cat(parts, dim=1)
