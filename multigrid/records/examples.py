"""A few predictions of a run, kept small for pictures. Knows arrays only, not torch."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from multigrid.errors import UserError
from multigrid.files import write_file

AXES = "xyz"


@dataclass(frozen=True)
class Cut:
    """Fields on a plane: the grid itself in two dimensions, a middle slice of three.

    Attributes:
        label: Where the plane lies, as in ``z = 32/64``; empty in two dimensions.
        inputs: Array ``[N, in, n, m]``.
        truth: Array ``[N, out, n, m]``.
        prediction: Array ``[N, out, n, m]``.
    """

    label: str
    inputs: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


@dataclass(frozen=True)
class RollOut:
    """One trajectory, true and rolled out, at some of its steps.

    Attributes:
        steps: Numbers of the steps ``[T]``, the first being the given state, 0.
        truth: Array ``[T, C, n, m]``.
        prediction: Array ``[T, C, n, m]``.
    """

    steps: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


@dataclass(frozen=True)
class Examples:
    """Predicted test samples of a run.

    Attributes:
        grid: Their grid.
        input_names: Names of the input fields.
        output_names: Names of the output fields.
        rel_l2: Relative L2 error of each sample and output field ``[N, out]``, on the whole grid.
        cuts: What is to be seen of them.
        rollout: A roll-out, if the run has one.
    """

    grid: tuple[int, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    rel_l2: np.ndarray
    cuts: tuple[Cut, ...]
    rollout: RollOut | None = None

    @classmethod
    def of(
        cls,
        names: tuple[Sequence[str], Sequence[str]],
        inputs: np.ndarray,
        truth: np.ndarray,
        prediction: np.ndarray,
        rollout: RollOut | None = None,
    ) -> "Examples":
        """Cuts planes from fields ``[N, C, *grid]``.

        Args:
            names: Names of the input and of the output fields.
            inputs: Input fields.
            truth: True output fields.
            prediction: Predicted output fields.
            rollout: A roll-out, already cut.
        """
        grid = truth.shape[2:]
        axes = tuple(range(2, truth.ndim))
        size = np.sqrt(np.square(truth, dtype=np.float64).sum(axes))
        error = np.sqrt(np.square(prediction - truth, dtype=np.float64).sum(axes))
        cuts = [
            Cut(label, *(_plane(fields, axis) for fields in (inputs, truth, prediction)))
            for axis, label in _planes(grid)
        ]
        rel_l2 = error / np.maximum(size, 1e-30)
        return cls(grid, tuple(names[0]), tuple(names[1]), rel_l2, tuple(cuts), rollout)

    def write(self, path: Path) -> None:
        """Writes the arrays into a ``.npz`` file, aside and renamed into place.

        Raises:
            UserError: If it cannot be written.
        """
        arrays: dict[str, np.ndarray] = {
            "grid": np.array(self.grid),
            "input_names": np.array(self.input_names),
            "output_names": np.array(self.output_names),
            "rel_l2": self.rel_l2,
            "cuts": np.array([cut.label for cut in self.cuts]),
        }
        for number, cut in enumerate(self.cuts):
            for name in ("inputs", "truth", "prediction"):
                arrays[f"{name}_{number}"] = getattr(cut, name)
        if self.rollout is not None:
            for name in ("steps", "truth", "prediction"):
                arrays[f"rollout_{name}"] = getattr(self.rollout, name)
        content = BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        write_file(path, content.getvalue())

    @classmethod
    def read(cls, path: Path) -> "Examples":
        """Reads back what :meth:`write` wrote.

        Raises:
            UserError: If the file is missing, damaged or not of this kind.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            cuts = [
                Cut(str(label), *(arrays[f"{n}_{i}"] for n in ("inputs", "truth", "prediction")))
                for i, label in enumerate(arrays["cuts"])
            ]
            rollout = None
            if "rollout_steps" in arrays:
                parts = (arrays[f"rollout_{name}"] for name in ("steps", "truth", "prediction"))
                rollout = RollOut(*parts)
            inputs, outputs = (
                tuple(map(str, arrays[f"{side}_names"])) for side in ("input", "output")
            )
            grid = tuple(int(n) for n in arrays["grid"])
            return cls(grid, inputs, outputs, arrays["rel_l2"], tuple(cuts), rollout)
        except FileNotFoundError:
            raise UserError(f"{path}: there is no such file") from None
        except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: unreadable or half-written ({error})") from None


def middle_plane(fields: np.ndarray) -> np.ndarray:
    """Returns ``[N, C, x, y]`` as it is, of ``[N, C, x, y, z]`` the plane in the middle of z."""
    return _plane(fields, _planes(fields.shape[2:])[-1][0])


def _planes(grid: tuple[int, ...]) -> list[tuple[int | None, str]]:
    if len(grid) == 2:
        return [(None, "")]
    return [(axis, f"{AXES[axis]} = {n // 2}/{n}") for axis, n in enumerate(grid)]


def _plane(fields: np.ndarray, axis: int | None) -> np.ndarray:
    if axis is None:
        return np.ascontiguousarray(fields, dtype=np.float32)
    middle = fields.take(fields.shape[axis + 2] // 2, axis=axis + 2)
    return np.ascontiguousarray(middle, dtype=np.float32)
