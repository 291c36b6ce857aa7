"""How a one-step surrogate is rolled out."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Target = Literal["state", "delta"]


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

    def persistence(self, inputs: "Tensor") -> "Tensor":
        """Returns the prediction ``[N, C, *grid]`` that nothing changes."""
        state = self.last_state(inputs)
        return state if self.target == "state" else state.new_zeros(state.shape)

    def next_input(self, inputs: "Tensor", prediction: "Tensor") -> "Tensor":
        """Returns the input of the next step, ``[N, in, *grid]``."""
        import torch  # not needed to look into files

        stop = self.history * self.num_channels
        parts = (
            inputs[:, self.num_channels : stop],
            self.state(inputs, prediction),
            inputs[:, stop:],
        )
        return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class Trajectories:
    """True trajectories to roll out against.

    Attributes:
        inputs: The first input of each trajectory, ``[N, in, *grid]``.
        states: The state it ends with and those that follow, ``[N, num_steps + 1, C, *grid]``.
        setup: How states become inputs.
        first: Number of the first one among all of the data.
    """

    inputs: "Tensor"
    states: "Tensor"
    setup: TimeSetup
    first: int = 0

    def to(self, device: "torch.device") -> "Trajectories":
        """Returns them on a device."""
        return replace(self, inputs=self.inputs.to(device), states=self.states.to(device))
