"""Single arrays in files, read and written without holding them whole in memory."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from multigrid.data.formats import hdf5
from multigrid.data.formats.container import require_regular_file
from multigrid.errors import UserError, brief, nearest
from multigrid.files import written_aside

HDF5 = (".h5", ".hdf5", ".hdf")


class StoredArray:
    """An array of an HDF5 file; nothing stays open between two reads.

    Args:
        path: The file.
        name: Name of the dataset.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        with hdf5.open_file(path) as file:
            dataset = hdf5.find(file, name)
            hdf5.require_complete(file, dataset)
            self.shape: tuple[int, ...] = dataset.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        with hdf5.open_file(self.path) as file:
            values: np.ndarray = hdf5.find(file, self.name)[rows]
        return values


def open_array(path: Path, name: str | None = None) -> np.ndarray | StoredArray:
    """Opens an array that can be sliced: ``.npy`` mapped, HDF5 on disk, ``.npz`` in memory.

    Args:
        path: The file.
        name: Name of the array; may be left out where there is only one.

    Raises:
        UserError: If there is no such file or array, the file is damaged, or it holds no sample.
    """
    require_regular_file(path)
    array: np.ndarray | StoredArray
    if path.suffix in (".npy", ".npz"):
        array = _read_numpy(path, name)
    elif hdf5.is_hdf5(path):
        array = StoredArray(path, name or _only_dataset(path))
    else:
        raise UserError(f"{path}: is neither .npy nor .npz nor HDF5")
    if not array.shape:
        raise UserError(f"{path}: an array of samples is needed, not a single value")
    if len(array) == 0:
        raise UserError(f"{path}: holds no sample")
    return array


def _read_numpy(path: Path, name: str | None) -> np.ndarray:
    """Returns an array of a file whose content, not its ending, says of which kind it is."""
    loaded = _load(path)
    if isinstance(loaded, np.lib.npyio.NpzFile):
        with loaded as file:
            array = _member(path, file, _choose(path, file.files, name))
    elif name is not None:
        raise UserError(f"{path}: holds one array without a name, not '{name}'")
    else:
        array = loaded
    if array.dtype.kind not in "fiub":
        raise UserError(f"{path}: an array of real numbers is needed, not {array.dtype}")
    return array


def _only_dataset(path: Path) -> str:
    names: list[str] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim > 0:
            names.append(name)

    with hdf5.open_file(path) as file:
        file.visititems(note)
    return _choose(path, names, None)


def _load(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header fails in NumPy in any way
        reason = brief(error)
        raise UserError(f"{path}: unreadable, half-written or pickled ({reason})") from None


def _member(path: Path, file: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(file[name])
    except Exception as error:  # as above; and its size may be more than there is memory
        raise UserError(f"{path}: '{name}' is unreadable ({brief(error)})") from None


def _choose(path: Path, names: Sequence[str], name: str | None) -> str:
    if name is None and len(names) == 1:
        return names[0]
    held = ", ".join(names) or "no array"
    if name is None:
        raise UserError(f"{path}: holds {held}; say with --input which is the input")
    if name not in names:
        raise UserError(f"{path}: holds no array '{name}' but {held}{nearest(name, names)}")
    return name


def write_array(
    path: Path,
    shape: tuple[int, ...],
    batches: Iterable[np.ndarray],
    told: Callable[[int], Any],
    fields: Sequence[str],
) -> None:
    """Writes batches as one float32 array, aside first and then renamed into place.

    Args:
        path: ``.npy``, or HDF5, where the array is the dataset ``output``.
        shape: Shape of the whole array.
        batches: Its parts along the first axis.
        told: Is told how many samples each batch had.
        fields: Names of the output fields, kept as an attribute in HDF5.

    Raises:
        UserError: If the file cannot be written; one already there is untouched.
    """
    with written_aside(path) as aside:
        if path.suffix in HDF5:
            with h5py.File(aside, "w") as file:
                target = file.create_dataset("output", shape, "float32", chunks=(1, *shape[1:]))
                target.attrs["fields"] = list(fields)
                _fill(target, batches, told)
        else:
            mapped = np.lib.format.open_memmap(aside, "w+", np.float32, shape)
            _fill(mapped, batches, told)
            mapped.flush()


def _fill(target: Any, batches: Iterable[np.ndarray], told: Callable[[int], Any]) -> None:
    start = 0
    for batch in batches:
        target[start : start + len(batch)] = batch
        start += len(batch)
        told(len(batch))
