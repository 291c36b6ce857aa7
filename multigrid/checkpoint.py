"""Checkpoints: one file each, tensors and plain containers only, written atomically."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from multigrid.errors import UserError

FORMAT = 1


def save_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Writes a checkpoint aside, flushes it to disk and renames it into place.

    Args:
        path: Target file; its folder must exist.
        payload: Tensors, numbers, texts, lists and dictionaries, nested at will.

    Raises:
        UserError: If the file cannot be written; a checkpoint already there is untouched.
    """
    aside = path.with_name(path.name + ".part")
    try:
        with aside.open("wb") as file:
            torch.save({"format": FORMAT, **payload}, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if not isinstance(error, OSError | RuntimeError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: the checkpoint could not be written: {reason}") from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of this project to the CPU, never executing anything in it.

    Raises:
        UserError: If the file is missing, damaged, pickled or not a checkpoint of this project.
    """
    payload = read_tensors(path)
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of this project (format {FORMAT})")
    return payload


def read_tensors(path: Path) -> Any:
    """Reads any file of tensors and plain containers to the CPU, never executing anything in it.

    Raises:
        UserError: If the file is missing, damaged or pickled.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused, as it is damaged or holds pickled objects; a checkpoint holds "
            "tensors and plain containers only"
        ) from None
    except Exception as error:  # a damaged file may raise anything
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: unreadable or half-written checkpoint ({reason})") from None
