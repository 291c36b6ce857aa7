"""Copies of compressed arrays, of which a single step can be read without the rest of its chunk."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
from filelock import FileLock

from multigrid.data.formats.array_files import NpyFiles
from multigrid.data.formats.container import Container
from multigrid.data.formats.field_file import Part
from multigrid.files import require_space, reserve, written_aside

BLOCK_BYTES = 2**25


def is_scattered(part: Part) -> bool:
    """Whether a random sample takes reading or decompressing several others with it."""
    for item in part.layout.fields:
        if isinstance(item.array, str) and set(item.axes) & set("NT"):
            sizes = zip(item.axes, item.info(part.container).shape, strict=True)
            sample = prod(size for letter, size in sizes if letter not in "NT")
            if (part.container.chunk(item.array) or 0) > 2 * sample:
                return True
    return False


def copied(part: Part, folder: Path, name: str) -> Part:
    """Copies the arrays that a part reads into plain files of a folder, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = [item.array for item in part.layout.fields if isinstance(item.array, str)]
    files = {array: folder / f"{name}_{array.replace('/', '__')}.npy" for array in arrays}
    with FileLock(folder / f"{name}.lock"):
        for array, path in files.items():
            if not path.exists():
                _copy(part.container, array, path)
    return replace(part, container=NpyFiles(part.container.path, files))


def _copy(container: Container, name: str, path: Path) -> None:
    info = container.info(name)
    rows: Sequence[int] = info.shape[:1]
    size = max(1, BLOCK_BYTES // max(1, info.dtype.itemsize * prod(info.shape[1:])))
    rest = (slice(None),) * (len(info.shape) - 1)
    with written_aside(path) as aside, container.open(check=True) as arrays:
        require_space(path.parent, prod(info.shape) * info.dtype.itemsize)
        mapped = np.lib.format.open_memmap(aside, "w+", info.dtype, info.shape)
        reserve(aside, aside.stat().st_size)
        array = arrays(name)
        for start in range(0, rows[0] if rows else 1, size):
            index = (slice(start, start + size), *rest) if rows else ()
            mapped[index] = array[index]
        mapped.flush()
