"""What every reader of a foreign file has to say and do."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from multigrid.data.formats.origin import Stamp
from multigrid.data.formats.survey import Survey
from multigrid.errors import UserError
from multigrid.grid import Centering

BLOCK_BYTES = 2**26


@dataclass(frozen=True)
class ReaderOptions:
    """What the user says about a file.

    Attributes:
        input: Name of the input array, where a format has no names of its own.
        output: Name of the output array; for ``.npy`` the name of the second file.
        ndim: Number of space dimensions, where the shapes leave it open.
        reduced_resolution: Keep every n-th point along each axis, as PDEBench does.
        fields: Names of the time-dependent fields to take, in this order; None for all.
    """

    input: str | None = None
    output: str | None = None
    ndim: int | None = None
    reduced_resolution: int = 1
    fields: tuple[str, ...] | None = None

    @classmethod
    def of(cls, settings: Any) -> "ReaderOptions":
        """Returns what an object says that has attributes of these names, as a section has."""
        return cls(
            settings.input,
            settings.output,
            settings.ndim,
            settings.reduced_resolution,
            tuple(settings.fields) if settings.fields else None,
        )

    @property
    def named(self) -> bool:
        """Whether the user names arrays."""
        return self.input is not None or self.output is not None


@dataclass(frozen=True)
class Description:
    """What a file holds.

    Attributes:
        shape: Number of points along each axis.
        input_names: Names of the input channels.
        output_names: Names of the output channels.
        input_dtype: Number type of the stored inputs.
        output_dtype: Number type of the stored outputs.
        num_groups: Number of trajectories; of samples, where these are independent.
        group_size: Number of samples (one-step pairs) in each trajectory.
        centering: Where the points lie, if the file says so.
        named_splits: The groups of each split, if the file names them.
        leading_test: The fraction of the groups, from the first on, that its authors test on.
    """

    shape: tuple[int, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    input_dtype: str
    output_dtype: str
    num_groups: int
    group_size: int = 1
    centering: Centering | None = None
    named_splits: Mapping[str, range] = field(default_factory=dict)
    leading_test: float = 0.0

    @property
    def num_samples(self) -> int:
        """Number of samples."""
        return self.num_groups * self.group_size

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""
        return len(self.input_names), len(self.output_names)


class FieldFile(ABC):
    """A file with pairs of input and output fields, read lazily.

    Nothing stays open between two reads, so that a reader can be copied to other processes.

    Args:
        path: The file.
        options: What the user says about it.

    Raises:
        UserError: If the file is damaged or does not hold what the format asks for.
    """

    reader: ClassVar[str]
    expects: ClassVar[str]
    takes_names: ClassVar[bool] = False
    takes_fields: ClassVar[bool] = False

    def __init__(self, path: Path, options: ReaderOptions) -> None:
        self.path = path
        self.options = options
        described = self._examine()
        self._stamps = {path: Stamp.of(path) for path in self.paths}
        if described.num_samples == 0:
            raise UserError(f"{path}: holds no samples")
        step = options.reduced_resolution
        shape = tuple(-(-n // step) for n in described.shape)
        if min(shape) < 2:
            raise UserError(
                f"{path}: every {step}-th point of a grid {_times(described.shape)} leaves "
                f"{_times(shape)}, too few"
            )
        self._description = replace(described, shape=shape)

    @classmethod
    @abstractmethod
    def matches(cls, path: Path, options: ReaderOptions) -> bool:
        """Whether a file looks like this format; reads its directory at most.

        Raises:
            UserError: If the file is damaged or not safe to open.
        """

    @abstractmethod
    def _examine(self) -> Description:
        """Checks names, shapes and number types, and describes the file at full resolution."""

    @abstractmethod
    def _load(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns samples as stored: ``[n, in, *grid]`` and ``[n, out, *grid]``, any type."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that are read."""
        return (self.path,)

    def describe(self) -> Description:
        """Returns what the file holds, after ``reduced_resolution``."""
        return self._description

    def fetch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads samples without looking at their values.

        Args:
            indices: Numbers of the samples, in any order.

        Returns:
            Inputs ``[n, in, *grid]`` and outputs ``[n, out, *grid]`` in float32.

        Raises:
            UserError: If the file is damaged.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self._description.num_samples:
            raise IndexError(f"the file holds {self._description.num_samples} samples")
        self._require_unchanged()
        inputs, outputs = self._load(wanted)
        self._require_unchanged()
        return self._convert(inputs), self._convert(outputs)

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads samples as :meth:`fetch` does and refuses NaN and infinite values.

        Raises:
            UserError: If the file is damaged or holds such values.
        """
        inputs, outputs = self.fetch(indices)
        survey = Survey(self.path, self._description.input_names, self._description.output_names)
        survey.add(np.asarray(indices), inputs, outputs)
        survey.require_finite()
        return inputs, outputs

    def blocks(self, indices: np.ndarray) -> Iterator[slice]:
        """Yields consecutive parts of ``indices`` that fit into a bounded amount of memory."""
        described = self._description
        points = int(np.prod(described.shape)) * self.options.reduced_resolution ** len(
            described.shape
        )
        size = max(1, BLOCK_BYTES // (8 * sum(described.num_channels) * points))
        for start in range(0, len(indices), size):
            yield slice(start, min(start + size, len(indices)))

    def _require_unchanged(self) -> None:
        for path, stamp in self._stamps.items():
            stamp.require(path)

    def _convert(self, fields: np.ndarray) -> np.ndarray:
        strides = (slice(None, None, self.options.reduced_resolution),) * (fields.ndim - 2)
        where: tuple[Any, ...] = (..., *strides)
        with np.errstate(over="ignore"):  # what overflows is infinite, and told as such
            return np.ascontiguousarray(fields[where], dtype=np.float32)


def require_numbers(path: Path, name: str, dtype: np.dtype) -> None:
    """Raises a UserError unless an array holds real numbers or booleans."""
    if dtype.kind not in "fiub":
        raise UserError(f"{path}: '{name}' holds {dtype}, but real numbers are needed")


def channel_names(name: str, count: int) -> tuple[str, ...]:
    """Returns the names of an array's channels."""
    return (name,) if count == 1 else tuple(f"{name}_{index}" for index in range(count))


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
