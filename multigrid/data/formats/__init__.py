"""Readers of foreign data files, one format a module."""

from pathlib import Path

from multigrid.data.formats import hdf5
from multigrid.data.formats.base import Description, FieldFile, ReaderOptions
from multigrid.data.formats.cno import Cno
from multigrid.data.formats.named import Hdf5Pair
from multigrid.data.formats.numpy_files import NpyPair, NpzPair
from multigrid.data.formats.origin import first_bytes, require_regular_file
from multigrid.data.formats.pdebench import PdebenchPair, PdebenchTrajectories
from multigrid.data.formats.store_file import StoreFile
from multigrid.data.formats.torch_file import TorchPair
from multigrid.data.formats.well import Well
from multigrid.errors import UserError, nearest

READERS: tuple[type[FieldFile], ...] = (
    StoreFile,
    Well,
    PdebenchPair,
    PdebenchTrajectories,
    Cno,
    Hdf5Pair,
    NpzPair,
    NpyPair,
    TorchPair,
)
NAMES = tuple(dict.fromkeys(reader.reader for reader in READERS))
PICKLE = b"\x80"


def open_fields(
    path: str | Path, reader: str = "auto", options: ReaderOptions | None = None
) -> FieldFile:
    """Opens a data file with the reader that fits.

    Args:
        path: The file.
        reader: One of :data:`NAMES`, or ``auto`` for the first that recognises the file.
        options: What the user says about the file.

    Raises:
        UserError: If no reader fits, or the file is missing, damaged or not safe to open.
    """
    path, options = Path(path), options or ReaderOptions()
    require_regular_file(path)
    fitting = next((r for r in _candidates(reader, options) if r.matches(path, options)), None)
    if fitting is None:
        raise _no_reader(path, reader, options)
    if options.fields is not None and not fitting.takes_fields:
        raise UserError(f"{path}: 'fields' is for time-dependent files, not for {fitting.reader}")
    return fitting(path, options)


def _candidates(reader: str, options: ReaderOptions) -> list[type[FieldFile]]:
    """Returns the readers to try; those with names of their own are none if the user names some."""
    if reader != "auto" and reader not in NAMES:
        raise UserError(
            f"reader: '{reader}' is not known; allowed are auto, {', '.join(NAMES)}"
            f"{nearest(reader, NAMES)}"
        )
    named = [r for r in READERS if reader in ("auto", r.reader)]
    fitting = [r for r in named if r.takes_names or not options.named]
    if not fitting:
        raise UserError(f"reader: '{reader}' takes no 'input' and 'output', it knows its names")
    return fitting


def _no_reader(path: Path, reader: str, options: ReaderOptions) -> UserError:
    tried = _candidates(reader, options)
    start = first_bytes(path)
    if not start:
        return UserError(f"{path}: the file is empty")
    if start.startswith(PICKLE):
        return UserError(
            f"{path}: is a pickle, which is refused, as opening it could run a program"
        )
    held = _held(path)
    if held and not options.named and reader in ("auto", "hdf5"):
        held += "; if two of these are input and output, say which with 'input' and 'output'"
    formats = "; ".join(f"{r.reader} ({r.expects})" for r in tried)
    return UserError(f"{path}: no reader fits{held}; tried: {formats}")


def _held(path: Path) -> str:
    if not hdf5.is_hdf5(path):
        return ""
    with hdf5.open_file(path) as file:
        return f", the file holds {hdf5.contents(file)}"


__all__ = ["NAMES", "READERS", "Description", "FieldFile", "ReaderOptions", "open_fields"]
