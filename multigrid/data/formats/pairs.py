"""Files of independent samples: one array of inputs, one of outputs."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from multigrid.data.formats.base import (
    Description,
    FieldFile,
    ReaderOptions,
    channel_names,
    require_numbers,
)
from multigrid.data.formats.layout import choose_layouts
from multigrid.errors import UserError, nearest

NAME_PAIRS = (("x", "y"), ("input", "output"), ("inputs", "outputs"), ("a", "u"))


class PairFile(FieldFile):
    """A file with an array of inputs ``[N, ...]`` and one of outputs ``[N, ...]``.

    Which axes are channels is found out by :func:`choose_layouts`.
    """

    leading_test = 0.0

    @property
    @abstractmethod
    def names(self) -> tuple[str, str]:
        """Names of the input and the output array."""

    @abstractmethod
    @contextmanager
    def _arrays(self, check: bool = False) -> Iterator[tuple[Any, Any]]:
        """Gives both arrays, on disk or in memory; ``check`` asks whether they are complete."""

    def _rows(self, array: Any, indices: np.ndarray) -> np.ndarray:
        """Returns rows of one of the arrays."""
        rows: np.ndarray = array[indices]
        return rows

    def _examine(self) -> Description:
        with self._arrays(check=True) as arrays:
            (inputs, outputs), dtypes = [a.shape for a in arrays], [a.dtype for a in arrays]
        for name, dtype in zip(self.names, dtypes, strict=True):
            require_numbers(self.path, name, dtype)
        self._layouts = choose_layouts(self.path, inputs, outputs, self.options.ndim)
        of_inputs, of_outputs = self._layouts
        return Description(
            of_inputs.grid(inputs),
            channel_names(self.names[0], of_inputs.num_channels(inputs)),
            channel_names(self.names[1], of_outputs.num_channels(outputs)),
            str(dtypes[0]),
            str(dtypes[1]),
            inputs[0],
            leading_test=self.leading_test,
        )

    def _load(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with self._arrays() as arrays:
            inputs, outputs = (
                layout.apply(self._rows(array, indices))
                for layout, array in zip(self._layouts, arrays, strict=True)
            )
        return inputs, outputs


class MemoryPairFile(PairFile):
    """A file whose arrays are opened once and kept, mapped or in memory.

    A copy in another process opens them anew.
    """

    takes_names = True

    def __init__(self, path: Path, options: ReaderOptions) -> None:
        self._kept: tuple[Any, Any] | None = None
        super().__init__(path, options)

    @abstractmethod
    def _open(self) -> tuple[Any, Any]:
        """Opens both arrays, complete."""

    @contextmanager
    def _arrays(self, check: bool = False) -> Iterator[tuple[Any, Any]]:
        if self._kept is None:
            self._kept = self._open()
        yield self._kept

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


def known_pair(available: Mapping[str, Any]) -> tuple[str, str] | None:
    """Returns the first of the usual pairs of names that is there."""
    return next((pair for pair in NAME_PAIRS if set(pair) <= set(available)), None)


def choose_names(
    path: Path,
    available: Mapping[str, Any],
    options: ReaderOptions,
    shown: Callable[[], str],
) -> tuple[str, str]:
    """Returns the names of the input and the output array.

    Args:
        path: The file, for messages.
        available: What is there, by name.
        options: May name both.
        shown: Tells what is there.

    Raises:
        UserError: If a named array is not there, or none is named and no usual pair is there.
    """
    if not options.named:
        pair = known_pair(available)
        if pair is None:
            raise UserError(
                f"{path}: name the arrays with 'input' and 'output'; the file holds {shown()}"
            )
        return pair
    if options.input is None or options.output is None:
        raise UserError(f"{path}: name both arrays, 'input' and 'output'; the file holds {shown()}")
    for name in (options.input, options.output):
        if name not in available:
            raise UserError(
                f"{path}: there is no array '{name}'; the file holds {shown()}"
                f"{nearest(name, available)}"
            )
    return options.input, options.output
