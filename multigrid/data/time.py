"""How a one-step surrogate is rolled out."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Values = TypeVar("Values", "Tensor", np.ndarray)


@dataclass(frozen=True)
class TimeSetup:
    """How the states of a roll-out become inputs of the network.

    The channels of an input are those of ``history`` states, oldest first, then those that stay as
    they are: fields constant in time and parameters.
    """

    num_channels: int  # of one state
    history: int = 1
    target: Literal["state", "delta"] = "state"  # the next state, or the difference to it

    def state(self, inputs: Values, prediction: Values) -> Values:
        """Returns the next state ``[N, C, *grid]`` that a prediction stands for."""
        return prediction if self.target == "state" else self.last_state(inputs) + prediction

    def last_state(self, inputs: Values) -> Values:
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

        stop, state = self.history * self.num_channels, self.state(inputs, prediction)
        return torch.cat([inputs[:, self.num_channels : stop], state, inputs[:, stop:]], dim=1)


@dataclass(frozen=True)
class Trajectories:
    """True trajectories to roll out against."""

    inputs: "Tensor"  # the first input of each, [N, in, *grid]
    states: "Tensor"  # the state it ends with and those that follow, [N, num_steps + 1, C, *grid]
    setup: TimeSetup
    first: int = 0  # number of the first one among all of the data

    def to(self, device: "torch.device") -> "Trajectories":
        """Returns them on a device."""
        return replace(self, inputs=self.inputs.to(device), states=self.states.to(device))
