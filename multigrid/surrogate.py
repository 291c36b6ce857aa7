"""A trained surrogate: fields in physical units in, fields in physical units out."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from multigrid.config import Config, parse_saved
from multigrid.errors import UserError
from multigrid.files import write_file
from multigrid.grid import Grid
from multigrid.hardware import choose_device, default_float32
from multigrid.input_grids import find_level, names_of
from multigrid.ladder.components import file_problem, network_family
from multigrid.models.custom_network import NetworkFactory
from multigrid.models.scaling import FieldScaling, Surrogate
from multigrid.models.transfer import load_strictly
from multigrid.problems import Problem
from multigrid.training.evaluation import predict
from multigrid.training.weight_files import SavedNetwork, read_network, save_weights

Fields = TypeVar("Fields", np.ndarray, Tensor)
OWN_NETWORK = (
    "; a network of your own is used from Python alone, with multigrid.load(path, network=...)"
)


def load(
    path: str | Path, device: str = "cpu", network: NetworkFactory | None = None
) -> "TrainedSurrogate":
    """Loads the networks of a run, finished or not.

    Args:
        path: Folder of a run, for the best surrogate of every level; or one file, a checkpoint
            (``.pt``) or what :meth:`TrainedSurrogate.save` or ``checkpoints.save`` wrote
            (``.safetensors``).
        device: ``cpu``, ``cuda`` or ``auto``.
        network: The factory of the networks, a grid to a module, if it was one of the user's own.

    Raises:
        UserError: If there is no such run, or a file is damaged or of another kind.

    Example:
        >>> surrogate = load("results/tiny")
        >>> print(surrogate)
        tiny: f -> u on 8x8, 16x16
        >>> surrogate(np.ones((2, 1, 16, 16))).shape
        (2, 1, 16, 16)
    """
    path, where = Path(path), choose_device(device)
    if path.is_dir():
        files = sorted(path.glob("level_*_*/best.pt"))
        if not files:
            raise UserError(f"{path}: holds no run, or one that has no checkpoint yet")
        return TrainedSurrogate([read_network(file) for file in files], where, network)
    return TrainedSurrogate([read_network(path)], where, network)


class TrainedSurrogate:
    """The trained networks of a ladder, each used on its own grid.

    Args:
        weights: The networks of some levels, of one and the same run.
        device: Where to compute.
        network: The factory of the networks, if it was one of the user's own.

    Attributes:
        config: Configuration of the run.
        problem: What was learned.
        device: Where it computes.
    """

    def __init__(
        self,
        weights: Sequence[SavedNetwork],
        device: torch.device,
        network: NetworkFactory | None = None,
    ) -> None:
        self.device = device
        self._network = network
        self._weights = {item.level: item for item in weights}
        finest = self._weights[max(self._weights)]
        self.config: Config = parse_saved(finest.about["config"], "saved configuration")
        names = finest.about["fields"]
        self.problem = _problem(self.config, tuple(names["input"]), tuple(names["output"]))
        self._levels = self.config.hierarchy().levels
        self._built: dict[int, Surrogate] = {}

    def __str__(self) -> str:
        inputs, outputs = ", ".join(self.input_names), ", ".join(self.output_names)
        return f"{self.config.name}: {inputs} -> {outputs} on {names_of(self.grids)}"

    @property
    def grids(self) -> dict[int, Grid]:
        """The grids it can be used on, by their level."""
        return {level: self._levels[level] for level in sorted(self._weights)}

    @property
    def finest(self) -> Grid:
        """The finest of its grids."""
        return self._levels[max(self._weights)]

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the input fields."""
        return self.problem.input_names

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the output fields."""
        return self.problem.output_names

    def __call__(self, inputs: Fields) -> Fields:
        """Maps input fields to output fields, all at once.

        Args:
            inputs: Physical fields ``[N, in, *grid]``, or ``[in, *grid]`` for one sample, on any
                grid of :attr:`grids`; a numpy array or a tensor. Computed in float32.

        Returns:
            Physical output fields ``[N, out, *grid]`` or ``[out, *grid]``, float32: an array for
            an array; for a tensor a tensor on its device, which gradients go through.

        Raises:
            UserError: If the shape does not fit; the sentence says what to do.
        """
        if isinstance(inputs, Tensor):
            return self._apply(inputs)
        with torch.no_grad():
            return self._apply(torch.from_numpy(_real(inputs))).numpy()

    def predict(self, inputs: Fields, batch_size: int = 32) -> Fields:
        """Maps input fields to output fields in batches, without gradients.

        Args:
            inputs: As for a call, ``[N, in, *grid]``; an array may be memory-mapped.
            batch_size: Samples at once, which bounds the memory.
        """
        level = self.level_of(inputs.shape)
        if isinstance(inputs, Tensor):
            surrogate = self.surrogate(level)
            outputs = predict(surrogate, inputs.float().to(self.device), batch_size)
            return outputs.to(inputs.device)
        return np.concatenate(list(self.stream(inputs, batch_size)))

    def stream(self, inputs: Any, batch_size: int = 32) -> Iterator[np.ndarray]:
        """Yields the outputs of batch after batch.

        Args:
            inputs: An array ``[N, in, *grid]`` or whatever can be sliced and is as large, such as
                a dataset of an HDF5 file.
            batch_size: Samples at once.
        """
        surrogate = self.surrogate(self.level_of(inputs.shape))
        for start in range(0, len(inputs), batch_size):
            batch = torch.from_numpy(_real(inputs[start : start + batch_size])).to(self.device)
            yield predict(surrogate, batch, batch_size).cpu().numpy()

    @default_float32()
    def surrogate(self, level: int | None = None) -> Surrogate:
        """Returns the ``torch.nn.Module`` of a level, the finest by default, for further training.

        Raises:
            UserError: If the level has not been trained.
        """
        level = max(self._weights) if level is None else level
        if level not in self._weights:
            raise UserError(f"level {level}: not there; trained are {names_of(self.grids)}")
        if level not in self._built:
            weights = self._weights[level]
            family = network_family(self.config, *self.problem.num_channels, self._network)
            network = family.build(level)
            load_strictly(weights.tensors, network, weights.path, OWN_NETWORK)
            scaling = FieldScaling.from_dict(dict(weights.about["scaling"]))
            grid = self._levels[level]
            built = Surrogate.of(network, scaling, self.problem, grid, self.device)
            self._built[level] = built.eval()
        return self._built[level]

    def save(self, path: str | Path) -> None:
        """Writes the finest network as ``.safetensors``, with all that :func:`load` needs.

        The tensors have the names of the network's parameters; configuration, names of the fields
        and scaling are in the metadata under ``multigrid``, as JSON.

        Raises:
            UserError: If the name has another ending, or the file cannot be written.
        """
        path = _require_suffix(path, ".safetensors")
        weights = self._weights[max(self._weights)]
        save_weights(path, weights.tensors, weights.about)

    def export(self, path: str | Path, level: int | None = None) -> None:
        """Writes a level's surrogate, scaling included, as a program of ``torch.export``.

        ``torch.export.load(path).module()(inputs)`` runs it without this package, for float32
        inputs ``[N, in, *grid]`` of any N.

        Raises:
            UserError: If the name does not end in ``.pt2``, or the file cannot be written.
        """
        path = _require_suffix(path, ".pt2")
        level = max(self._weights) if level is None else level
        surrogate = deepcopy(self.surrogate(level))
        for parameter in surrogate.parameters():  # torch.export stores plain layouts best
            parameter.data = parameter.data.contiguous()
        shape = (2, len(self.input_names), *self._levels[level].shape)
        example = torch.zeros(shape, device=self.device)
        with torch.no_grad():
            surrogate(example)  # so that constant tensors are made before the tracing
            program = torch.export.export(
                surrogate, (example,), dynamic_shapes=({0: torch.export.Dim("N")},)
            )
        content = BytesIO()
        torch.export.save(program, content)
        write_file(path, content.getvalue())

    def level_of(self, shape: Sequence[int]) -> int:
        """Returns the level whose grid a batch ``[N, in, *grid]`` is on.

        Raises:
            UserError: If there is none; the sentence says what to do.
        """
        return find_level(shape, self.grids, self.input_names)

    def _apply(self, inputs: Tensor) -> Tensor:
        single = inputs.ndim == self.finest.ndim + 1 and inputs.shape[0] == len(self.input_names)
        batch = inputs[None] if single else inputs
        surrogate = self.surrogate(self.level_of(batch.shape))
        outputs = surrogate(batch.float().to(self.device)).to(inputs.device)
        return outputs[0] if single else outputs


def _problem(config: Config, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Problem:
    if config.files is not None:
        return file_problem(config.files, inputs, outputs)
    return config.pde()


def _real(inputs: Any) -> np.ndarray:
    """Returns an array of float32 of its own."""
    array = np.asarray(inputs)
    if array.dtype.kind not in "fiub":
        raise UserError(f"the input holds {array.dtype}, but real numbers are needed")
    return np.array(array, dtype=np.float32)


def _require_suffix(path: str | Path, suffix: str) -> Path:
    path = Path(path)
    if path.suffix != suffix:
        raise UserError(f"{path}: the name must end in '{suffix}'")
    return path
