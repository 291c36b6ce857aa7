"""Checkpoints, and weights in files of other kinds: tensors and plain containers only.

A checkpoint is what ``torch.save`` gives, and a line with the SHA-256 of that, which
``torch.load`` passes over. The checksum protects against accidents. Against malicious files, only
tensors and plain containers are read, and nothing that unpacks to more than the file.
"""

import hashlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, FiniteFloat, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from multigrid.config import Config, changed_settings, parse_saved
from multigrid.data.arrays import not_dense
from multigrid.errors import UserError, brief, printable
from multigrid.files import nearest_file, to_json, write_file
from multigrid.zoo import located

FORMAT = 2


class DamagedError(UserError):
    """A file does not hold what was written to it."""


_SEAL = b"\nmultigrid sha256 "


def save_checkpoint(path: Path, payload: dict[str, Any], previous: Path | None = None) -> None:
    """Writes nested plain containers and tensors; keeps what was there as ``previous`` if given."""
    content = _to_bytes({"format": FORMAT, **payload})
    _load(path, content)  # proves that it can be read, and that nothing in it needs a pickle
    write_file(path, content, previous)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of this project to the CPU, never executing anything in it."""
    content = _read(path)
    payload = _load(path, content)
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of this project (format {FORMAT})")
    if _SEAL not in content:
        raise DamagedError(f"{path}: damaged: the checkpoint's checksum is missing")
    return payload


def _to_bytes(value: Any) -> bytes:
    """Returns what ``torch.save`` writes, and a checksum."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    content = buffer.getvalue()
    return content + _SEAL + _digest(content)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"


def _require_file(path: Path) -> None:
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint")
    if not path.is_file():  # reading a pipe would block for ever
        raise UserError(f"{path}: unreadable, as it is not a regular file")


def _read(path: Path) -> bytes:
    try:
        _require_file(path)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: unreadable checkpoint ({error.strerror})") from None
    except MemoryError:
        raise UserError(f"{path}: unreadable, as it is larger than the memory") from None


