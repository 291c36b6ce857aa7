"""Opening HDF5 files of unknown origin safely."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import prod
from pathlib import Path

import h5py
import numpy as np

from multigrid.data.formats.base import require_numbers
from multigrid.data.formats.origin import require_honest_size
from multigrid.errors import UserError, brief, nearest

MAX_HOPS = 16
NUM_LISTED = 12


def is_hdf5(path: Path) -> bool:
    """Whether a file bears the signature of HDF5."""
    return bool(h5py.is_hdf5(path))


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Opens a file for reading.

    Raises:
        UserError: If the file, or what is read from it meanwhile, turns out to be damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise UserError(
            f"{path}: damaged, truncated or unreadable HDF5 file ({brief(error)})"
        ) from None


def contents(file: h5py.File) -> str:
    """Returns the datasets of a file with their shapes as text; links are not followed."""
    found: list[str] = []

    def note(name: str, item: h5py.HLObject) -> bool | None:
        if isinstance(item, h5py.Dataset):
            found.append(f"{name} {list(item.shape or ())}")
        return True if len(found) > NUM_LISTED else None

    file.visititems(note)
    more = ["..."] if len(found) > NUM_LISTED else []
    return ", ".join([*found[:NUM_LISTED], *more]) or "no datasets"


def find(file: h5py.File, name: str) -> h5py.Dataset:
    """Returns a dataset of real numbers that lies in this very file.

    Raises:
        UserError: If there is none of that name, or it leads to another file.
    """
    item = _walk(file, file, name, MAX_HOPS)
    if not isinstance(item, h5py.Dataset):
        raise UserError(f"{file.filename}: '{name}' is a group, no dataset")
    if item.is_virtual or item.external:
        raise UserError(f"{file.filename}: '{name}' is stored in other files, which is refused")
    require_numbers(Path(file.filename), name, item.dtype)
    return item


def find_group(file: h5py.File, name: str) -> h5py.Group:
    """Returns a group that lies in this very file, as :func:`find` does a dataset.

    Raises:
        UserError: If there is none of this name.
    """
    item = _walk(file, file, name, MAX_HOPS)
    if not isinstance(item, h5py.Group):
        raise UserError(f"{file.filename}: '{name}' is a dataset, no group")
    return item


def _walk(file: h5py.File, group: h5py.Group, name: str, hops: int) -> h5py.HLObject:
    """Follows a name step by step, so that no link is followed unseen."""
    item: h5py.HLObject = file if name.startswith("/") else group
    for part in filter(None, name.split("/")):
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            raise _missing(file, name, item)
        if isinstance(link, h5py.ExternalLink):
            raise UserError(
                f"{file.filename}: '{name}' is a link to another file, '{link.filename}', which "
                "is refused"
            )
        if isinstance(link, h5py.SoftLink):
            if hops == 0:
                raise UserError(f"{file.filename}: the links of '{name}' go round in circles")
            item = _walk(file, item, link.path, hops - 1)
        else:
            item = item[part]
    return item


def _missing(file: h5py.File, name: str, item: h5py.HLObject) -> UserError:
    hint = nearest(name, item) if isinstance(item, h5py.Group) else ""
    return UserError(
        f"{file.filename}: there is no dataset '{name}'; the file holds {contents(file)}{hint}"
    )


def require_complete(file: h5py.File, dataset: h5py.Dataset) -> None:
    """Raises a UserError unless all of a dataset has been written."""
    size = Path(file.filename).stat().st_size
    require_honest_size(Path(file.filename), dataset.name, dataset.nbytes, size)
    if dataset.chunks is None:
        complete = dataset.id.get_storage_size() >= dataset.nbytes
    else:
        expected = prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        complete = dataset.id.get_num_chunks() >= expected
    if not complete:
        raise UserError(
            f"{file.filename}: '{dataset.name}' was declared as {list(dataset.shape)} but never "
            "written in full"
        )


def take(dataset: h5py.Dataset, indices: np.ndarray) -> np.ndarray:
    """Reads rows of a dataset in any order, consecutive ones at once.

    Returns:
        Array ``[len(indices), ...]``.
    """
    rows = np.empty((len(indices), *dataset.shape[1:]), dataset.dtype)
    order = np.argsort(indices, kind="stable")
    for start, stop in runs(indices[order]):
        first = indices[order[start]]
        rows[order[start:stop]] = dataset[first : first + stop - start]
    return rows


def runs(numbers: Sequence[int] | np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields the positions ``start, stop`` of runs of consecutive numbers."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    edges = [0, *breaks.tolist(), len(numbers)]
    yield from ((a, b) for a, b in pairwise(edges) if b > a)
