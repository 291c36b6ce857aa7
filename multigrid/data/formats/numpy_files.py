"""NumPy's own files: ``.npz`` with two arrays, ``.npy`` in pairs. Pickles are never opened."""

import re
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from multigrid.data.formats.base import ReaderOptions
from multigrid.data.formats.origin import (
    first_bytes,
    require_honest_size,
    require_regular_file,
)
from multigrid.data.formats.pairs import NAME_PAIRS, MemoryPairFile, choose_names
from multigrid.errors import UserError, brief

SIGNATURE = b"\x93NUMPY"
ZIP_SIGNATURE = b"PK\x03\x04"


def zip_members(path: Path) -> list[str] | None:
    """Returns the names in a zip archive, or None if the file is none.

    Raises:
        UserError: If the archive is damaged.
    """
    if first_bytes(path, 4) != ZIP_SIGNATURE:
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged or truncated archive ({brief(error)})") from None


class NpzPair(MemoryPairFile):
    """Two arrays ``[N, ...]`` of an ``.npz`` file, which is read into memory."""

    reader = "npz"
    expects = ".npz with two arrays (x/y, input/output, a/u or named by 'input' and 'output')"

    @classmethod
    def matches(cls, path: Path, options: ReaderOptions) -> bool:
        """Whether it is a zip archive of ``.npy`` files."""
        members = zip_members(path)
        return bool(members) and all(name.endswith(".npy") for name in members or [])

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two arrays."""
        return self._names

    def _open(self) -> tuple[Any, Any]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                self._names = choose_names(
                    self.path, members, self.options, lambda: ", ".join(members)
                )
                for name in self._names:
                    self._check(archive, name, members[name])
            with np.load(self.path, allow_pickle=False) as arrays:
                return arrays[self._names[0]], arrays[self._names[1]]
        except UserError:
            raise
        except Exception as error:  # a damaged header fails in NumPy in any way
            raise _damaged(self.path, error) from None

    def _check(self, archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> None:
        with archive.open(info) as member:
            declared = _declared_bytes(self.path, member)
        if declared > info.file_size:
            raise UserError(f"{self.path}: '{name}' declares more data than is there")
        require_honest_size(self.path, name, declared, self.path.stat().st_size)


class NpyPair(MemoryPairFile):
    """Two ``.npy`` files, the second named by ``output`` or found beside the first; mapped."""

    reader = "npy"
    expects = ".npy with the outputs in a second file (x.npy/y.npy or named by 'output')"

    @classmethod
    def matches(cls, path: Path, options: ReaderOptions) -> bool:
        """Whether it bears the signature of a ``.npy`` file."""
        return first_bytes(path, len(SIGNATURE)) == SIGNATURE

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two files without their endings."""
        return self.path.stem, self._partner.stem

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file of the inputs and that of the outputs."""
        return self.path, self._partner

    def _open(self) -> tuple[Any, Any]:
        if self.options.input is not None:
            raise UserError(
                f"{self.path}: the file itself is the input; name only the file of the outputs, "
                "'output'"
            )
        self._partner = self._find_partner()
        return self._map(self.path), self._map(self._partner)

    def _find_partner(self) -> Path:
        if self.options.output is not None:
            beside = self.path.parent / self.options.output
            partner = beside if beside.exists() else Path(self.options.output)
            require_regular_file(partner)
            return partner
        for first, second in NAME_PAIRS:
            pattern = rf"(?<![A-Za-z0-9]){first}(?![A-Za-z0-9])"
            partner = self.path.with_stem(re.sub(pattern, second, self.path.stem))
            if partner != self.path and partner.is_file():
                return partner
        raise UserError(
            f"{self.path}: a .npy file holds one array; name the file of the outputs, 'output'"
        )

    @staticmethod
    def _map(path: Path) -> np.ndarray:
        try:
            with path.open("rb") as file:
                _declared_bytes(path, file)
            mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except UserError:
            raise
        except Exception as error:  # a damaged header fails in NumPy in any way
            raise _damaged(path, error) from None
        return mapped


def _declared_bytes(path: Path, file: IO[bytes]) -> int:
    """Reads the header of a ``.npy`` file and returns the size of its array."""
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise UserError(
            f"{path}: holds something that is no NumPy array; pickles are refused, as opening one "
            "could run a program"
        )
    major = file.read(2)[:1]
    if major == b"\x01":
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif major == b"\x02":
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise UserError(f"{path}: a version of the .npy format that is not for plain arrays")
    if dtype.hasobject:
        raise UserError(
            f"{path}: holds pickled Python objects, which is refused, as opening them could run "
            "a program"
        )
    size = dtype.itemsize
    for n in shape:
        size *= n  # in Python's integers, which do not overflow
    return size


def _damaged(path: Path, error: BaseException) -> UserError:
    return UserError(f"{path}: damaged or truncated NumPy file ({brief(error)})")