def _load(path: Path, content: bytes) -> Any:
    """Reads what ``torch.save`` has written, here or elsewhere; verifies a checksum behind it."""
    start, seal, digest = content.rpartition(_SEAL)
    if seal:
        content = start
        if _digest(content) != digest:
            raise DamagedError(f"{path}: damaged: it has another checksum than it names")
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            _require_stored(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are refused right away
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise UserError(f"{path}: larger than the memory") from None
    except pickle.UnpicklingError:
        raise DamagedError(
            f"{path}: refused as a checkpoint, as it is damaged or holds pickled objects besides "
            "tensors and plain containers; save weights alone, as in "
            "torch.save(model.state_dict(), path)"
        ) from None
    except Exception as error:  # a damaged file may raise anything
        problem = f"{path}: unreadable or half-written checkpoint ({brief(error)})"
        raise DamagedError(problem) from None


def _require_stored(content: bytes) -> None:
    """Refuses archives that unpack to more than they are, which ``torch.save`` never writes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
    if sum(member.file_size for member in members) > len(content):
        raise ValueError("its parts unpack to more than the file holds")


CONTAINERS = ("network", "state_dict", "model_state_dict", "model_state", "model", "net", "ema")
WRAPPERS = ("module.", "_orig_mod.")
METADATA, CHECKSUM = "multigrid", "multigrid.sha256"


def load_weights(path: Path, key: str = "checkpoints.load") -> "SavedNetwork":
    """Reads a state dictionary and what the file says of it, never executing anything in it.

    Takes a checkpoint of this project, a state dictionary saved by ``torch.save``, also under a
    key such as ``state_dict``, and a ``.safetensors`` file. The prefixes that
    ``DistributedDataParallel`` and ``torch.compile`` put in front of every name are dropped.
    The path may be ``zoo:<name>``.
    """
    path = located(path)
    _check_exists(path, key)
    weights, about = (read_safetensors if path.suffix == ".safetensors" else _read_state)(path)
    while wrapped := [w for w in WRAPPERS if weights and all(k.startswith(w) for k in weights)]:
        weights = {key.removeprefix(wrapped[0]): tensor for key, tensor in weights.items()}
    return SavedNetwork(path, about, {printable(key): t for key, t in weights.items()})


def save_weights(path: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes a state dictionary aside and renames it into place."""
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
    if path.suffix == ".safetensors":
        separate = {key: tensor.clone() for key, tensor in state.items()}
        text = to_json(dict(about))
        metadata = {METADATA: text, CHECKSUM: _checksum(separate, text)}
        write_file(path, to_safetensors(separate, metadata))
    else:
        write_file(path, _to_bytes(state))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a ``.safetensors`` file and what :func:`save_weights` says about it, if anything."""
    _require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        text = metadata.get(METADATA, "{}")
        if metadata.get(CHECKSUM, _checksum(tensors, text)) != _checksum(tensors, text):
            raise ValueError("it has another checksum than it names")
        about = json.loads(text)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, or no safetensors file ({brief(error)})") from None
    return tensors, about if isinstance(about, dict) else {}


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    """Returns the SHA-256 of tensors with their names, types and shapes, and of a text."""
    digest = hashlib.sha256(text.encode())
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_writable(path: Path, replace: bool) -> None:
    """Checks that weights may be written to a file; changes nothing."""
    if not path.parent.is_dir():
        raise UserError(f"checkpoints.save: the folder {path.parent} does not exist")
    if path.is_dir():
        raise UserError(f"checkpoints.save: {path} is a folder")
    if path.exists() and not replace:
        raise UserError(f"checkpoints.save: {path} exists; use --overwrite or another name")


def check_place(path: Path, about: Mapping[str, Any], config: Config) -> None:
    """Checks that a checkpoint belongs to the run and level in whose folder it lies."""
    grid = "x".join(map(str, about["grid"]))
    if path.parent.name != f"level_{about['level']}_{grid}":
        raise UserError(f"{path}: is of level {about['level']} on {grid}, not of this folder's")
    other = parse_saved(about["config"], f"{path}: configuration")
    changed = [key for key in changed_settings(other, config) if not key.startswith("output.")]
    if changed:
        raise UserError(
            f"{path}: is of another run, '{other.name}'; its configuration differs from that of "
            f"'{config.name}' in {', '.join(changed[:3])}"
        )


@dataclass(frozen=True)
class SavedNetwork:
    """A network as a file holds it, and what the file says of it, if anything."""

    path: Path
    about: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def model(self) -> Mapping[str, Any]:
        """The section ``model`` of the configuration it was trained with; empty if not known."""
        about, levels = self.about, self.about.get("levels")
        if isinstance(levels, Mapping):  # which are of one run
            about = next(iter(levels.values()), {})
        for key in ("config", "model"):
            about = about.get(key, {}) if isinstance(about, Mapping) else {}
        return about if isinstance(about, Mapping) else {}

    @property
    def level(self) -> int:
        """The level of the ladder."""
        return int(self.about["level"])


class _FieldNames(BaseModel):
    input: list[str]
    output: list[str]


class _Scaling(BaseModel):
    kind: Literal["none", "gaussian", "min-max", "homogeneous"]
    input_shift: list[FiniteFloat]
    input_scale: list[FiniteFloat]
    output_shift: list[FiniteFloat]
    output_scale: list[FiniteFloat]
    fields: list[dict[Literal["size", "spread", "low", "high"], FiniteFloat]] | None = None


class _Time(BaseModel):
    num_channels: int
    history: int
    target: Literal["state", "delta"]


class _About(BaseModel):
    level: int
    grid: list[int]
    config: dict[str, Any]
    fields: _FieldNames
    scaling: _Scaling
    time: _Time | None = None


ABOUT = tuple(_About.model_fields)
"""What a file that :func:`multigrid.load` takes says of the weights in it; not all have a time."""


def read_networks(path: Path) -> list[SavedNetwork]:
    """Reads a checkpoint, or what ``TrainedSurrogate.save`` wrote of one level or of several."""
    if path.suffix == ".safetensors":
        tensors, about = read_safetensors(path)
        if isinstance(levels := about.get("levels"), Mapping):
            by_level: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in levels}
            for name, tensor in tensors.items():
                prefix, _, key = name.partition(".")
                by_level.get(prefix, {})[key] = tensor
            return [_checked(path, levels[k], by_level[k]) for k in levels]
    else:
        about = load_checkpoint(path)
        tensors = about.get("network", {})
    return [_checked(path, about, tensors)]


def _checked(path: Path, about: Any, tensors: Any) -> SavedNetwork:
    missing = [key for key in ABOUT if key != "time" and key not in about]
    if missing or not isinstance(tensors, Mapping) or not tensors:
        raise UserError(
            f"{path}: lacks {', '.join(missing) or 'the network'}; it was not saved by multigrid, "
            "or by another version of it"
        )
    about = {key: about[key] for key in ABOUT if key in about}
    try:
        checked = _About.model_validate(about, strict=True)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(
            f"{path}: '{place}' is not what a checkpoint of this project holds there"
        ) from None
    for side, fields in checked.fields:
        sizes = {len(values) for key, values in checked.scaling if key.startswith(side)}
        if side == "output" and checked.scaling.fields is not None:
            sizes.add(len(checked.scaling.fields))
        if sizes != {len(fields)}:
            raise UserError(f"{path}: 'scaling' does not fit its {len(fields)} {side} fields")
    if any(map(not_dense, tensors.values())):
        raise UserError(f"{path}: 'network' is not a state dictionary of plain tensors")
    return SavedNetwork(path, about, tensors)


def _check_exists(path: Path, key: str) -> None:
    if path.is_dir():
        checkpoints = sorted(path.rglob("best.pt"), key=lambda p: p.stat().st_mtime)
        hint = f"; did you mean '{checkpoints[-1]}'?" if checkpoints else ""
        raise UserError(f"{key}: {path} is a folder, not a checkpoint{hint}")
    if path.exists() and not path.is_file():
        raise UserError(f"{key}: {path} is not a regular file")
    if not path.exists():
        near = nearest_file(path, "*.pt", "*.safetensors")
        raise UserError(f"{key}: no such file: {path}{near}")


def _read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a checkpoint or a state dictionary that ``torch.save`` wrote, and what is beside it."""
    payload = _load(path, _read(path))
    about = payload if isinstance(payload, dict) else {}
    inner = (about[key] for key in CONTAINERS if isinstance(about.get(key), dict))
    payload = next(inner, payload)
    if not isinstance(payload, dict) or not payload:
        kind = "an empty mapping" if payload == {} else f"a value of type {type(payload).__name__}"
        raise UserError(f"{path}: holds no state dictionary, but {kind}")
    tensors = {str(key): value for key, value in payload.items() if isinstance(value, Tensor)}
    for key, tensor in tensors.items():
        if kind := not_dense(tensor):
            raise UserError(f"{path}: '{key}' is {kind}, but a dense tensor is needed")
    if not tensors:
        name, value = next(iter(payload.items()))
        kind = f"a value of type {type(value).__name__}"
        raise UserError(f"{path}: holds no state dictionary: '{name}' is {kind}, not a tensor")
    return tensors, about
