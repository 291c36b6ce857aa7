"""Checkpoints: one file each, tensors and plain containers only, written atomically.

A file is what ``torch.save`` gives, followed by a line with the SHA-256 of all before it, which
``torch.load`` passes over. The checksum protects against accidents. Against malicious files, only
tensors and plain containers are read, and nothing that unpacks to more than the file.
"""

import hashlib
import io
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from multigrid.errors import UserError, brief
from multigrid.files import write_file

FORMAT = 2


class DamagedError(UserError):
    """A file does not hold what was written to it."""


_MARK = b"\nmultigrid sha256 "
_TRAILER = re.compile(re.escape(_MARK) + rb"([0-9a-f]{64})\n\Z")
_TRAILER_BYTES = len(_MARK) + 65


def save_checkpoint(path: Path, payload: dict[str, Any], previous: Path | None = None) -> None:
    """Writes a checkpoint aside, flushes it to disk, reads it back and renames it into place.

    Args:
        path: Target file; its folder must exist.
        payload: Tensors, numbers, texts, lists and dictionaries, nested at will.
        previous: Where to keep the checkpoint that has been there before, if at all.

    Raises:
        UserError: If the file cannot be written; a checkpoint already there is untouched.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **payload}, buffer)
    content = buffer.getvalue()
    _load(path, content)  # proves that it can be read, and that nothing in it needs a pickle
    trailer = _MARK + hashlib.sha256(content).hexdigest().encode() + b"\n"
    write_file(path, content + trailer, previous)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of this project to the CPU, never executing anything in it.

    Raises:
        DamagedError: If the file is damaged or pickled.
        UserError: If it is missing, cannot be read or is not a checkpoint of this project.
    """
    content = _read(path)
    trailer = _TRAILER.search(content, max(0, len(content) - _TRAILER_BYTES))
    body = content[: trailer.start()] if trailer else content
    if trailer and hashlib.sha256(body).hexdigest().encode() != trailer[1]:
        raise DamagedError(
            f"{path}: damaged: the checkpoint does not have the checksum that it names"
        )
    payload = _load(path, body)
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of this project (format {FORMAT})")
    if trailer is None:
        raise DamagedError(f"{path}: damaged: the checkpoint's checksum is missing")
    return payload


def read_tensors(path: Path) -> Any:
    """Reads any file of tensors and plain containers to the CPU, never executing anything in it.

    Raises:
        DamagedError: If the file is damaged or pickled.
        UserError: If it is missing or cannot be read.
    """
    return _load(path, _read(path))


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # reading a pipe would block for ever
            raise UserError(f"{path}: unreadable, as it is not a regular file")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except OSError as error:
        raise UserError(f"{path}: unreadable checkpoint ({error.strerror})") from None
    except MemoryError:
        raise UserError(f"{path}: unreadable, as it is larger than the memory") from None


def _load(path: Path, content: bytes) -> Any:
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
            f"{path}: refused, as it is damaged or holds pickled objects; a checkpoint holds "
            "tensors and plain containers only"
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
