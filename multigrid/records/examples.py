"""A few predictions of a run, kept small for pictures. Works on arrays, without torch."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multigrid.errors import UserError, brief
from multigrid.files import require_run, write_file

# Okabe and Ito's palette, told apart also by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
AXES = "xyz"
FIELDS = ("inputs", "truth", "prediction")


Panel = tuple[str, np.ndarray, tuple[str, float, float]]
"""Heading, field ``[n, m]`` or ``[n]``, and its colours as :func:`colour_range` returns them."""


class Cut(NamedTuple):
    """Fields ``[N, C, n, m]`` on a plane: the grid, or a middle slice ``z = 32/64`` of three axes.

    In one dimension ``[N, C, n]``, with an empty label as in two.
    """

    label: str
    inputs: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


class RollOut(NamedTuple):
    """One trajectory ``[T, C, n, m]``, true and rolled out, at some steps, the first being 0.

    ``label`` says which one.
    """

    steps: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    label: str = ""


@dataclass(frozen=True)
class Examples:
    """Predicted test samples of a run, labelled as in ``median: sample 12``.

    ``rel_l2`` is the relative L2 error of each sample and output field ``[N, out]``.
    """

    grid: tuple[int, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    rel_l2: np.ndarray
    cuts: tuple[Cut, ...]
    rollout: RollOut | None = None
    labels: tuple[str, ...] = ()

    def rows(self) -> Iterator[tuple[int, int, Cut]]:
        """Yields sample, output field and cut of all that there is to see."""
        return product(range(len(self.rel_l2)), range(len(self.output_names)), self.cuts)

    def title(self, sample: int, cut: Cut) -> str:
        """Returns which of the test samples one is, and where it is cut."""
        label = self.labels[sample] if self.labels else f"sample {sample}"
        return f"{label}, {cut.label}" if cut.label else label

    def panels(self, sample: int, channel: int, cut: Cut) -> list[Panel]:
        """Returns input, truth, prediction and error of an output field of a sample."""
        source, name = min(channel, len(self.input_names) - 1), self.output_names[channel]
        given, truth = cut.inputs[sample, source], cut.truth[sample, channel]
        given_kind = colour_range(cut.inputs[:, source])[0]  # the same for all samples
        scale = colour_range(truth, colour_range(cut.truth[:, channel])[0])
        heading = f"error (relative L2 {self.rel_l2[sample, channel]:.2%})"
        return [
            (f"input {self.input_names[source]}", given, colour_range(given, given_kind)),
            *compared(name, truth, cut.prediction[sample, channel], scale, heading),
        ]

    @classmethod
    def of(
        cls,
        names: tuple[Sequence[str], Sequence[str]],
        inputs: np.ndarray,
        truth: np.ndarray,
        prediction: np.ndarray,
        rel_l2: np.ndarray,
        rollout: RollOut | None = None,
        labels: Sequence[str] = (),
    ) -> "Examples":
        """Cuts planes from fields ``[N, C, *grid]``."""
        grid = truth.shape[2:]
        cuts = tuple(
            Cut(label, *(_plane(fields, axis) for fields in (inputs, truth, prediction)))
            for axis, label in _planes(grid)
        )
        return cls(grid, tuple(names[0]), tuple(names[1]), rel_l2, cuts, rollout, tuple(labels))

    def write(self, path: Path, run: str = "") -> None:
        """Writes the arrays, and which run they are of, into a ``.npz`` file."""
        arrays: dict[str, np.ndarray] = {
            "grid": np.array(self.grid),
            "input_names": np.array(self.input_names),
            "output_names": np.array(self.output_names),
            "rel_l2": self.rel_l2,
            "cuts": np.array([cut.label for cut in self.cuts]),
            "labels": np.array(self.labels),
            "run": np.array(run),
        }
        for number, cut in enumerate(self.cuts):
            arrays |= {f"{name}_{number}": getattr(cut, name) for name in FIELDS}
        if self.rollout is not None:
            arrays |= {f"rollout_{n}": np.array(a) for n, a in self.rollout._asdict().items()}
        content = BytesIO()
        arrays["checksum"] = np.array(_checksum(arrays))
        np.savez(content, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle
        write_file(path, content.getvalue())

    @classmethod
    def read(cls, path: Path, run: str = "") -> "Examples":
        """Reads back what :meth:`write` wrote of a run, also in version 0.1."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            checksum = arrays.pop("checksum", None)  # version 0.1 wrote none
            if checksum is not None and checksum != _checksum(arrays):
                raise ValueError("its checksum is wrong")
            cuts = tuple(
                Cut(str(label), *(arrays[f"{name}_{i}"] for name in FIELDS))
                for i, label in enumerate(arrays["cuts"])
            )
            inputs, outputs, labels = (
                tuple(map(str, arrays.get(name, ())))
                for name in ("input_names", "output_names", "labels")
            )
            rollout = None
            if "rollout_steps" in arrays:
                steps, truth, prediction = (arrays[f"rollout_{n}"] for n in RollOut._fields[:3])
                rollout = RollOut(steps, truth, prediction, str(arrays.get("rollout_label", "")))
            grid = tuple(int(n) for n in arrays["grid"])
            examples = cls(grid, inputs, outputs, arrays["rel_l2"], cuts, rollout, labels)
        except Exception as error:  # zipfile raises errors of many kinds
            raise UserError(f"{path}: unreadable or half-written ({brief(error)})") from None
        require_run(path, str(arrays.get("run", "")), run)
        return examples


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def choose_samples(
    errors: np.ndarray,
    count: int,
    trajectories: Sequence[int] | None = None,
    places: Sequence[str] = (),
) -> tuple[list[int], list[str]]:
    """Chooses samples evenly by rank of their errors ``[N]``: for three best, median and worst.

    No two are of one trajectory, if those are told. Returns indices, best first, and labels, which
    also say where a sample is, if ``places`` do.
    """
    order = np.argsort(errors, kind="stable")
    ranks = np.linspace(0, len(order) - 1, min(count, len(order)))
    names = {0.0: "best", 0.5: "median", 1.0: "worst"}
    groups = range(len(order)) if trajectories is None else trajectories
    labels: dict[int, str] = {}
    used = set()
    for rank in [*ranks[[0]], *ranks[:0:-1]]:  # the worst before those in the middle
        near = order[np.argsort(abs(np.arange(len(order)) - rank), kind="stable")]
        free = [index for index in near.tolist() if groups[index] not in used]
        if free:
            used.add(groups[free[0]])
            part = float(rank) / max(len(order) - 1, 1)
            place = f", {places[free[0]]}" if places else ""
            labels[free[0]] = f"{names.get(part, f'rank {part:.0%}')}: sample {free[0]}{place}"
    chosen = sorted(labels, key=lambda index: errors[index])
    return chosen, [labels[index] for index in chosen]


