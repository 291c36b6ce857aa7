"""Weights in files: checkpoints of this project and plain state dictionaries.

Weights only: neither the state of an optimizer nor a place in the schedule, unlike resuming.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from multigrid.errors import UserError, nearest
from multigrid.files import to_json, write_file
from multigrid.training.checkpoint import load_checkpoint, read_tensors

SUFFIXES = (".pt", ".safetensors")
CONTAINERS = ("network", "state_dict", "model_state_dict", "model")
WRAPPERS = ("module.", "_orig_mod.")
METADATA = "multigrid"
ABOUT = ("level", "grid", "config", "fields", "scaling")
"""What a file that :func:`multigrid.load` takes says of the weights in it."""


def load_weights(path: Path, key: str = "checkpoints.load") -> dict[str, Tensor]:
    """Reads a state dictionary, never executing anything in the file.

    Takes a checkpoint of this project, a state dictionary saved by ``torch.save``, also under a
    key such as ``state_dict``, and a ``.safetensors`` file. The prefixes that
    ``DistributedDataParallel`` and ``torch.compile`` put in front of every name are dropped.

    Args:
        path: The file.
        key: Where it was named, for the sentence of an error.

    Raises:
        UserError: If there is no such file, it is damaged or pickled, or holds no tensors.
    """
    _check_exists(path, key)
    weights = _read(path)
    for wrapper in WRAPPERS:
        if all(key.startswith(wrapper) for key in weights):
            weights = {key.removeprefix(wrapper): tensor for key, tensor in weights.items()}
    return weights


def save_weights(path: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes a state dictionary aside and renames it into place.

    Args:
        path: File to write, ``.safetensors`` or, for a plain ``torch.save``, anything else.
        weights: Tensors by name.
        about: Plain containers, kept as metadata ``multigrid`` of a ``.safetensors`` file.

    Raises:
        UserError: If it cannot be written; a file already there is untouched.
    """
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
    if path.suffix == ".safetensors":
        separate = {key: tensor.clone() for key, tensor in state.items()}
        metadata = {METADATA: to_json(dict(about))}
        content = to_safetensors(separate, metadata)
    else:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
    write_file(path, content)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a ``.safetensors`` file and what :func:`save_weights` has written about it, if it has.

    Raises:
        UserError: If there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            about = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: damaged, or no safetensors file ({reason})") from None
    return tensors, about if isinstance(about, dict) else {}


def check_writable(path: Path, replace: bool) -> None:
    """Checks that weights may be written to a file; changes nothing.

    Raises:
        UserError: If its folder does not exist, or the file does and is not to be replaced.
    """
    if not path.parent.is_dir():
        raise UserError(f"checkpoints.save: the folder {path.parent} does not exist")
    if path.is_dir():
        raise UserError(f"checkpoints.save: {path} is a folder")
    if path.exists() and not replace:
        raise UserError(f"checkpoints.save: {path} exists; use --overwrite or another name")


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
    return _read_exported(path) if path.suffix == ".safetensors" else _read_checkpoint(path)


def _read_checkpoint(path: Path) -> SavedNetwork:
    payload = load_checkpoint(path)
    missing = [key for key in (*ABOUT, "network") if key not in payload]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}; it is of another version")
    about = {key: payload[key] for key in (*ABOUT, "time") if key in payload}
    return SavedNetwork(path, about, payload["network"])


def _read_exported(path: Path) -> SavedNetwork:
    tensors, about = read_safetensors(path)
    if any(key not in about for key in ABOUT):
        raise UserError(
            f"{path}: says nothing of configuration and scaling, so it was not saved by multigrid"
        )
    return SavedNetwork(path, about, tensors)


def _check_exists(path: Path, key: str) -> None:
    if path.is_dir():
        checkpoints = sorted(path.rglob("best.pt"), key=lambda p: p.stat().st_mtime)
        hint = f"; did you mean '{checkpoints[-1]}'?" if checkpoints else ""
        raise UserError(f"{key}: {path} is a folder, not a checkpoint{hint}")
    if not path.is_file():
        files = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
        names = [str(p) for p in files if p.suffix in SUFFIXES]
        raise UserError(f"{key}: no such file: {path}{nearest(str(path), names)}")


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    payload = read_tensors(path)
    for key in CONTAINERS:
        if isinstance(payload, dict) and isinstance(payload.get(key), dict):
            payload = payload[key]
            break
    if not isinstance(payload, dict) or not payload:
        raise UserError(f"{path}: holds no state dictionary, but {_kind(payload)}")
    tensors = {key: value for key, value in payload.items() if isinstance(value, Tensor)}
    if not tensors:
        name, value = next(iter(payload.items()))
        raise UserError(
            f"{path}: holds no state dictionary: '{name}' is {_kind(value)}, not a tensor"
        )
    return tensors


def _kind(value: Any) -> str:
    return "an empty mapping" if value == {} else f"a value of type {type(value).__name__}"
