"""The floating-point operations of an epoch of training."""

from functools import cached_property

import torch
from torch import nn

from multigrid.data.streaming import TrainingSamples
from multigrid.models.cost import training_flops, without_data
from multigrid.training.featurization import FeaturizedSamples, FeaturizedSurrogate


class EpochCost:
    """Counts the operations of an epoch with what is frozen at the time.

    Those that are done twice to save memory count once.

    Args:
        network: The network, before its parameters are spread over processes.
        train: What it is trained on.
        featurized: Predicts from features of the batches, which ``train`` must have then, or None.
    """

    def __init__(
        self,
        network: nn.Module,
        train: TrainingSamples | FeaturizedSamples,
        featurized: FeaturizedSurrogate | None = None,
    ) -> None:
        self.network = network
        self.train = train
        self.featurized = featurized
        self._blueprint = without_data(network)

    def renew(self) -> None:
        """Takes note that something else is frozen from here on."""
        self.__dict__.pop("flops", None)

    @cached_property
    def flops(self) -> float:
        """Operations of a forward and a backward pass over all samples."""
        if self.featurized is not None:
            (batch,) = self.train.batches([torch.zeros(1, dtype=torch.int64)])
            return len(self.train) * self.featurized.step_flops(batch)
        for name, parameter in self.network.named_parameters(remove_duplicate=False):
            self._blueprint.get_parameter(name).requires_grad_(parameter.requires_grad)
        shape = (1, self.train.num_channels[0], *self.train.grid.shape)
        return float(len(self.train) * training_flops(self._blueprint, shape))