def compared(
    name: str,
    truth: np.ndarray,
    prediction: np.ndarray,
    scale: tuple[str, float, float],
    heading: str = "error",
) -> list[Panel]:
    """Returns truth and prediction in the same colours, and the error under a heading."""
    error = prediction - truth
    return [
        (f"truth {name}", truth, scale),
        (f"prediction {name}", prediction, scale),
        (heading, error, colour_range(error, "error")),
    ]


def colour_range(field: np.ndarray, kind: str = "") -> tuple[str, float, float]:
    """Returns how to colour a field: ``signed``, ``unsigned`` or as told, and its limits.

    The limits of errors and of fields of both signs are symmetric about zero.
    """
    low, high = float(field.min()), float(field.max())
    if not kind:
        kind = "signed" if min(-low, high) > 0.1 * max(-low, high) else "unsigned"
    if kind == "unsigned":
        return kind, low, high
    size = max(abs(low), abs(high)) or 1.0
    return kind, -size, size


def middle_plane(fields: np.ndarray) -> np.ndarray:
    """Returns ``[N, C, x, y]`` as it is, of ``[N, C, x, y, z]`` the plane in the middle of z."""
    return _plane(fields, _planes(fields.shape[2:])[-1][0])


def _planes(grid: tuple[int, ...]) -> list[tuple[int | None, str]]:
    if len(grid) < 3:
        return [(None, "")]
    return [(axis, f"{AXES[axis]} = {n // 2}/{n}") for axis, n in enumerate(grid)]


def _plane(fields: np.ndarray, axis: int | None) -> np.ndarray:
    if axis is not None:
        fields = fields.take(fields.shape[axis + 2] // 2, axis=axis + 2)
    return np.ascontiguousarray(fields, dtype=np.float32)
