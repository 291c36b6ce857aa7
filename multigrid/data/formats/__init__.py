"""Data files of many formats, opened as samples.

A *container* gives named arrays with attributes, whatever the file is; a *layout* says what each of
their axes is. A reader of a format is a function from the one to the other, which a user registers
with :data:`multigrid.register_reader`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from multigrid.config.data import ReaderOptions, TimeConfig
from multigrid.data import SPLIT_NAMES
from multigrid.data.arrays import is_sealed
from multigrid.data.formats import array_files
from multigrid.data.formats.array_files import Npy, TorchFile, XarrayStore, partner_of, zip_members
from multigrid.data.formats.container import Container, first_bytes, require_regular_file
from multigrid.data.formats.field_file import FieldFile
from multigrid.data.formats.hdf5 import Hdf5
from multigrid.data.formats.layout import Field, Layout, Part, make_field
from multigrid.data.formats.matlab import MatlabFile
from multigrid.data.formats.readers import KNOWN, TAKE_NAMES
from multigrid.errors import UserError, nearest
from multigrid.files import path_of
from multigrid.registry import READERS

PICKLE = b"\x80"
SUFFIXES = (".h5", ".hdf5", ".hdf", ".nc", ".npz", ".npy", ".mat", ".pt", ".pth")


def open_fields(
    path: str | Path | Sequence[str | Path],
    options: ReaderOptions | None = None,
    time: TimeConfig | None = None,
) -> FieldFile:
    """Opens a data file, or several alike, with the reader that fits.

    These are named by a folder, a pattern such as ``data/*.npz`` or a list; their samples are
    counted through in the order of their names.

    Raises:
        UserError: If no reader fits, or the file is missing, damaged or not safe to open.
    """
    options = options or ReaderOptions()
    names, parts = _candidates(options), []
    for item in expand(path) if isinstance(path, str | Path) else path:
        container = open_container(Path(item), options)
        fitting, layouts = _first_fitting(container, names, options)
        names = [fitting]
        parts += [Part.of(container, layout, options) for layout in layouts]
    return FieldFile(parts, names[0], options, time or TimeConfig())


def expand(path: str | Path) -> list[Path]:
    """Returns the files that a name stands for: a file, all of a folder, or of a pattern."""
    path = path_of(path)
    files: Iterable[Path]
    if path.is_dir() and not is_store(path):
        files, missing = path.iterdir(), "is a folder without data files, but a data file is needed"
    elif any(letter in str(path) for letter in "*?[") and not path.exists():
        anchor = Path(path.anchor)
        files, missing = anchor.glob(str(path.relative_to(anchor))), "no data file has such a name"
    else:
        return [path]
    files = sorted(item for item in files if _is_data(item))
    if not files:
        raise UserError(f"{path}: {missing}")
    outputs = {partner_of(item) for item in files if item.suffix == ".npy"}
    return [item for item in files if item not in outputs]  # which are read with the inputs


def split_folders(path: Path) -> dict[str, list[Path]]:
    """Returns the files of each split of a data set in folders ``train``, ``valid`` and ``test``.

    They lie in the folder itself or in ``data`` below it, as The Well has them.
    """
    for folder in (path, path / "data"):
        splits = {
            split: expand(folder / name)
            for name, split in SPLIT_NAMES.items()
            if (folder / name).is_dir()
        }
        if splits:
            return splits
    return {}


def is_store(path: Path) -> bool:
    """Whether a folder is a zarr store."""
    marks = (".zgroup", "zarr.json", ".zmetadata")
    return path.is_dir() and any((path / name).exists() for name in marks)


def _is_data(path: Path) -> bool:
    return is_store(path) or (path.is_file() and path.suffix in SUFFIXES)


def open_container(path: Path, options: ReaderOptions) -> Container:
    """Opens a file as what its first bytes say it is."""
    if is_store(path):
        return XarrayStore(path)
    require_regular_file(path)
    if h5py.is_hdf5(path):
        sealed = is_sealed(path)
        if sealed is not False:
            container = Hdf5(path)
            if sealed or not container.attributes.get("sealed"):
                return container
        raise UserError(
            f"{path}: damaged, or changed since multigrid wrote it: its checksum differs"
        )
    start, members = first_bytes(path, 128), zip_members(path)
    if not start:
        raise UserError(f"{path}: the file is empty")
    if any(name.rpartition("/")[2] == "data.pkl" for name in members or ()):
        return TorchFile(path)
    if members and all(name.endswith(".npy") for name in members):
        return array_files.Npz(path)
    if start.startswith(array_files.NPY_SIGNATURE):
        if options.input:
            raise UserError(
                f"{path}: the file itself is the input; name only the file of the outputs, 'output'"
            )
        return Npy(path, options.output[0] if options.output else None)
    if path.suffix in (".pt", ".pth") and members is None:
        return TorchFile(path)
    if start.startswith(PICKLE):
        raise UserError(f"{path}: is a pickle, which is refused, as opening it could run a program")
    if start.startswith(b"MATLAB 5.0") or path.suffix == ".mat":
        return MatlabFile(path)
    netcdf_3 = start.startswith((b"CDF\x01", b"CDF\x02"))
    return XarrayStore(path) if netcdf_3 else Container(path)


def _candidates(options: ReaderOptions) -> list[str]:
    """Returns the readers to try; those that know their names are none if the user names some."""
    built_in, reader = (*KNOWN, *TAKE_NAMES), options.reader
    names = *(name for name in READERS.names() if name not in built_in), *built_in
    if reader not in ("auto", *names):
        raise UserError(
            f"reader: '{reader}' is not known; allowed are auto, {', '.join(names)}"
            f"{nearest(reader, names)}"
        )
    if options.named and reader in KNOWN:
        raise UserError(f"reader: '{reader}' takes no 'input' and 'output', it knows its names")
    if reader != "auto":
        return [reader]
    return list(TAKE_NAMES if options.named else names)


def _first_fitting(
    container: Container, names: Sequence[str], options: ReaderOptions
) -> tuple[str, Sequence[Layout]]:
    for name in names:
        if name in TAKE_NAMES and name != container.kind:
            continue
        if layout := READERS.get(name)(container, options):
            return name, [layout] if isinstance(layout, Layout) else layout
    held = f", the file holds {container.contents()}" if container.names else ""
    if held and not options.named and "hdf5" in names:
        held += "; if two of these are input and output, say which with 'input' and 'output'"
    summaries = {name: READERS.get(name).__doc__ or "" for name in names} | TAKE_NAMES
    lines = (summaries[name].partition("\n")[0].removesuffix(".") for name in names)
    tried = "; ".join(f"{name} ({line})" for name, line in zip(names, lines, strict=True))
    raise UserError(f"{container.path}: no reader fits{held}; tried: {tried}")


# --- inputs alone, as for predictions ---


@dataclass(frozen=True)
class Inputs:
    """Inputs ``[N, in, *grid]`` of a file, read where they are sliced."""

    shape: tuple[int, ...]
    read: Callable[[slice], np.ndarray]

    @classmethod
    def of(cls, file: FieldFile) -> "Inputs":
        """Returns those of the samples that a reader finds in a file, as for training."""
        numbers = range(file.num_samples)
        shape = (len(numbers), len(file.input_names), *file.shape)
        return cls(shape, lambda rows: file.fetch(numbers[rows])[0])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.read(rows)


def open_array(path: Path, name: str | None = None) -> Inputs:
    """Opens an array of any kind of file that can be sliced."""
    container = open_container(path, ReaderOptions())
    if container.kind == "unknown":
        raise UserError(f"{path}: is not a file of arrays (.npy, .npz, HDF5, .pt, .mat)")
    if container.kind == "npy":  # a second file, of outputs, may lie beside it
        if name is not None:
            raise UserError(f"{path}: holds one array without a name, not '{name}'")
        name = container.names[0]
    names = [n for n in container.names if n not in container.coordinates]
    held = ", ".join(names) or "no array"
    if name is None and len(names) != 1:
        raise UserError(f"{path}: holds {held}; say with --input which is the input")
    array = names[0] if name is None else name
    if array not in names:
        raise UserError(f"{path}: holds no array '{name}' but {held}{nearest(name, names)}")
    shape = container.shape(array)
    if not shape or not shape[0]:
        raise UserError(f"{path}: holds no sample")

    def read(rows: slice) -> np.ndarray:
        with container.open() as arrays:
            return np.asarray(arrays(array)[rows, ...])

    read(slice(0))  # so that damage is told at once
    return Inputs(shape, read)


__all__ = [
    "Container",
    "Field",
    "FieldFile",
    "Inputs",
    "Layout",
    "ReaderOptions",
    "expand",
    "make_field",
    "open_array",
    "open_fields",
    "split_folders",
]
