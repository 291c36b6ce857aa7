"""Files of arrays that multigrid writes, and what it needs to read them back."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from multigrid.errors import UserError
from multigrid.files import require_space, reserve, written_aside

BLOCK_BYTES = 2**26
SEAL = b"\nmultigrid, SHA-256 of all before: "


def write_array(
    path: Path,
    shape: tuple[int, ...],
    batches: Iterable[np.ndarray],
    told: Callable[[int], Any],
    fields: Sequence[str],
) -> None:
    """Writes batches as one float32 array, aside first and then renamed into place."""
    if path.suffix == ".npy":
        with written_npy(path, shape, np.float32) as target:
            _fill(target, batches, told)
        return
    with written_aside(path) as aside:
        require_space(path.parent, 4 * prod(shape))
        with reserved_hdf5(aside, 4 * prod(shape), shape[0]) as file:
            target = file.create_dataset("output", shape, "float32", chunks=(1, *shape[1:]))
            target.attrs["fields"] = list(fields)
            _fill(target, batches, told)


def _fill(target: Any, batches: Iterable[np.ndarray], told: Callable[[int], Any]) -> None:
    start = 0
    for batch in batches:
        target[start : start + len(batch)] = batch
        start += len(batch)
        told(len(batch))


@contextmanager
def written_npy(path: Path, shape: tuple[int, ...], dtype: np.dtype | type) -> Iterator[np.memmap]:
    """Yields the array of a ``.npy`` file to be filled, which then gets its name.

    Raises:
        UserError: If it cannot be written, or the disk has no room for it.
    """
    with written_aside(path) as aside:
        require_space(path.parent, prod(shape) * np.dtype(dtype).itemsize)
        mapped = np.lib.format.open_memmap(aside, "w+", dtype, shape)
        reserve(aside, aside.stat().st_size)
        yield mapped
        mapped.flush()


@contextmanager
def reserved_hdf5(path: Path, num_bytes: int, num_samples: int) -> Iterator[h5py.File]:
    """Opens a file for writing, new or as it is, once the disk has room for all that will be in it.

    HDF5 prints tracebacks where it lacks room. On closing it gives back what it has not used. The
    finished file has ``num_bytes`` of data, before compression, in up to two chunks a sample.
    """
    room = num_bytes + num_bytes // 10 + 256 * num_samples + 2**16
    if not path.exists():
        reserve(path, room)
        h5py.File(path, "w").close()  # which gives it all back
    reserve(path, room)
    with h5py.File(path, "r+") as file:
        yield file


def take(dataset: h5py.Dataset, indices: np.ndarray) -> np.ndarray:
    """Reads rows ``[len(indices), ...]`` of a dataset in any order, consecutive ones at once."""
    rows = np.empty((len(indices), *dataset.shape[1:]), dataset.dtype)
    order = np.argsort(indices, kind="stable")
    for start, stop in runs(indices[order]):
        first = indices[order[start]]
        rows[order[start:stop]] = dataset[first : first + stop - start]
    return rows


def blocks(num_rows: int, row_bytes: int) -> Iterator[slice]:
    """Yields consecutive rows that fit into a bounded amount of memory."""
    size = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


def runs(numbers: Sequence[int] | np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields the positions ``start, stop`` of runs of consecutive numbers."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    edges = [0, *breaks.tolist(), len(numbers)]
    yield from ((a, b) for a, b in pairwise(edges) if b > a)


def seal(path: Path) -> None:
    """Writes a checksum of a file behind its end, where HDF5 does not look."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    with path.open("ab") as file:
        file.write(SEAL + digest)


def is_sealed(path: Path) -> bool | None:
    """Whether the checksum behind the end of a file is right; None if there is none."""
    with path.open("rb") as file:
        left = file.seek(0, 2) - len(SEAL) - 32
        file.seek(max(left, 0))
        tail = file.read()
        if not tail.startswith(SEAL):
            return None
        digest = hashlib.sha256()
        file.seek(0)
        while part := file.read(min(left, 2**22)):
            digest.update(part)
            left -= len(part)
    return digest.digest() == tail[len(SEAL) :]


def stamp(path: Path) -> tuple[int, int, int]:
    """Returns size, time of change and inode of a file: another state has another stamp."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: can no longer be read: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns, status.st_ino


def not_dense(value: Any) -> str:
    """Returns what a value is other than a dense tensor, the text empty if it is one."""
    import torch

    if not isinstance(value, torch.Tensor):
        return f"a value of type {type(value).__name__}"
    kinds = {
        "a nested tensor": value.is_nested,  # first, as it may be sparse as well
        "a tensor without values, on the device 'meta'": value.is_meta,
        "a quantized tensor": value.is_quantized,
        "a sparse tensor": value.layout != torch.strided,
    }
    return next((kind for kind, applies in kinds.items() if applies), "")
