"""A trained network in a file, with all that is needed to use it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from multigrid.errors import UserError
from multigrid.models.weight_files import ABOUT, read_safetensors
from multigrid.training.checkpoint import load_checkpoint


@dataclass(frozen=True)
class SavedNetwork:
    """The network of one level as a file holds it.

    Attributes:
        path: The file.
        about: Level, grid, configuration, names of the fields and scaling, as plain containers.
        tensors: The state dictionary.
    """

    path: Path
    about: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def level(self) -> int:
        """The level of the ladder."""
        return int(self.about["level"])


def read_network(path: Path) -> SavedNetwork:
    """Reads a checkpoint or a ``.safetensors`` file of this project.

    Raises:
        UserError: If there is no such file, or it is damaged or of another kind.
    """
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path)


def _read_checkpoint(path: Path) -> SavedNetwork:
    payload = load_checkpoint(path)
    missing = [key for key in (*ABOUT, "network") if key not in payload]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}; it is of another version")
    return SavedNetwork(path, {key: payload[key] for key in ABOUT}, payload["network"])


def _read_safetensors(path: Path) -> SavedNetwork:
    tensors, about = read_safetensors(path)
    if any(key not in about for key in ABOUT):
        raise UserError(
            f"{path}: says nothing of configuration and scaling, so it was not saved by multigrid"
        )
    return SavedNetwork(path, about, tensors)
