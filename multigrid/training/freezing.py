"""Frozen parts of a network: no update, no weight decay, no moving statistics."""

from typing import Any

from torch import nn

from multigrid.training.finetuning import Regime


class Freezer:
    """Keeps parts of a network frozen, and thaws them when their time has come.

    A layer whose parameters are all frozen keeps its buffers too, and works as in evaluation.

    Args:
        network: The network; what of it requires no gradient already never will.
        regime: What is frozen, and until when.
    """

    def __init__(self, network: nn.Module, regime: Regime) -> None:
        self.network = network
        self.regime = regime
        self.trainable = {name for name, p in _parameters(network) if p.requires_grad}
        self.num_plateaus = 0
        self.last_plateau = 0
        self.frozen: frozenset[str] | None = None
        self.kept: set[str] = set()
        self._freeze(0)

    def update(self, epoch: int, best_epoch: int) -> bool:
        """Thaws what is due after an epoch; returns whether anything was.

        Args:
            epoch: Number of finished epochs.
            best_epoch: The epoch with the lowest validation error.
        """
        waiting = any(t.plateaus > self.num_plateaus for t in self.regime.thaw.values())
        if waiting and epoch - max(best_epoch, self.last_plateau) >= self.regime.patience:
            self.num_plateaus += 1
            self.last_plateau = epoch
        return self._freeze(epoch)

    def train(self) -> None:
        """Puts the network into training mode, and the frozen layers into evaluation mode."""
        self.network.train()
        for prefix, module in self.network.named_modules():
            names = [f"{prefix}.{key}".lstrip(".") for key in module.state_dict()]
            if names and self.kept.issuperset(names):
                module.eval()

    def state_dict(self) -> dict[str, Any]:
        """Returns what a continuation needs."""
        return {"num_plateaus": self.num_plateaus, "last_plateau": self.last_plateau}

    def load_state_dict(self, state: dict[str, Any], epoch: int) -> None:
        """Continues after an epoch."""
        self.num_plateaus, self.last_plateau = state["num_plateaus"], state["last_plateau"]
        self._freeze(epoch)

    def _freeze(self, epoch: int) -> bool:
        frozen = self.regime.frozen(epoch, self.num_plateaus)
        if frozen == self.frozen:
            return False
        self.frozen = frozen
        still: dict[int, bool] = {}
        for name, parameter in _parameters(self.network):
            still[id(parameter)] = still.get(id(parameter), False) or name in frozen
            trained = name in self.trainable and not still[id(parameter)]
            parameter.requires_grad_(trained)
            if not trained:
                parameter.grad = None
        self.kept = set(frozen) | self._buffers_of_frozen_layers(frozen)
        return True

    def _buffers_of_frozen_layers(self, frozen: frozenset[str]) -> set[str]:
        found = set()
        for prefix, module in self.network.named_modules():
            own = [f"{prefix}.{key}".lstrip(".") for key, _ in _parameters(module, recurse=False)]
            if own and all(name in frozen for name in own):
                buffers = module.named_buffers(recurse=False)
                found |= {f"{prefix}.{key}".lstrip(".") for key, _ in buffers}
        return found


def _parameters(module: nn.Module, recurse: bool = True) -> list[tuple[str, nn.Parameter]]:
    """Returns all parameters under all their names."""
    return list(module.named_parameters(recurse=recurse, remove_duplicate=False))
