"""A trained surrogate: fields in physical units in, fields in physical units out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from multigrid.config import Config, parse_saved, read_saved
from multigrid.config.data import ReaderOptions
from multigrid.data.samples import Samples
from multigrid.data.time import TimeSetup
from multigrid.errors import UserError
from multigrid.files import nearest_file, path_of, write_file
from multigrid.grid import Grid, halvings_between
from multigrid.hardware import choose_device, default_float32
from multigrid.ladder.components import file_problem, network_family
from multigrid.measurement import (
    Evaluation,
    LevelNetwork,
    SampleStream,
    file_samples,
    measure,
    run_samples,
)
from multigrid.models.growth import NetworkFactory
from multigrid.models.layers import wraps
from multigrid.models.scaling import FieldScaling, Surrogate
from multigrid.models.transfer import load_strictly
from multigrid.problems import Problem
from multigrid.records.run_folder import runs_nearby
from multigrid.training.checkpoint import SavedNetwork, check_place, read_networks, save_weights
from multigrid.training.evaluation import measure_rollout, predict, roll_out
from multigrid.zoo import located

Fields = TypeVar("Fields", np.ndarray, Tensor)
NETWORK_HINT = (
    "; a network handed in from Python is used from Python alone, with "
    "multigrid.load(path, network=...); a registered one from the command line, too"
)


def load(
    path: str | Path, device: str = "cpu", network: NetworkFactory | None = None
) -> "TrainedSurrogate":
    """Loads the networks of a run, finished or not.

    Args:
        path: Folder of a run, for the best surrogate of every level; or one file, a checkpoint
            (``.pt``) or what :meth:`TrainedSurrogate.save` or ``checkpoints.save`` wrote
            (``.safetensors``); or ``zoo:<name>`` for one that comes with the package.
        device: ``cpu``, ``cuda`` or ``auto``.
        network: The factory of the networks, a grid to a module, if the user has given one.

    Raises:
        UserError: If there is no such run, or a file is damaged, of another kind or of another run
            or level than its folder.

    Example:
        >>> surrogate = load("results/tiny")
        >>> print(surrogate)
        tiny: f -> u on 8x8, 16x16
        >>> surrogate(np.ones((2, 1, 16, 16))).shape
        (2, 1, 16, 16)
    """
    path, place = located(path), choose_device(device)
    if not path.exists():
        near = nearest_file(path, "*/config.yaml", "*.safetensors", "*.pt")
        raise UserError(f"{path}: there is no such run or checkpoint{near}")
    if not path.is_dir():
        return TrainedSurrogate(read_networks(path), place, network)
    files = sorted(path.glob("level_*_*/best.pt"))
    if not files:
        raise UserError(
            f"{path}: holds no run, or one that has no checkpoint yet{runs_nearby(path)}"
        )
    saved = [saved for file in files for saved in read_networks(file)]
    surrogate = TrainedSurrogate(saved, place, network)
    file = path / "config.yaml"
    config = read_saved(file) if file.is_file() else surrogate.config
    for item in saved:
        check_place(item.path, item.about, config)
    return surrogate


class TrainedSurrogate:
    """The trained networks of a ladder.

    Each takes fields on the grid of its level, folded ones on that of the finest.

    Attributes:
        config: The configuration of the run.
        problem: What was learned, with ``input_names`` and ``output_names`` of its fields.
        grids: The grid of the fields that each level takes and returns; ``finest`` is the last.
        time: How states become inputs, if what is predicted can be rolled out; else None.
        device: Where it computes.
    """

    def __init__(
        self,
        weights: Sequence[SavedNetwork],
        device: torch.device,
        network: NetworkFactory | None = None,
    ) -> None:
        self.device = device
        self._weights = {item.level: item for item in weights}
        finest = self._weights[max(self._weights)]
        self.config: Config = parse_saved(finest.about["config"], f"{finest.path}: configuration")
        files, names = self.config.files, finest.about["fields"]
        fields = tuple(names["input"]), tuple(names["output"])
        self.problem: Problem = self.config.pde() if files is None else file_problem(files, *fields)
        self.input_names, self.output_names = self.problem.input_names, self.problem.output_names
        about = finest.about.get("time")
        self.time: TimeSetup | None = TimeSetup(**about) if about else None
        if self.time is None and self.problem.time_dependent:  # a run of an earlier version
            self.time = TimeSetup(len(self.output_names))
        levels = self.config.hierarchy().levels
        for item in weights:
            _check_about(item, levels, self.problem)
        self._family = network_family(self.config, *self.problem.num_channels, network)
        self.grids = {level: self._family.input_grid(level) for level in sorted(self._weights)}
        self.finest = self.grids[finest.level]
        self._built: dict[int, Surrogate] = {}

    def __str__(self) -> str:
        inputs, outputs = ", ".join(self.input_names), ", ".join(self.output_names)
        return f"{self.config.name}: {inputs} -> {outputs} on {_names_of(self.grids)}"

    def to(self, device: str | torch.device) -> Self:
        """Moves it to a device (``cpu``, ``cuda``, ``auto``) and returns it."""
        self.device = choose_device(device) if isinstance(device, str) else device
        for surrogate in self._built.values():
            surrogate.to(self.device)
        return self

    def __call__(self, inputs: Fields, level: int | None = None) -> Fields:
        """Maps input fields to output fields, all at once.

        Args:
            inputs: Physical fields ``[N, in, *grid]``, or ``[in, *grid]`` for one sample, on any
                grid of :attr:`grids`; a numpy array or a tensor. Computed in float32.
            level: The level whose network computes; by default the finest on the inputs' grid.
                Folded levels are all on the same grid; the coarser, the cheaper.

        Returns:
            Physical output fields ``[N, out, *grid]`` or ``[out, *grid]``, float32: an array for
            an array; for a tensor a tensor on its device, which gradients go through.

        Raises:
            UserError: If the shape does not fit; the sentence says what to do.
        """
        if not isinstance(inputs, Tensor):
            with torch.no_grad():
                return self(_real(inputs), level).numpy()
        single = inputs.ndim == self.finest.ndim + 1 and inputs.shape[0] == len(self.input_names)
        batch = inputs[None] if single else inputs
        surrogate = self.surrogate(self.level_of(batch.shape, level))
        outputs: Tensor = surrogate(batch.float().to(self.device)).to(inputs.device)
        return outputs[0] if single else outputs

    def predict(self, inputs: Fields, batch_size: int = 32, level: int | None = None) -> Fields:
        """Maps input fields ``[N, in, *grid]`` as a call does, in batches and without gradients.

        An array may be memory-mapped; ``batch_size`` samples at once bound the memory.
        """
        empty = np.empty((0, len(self.output_names), *inputs.shape[2:]), dtype=np.float32)
        outputs = np.concatenate([empty, *self.stream(inputs, batch_size, level)])
        if isinstance(inputs, Tensor):
            return torch.from_numpy(outputs).to(inputs.device)
        return outputs

    def stream(
        self, inputs: Any, batch_size: int = 32, level: int | None = None
    ) -> Iterator[np.ndarray]:
        """Yields the outputs of batch after batch, as arrays.

        ``inputs`` are a tensor or array ``[N, in, *grid]``, or whatever can be sliced and is as
        large, such as a dataset of an HDF5 file.
        """
        level = self.level_of(inputs.shape, level)
        for start in range(0, len(inputs), batch_size):
            batch = _real(inputs[start : start + batch_size])
            yield self._predicted(level, batch).cpu().numpy()

    def evaluate(
        self,
        data: str | Path | tuple[Any, Any] | None = None,
        *,
        split: Literal["train", "validation", "test"] = "test",
        samples: int | None = None,
        levels: Iterable[int] = (),
        batch_size: int = 32,
        options: ReaderOptions | None = None,
    ) -> Evaluation:
        """Measures the surrogate on samples; of its levels those whose grid the samples reach.

        Args:
            data: A file; a pair of arrays or tensors ``[N, in, *grid]`` and ``[N, out, *grid]``; or
                None for the run's samples.
            split: Which of the run's samples.
            samples: Only so many, the first.
            levels: Only these levels.
            batch_size: Samples at once.
            options: What has to be said about a file, by default what the run says.

        Raises:
            UserError: If the samples do not fit.

        Example:
            >>> surrogate = load("results/tiny")
            >>> x = np.random.default_rng(0).standard_normal((4, 1, 16, 16))
            >>> surrogate.evaluate((x, surrogate(x))).mean("rel_l2") < 1e-6
            True
        """
        stream = self._samples(data, split, samples, options)
        chosen = sorted(set(levels) or {k for k, g in self.grids.items() if stream.reaches(g)})
        if not chosen:
            raise UserError(
                f"{stream.place}: the samples are on {stream.grid}, which halves to none of the "
                f"run's grids {_names_of(self.grids)}"
            )
        grids, model = self.config.hierarchy().levels, self.config.model
        networks = {k: LevelNetwork(self.surrogate(k), grids[k], self.grids[k]) for k in chosen}
        prolongation = model.prolongation, wraps(model.padding)
        how = batch_size, prolongation, self.time
        errors = measure(networks, self.output_names, stream, *how)
        finest, rollout = networks[chosen[-1]], None
        if (true := stream.trajectories(finest.field_grid)) is not None:
            rolled, persistence = measure_rollout(finest.surrogate, true.to(self.device))
            rollout = rolled.to_json(persistence)
        notes = self._notes(data) if isinstance(data, str | Path) else ()
        measured = stream.place, stream.grid, len(stream.samples), errors, rollout
        return Evaluation(*measured, stream.places, notes)

    def _notes(self, data: str | Path) -> list[str]:
        """Returns what a reader must know of errors on a file."""
        notes, section = [], self.config.files
        entries = [] if section is None else section.entries()
        trained = [Path(entry.file) for entry in entries if entry.split in (None, "train")]
        if Path(data).resolve() in [path.resolve() for path in trained]:
            notes.append(
                "the run was trained on samples of this file; without a file, its test samples "
                "alone are measured"
            )
        if self.time is not None:
            notes.append("single steps; roll-outs are those of the run, measured without a file")
        return notes

    def _samples(
        self,
        data: str | Path | tuple[Any, Any] | None,
        split: str,
        count: int | None,
        options: ReaderOptions | None,
    ) -> SampleStream:
        if data is None:
            return run_samples(self.config, split, count)
        centering = self.finest.centering
        if isinstance(data, str | Path):
            from multigrid.data.formats import open_fields
            from multigrid.data.remote import local

            options = options or self.config.files or ReaderOptions()
            options = options.model_copy(update={"ndim": options.ndim or self.finest.ndim})
            file = open_fields(local(data), options, self.config.data.time)
            return file_samples(file, (self.input_names, self.output_names), centering, count)
        inputs, outputs = (_real(fields)[:count].detach().cpu() for fields in data)
        space = tuple(inputs.shape[2:])
        counts = len(self.input_names), len(self.output_names)
        wanted = [(len(inputs), fields, *space) for fields in counts]
        fits = [tuple(inputs.shape), tuple(outputs.shape)] == wanted
        if not fits or len(space) != self.finest.ndim or not len(inputs):
            raise UserError(
                f"the arrays have the shapes {list(inputs.shape)} and {list(outputs.shape)}, but "
                f"[N, {counts[0]}, *grid] and [N, {counts[1]}, *grid] are needed"
            )
        samples = Samples(inputs, outputs, Grid(space, centering))
        return SampleStream("the arrays", samples)

    def rollout(self, states: Fields, num_steps: int, parameters: Any = None) -> Fields:
        """Applies the surrogate to its outputs again and again.

        Args:
            states: States to start from, ``[N, C, *grid]``, C being the number of output fields;
                with a history of h states ``[N, h C, *grid]``, oldest first.
            num_steps: Number of steps.
            parameters: What stays as it is and follows the state among the input fields: numbers
                ``[N, P]`` or fields ``[N, P, *grid]``.

        Returns:
            The states after 1, 2, ... steps, ``[N, num_steps, C, *grid]`` in float32; an array for
            an array, a tensor for a tensor.

        Raises:
            UserError: If the surrogate does not map states to states, or a shape does not fit.
        """
        setup = self.time
        if setup is None:
            maps = f"{', '.join(self.input_names)} to {', '.join(self.output_names)}"
            raise UserError(
                f"rollout: the surrogate maps {maps}, which is no step in time; it was trained on "
                "pairs, not on trajectories or a problem that depends on time"
            )
        if num_steps < 1:
            raise UserError(f"rollout: num_steps is {num_steps}, but must be at least 1")
        first = _real(states)
        needed = setup.history * setup.num_channels
        if first.ndim > 1 and first.shape[1] != needed:
            times = f", {setup.history} states, oldest first" if setup.history > 1 else ""
            raise UserError(
                f"rollout: the states have {first.shape[1]} fields, but {needed} are needed: the "
                f"surrogate gives {', '.join(self.output_names)}{times}"
            )
        constants = _constants(parameters, first).to(self.device)
        inputs = torch.cat([first.to(self.device), constants], dim=1)
        level = self.level_of(inputs.shape)
        later = roll_out(lambda batch: self._predicted(level, batch), inputs, num_steps, setup)
        rolled = torch.stack(list(later), dim=1).to(first.device)
        return rolled if isinstance(states, Tensor) else rolled.numpy()

    @default_float32()
    def surrogate(self, level: int | None = None) -> Surrogate:
        """Returns the ``torch.nn.Module`` of a level, the finest by default, for further training.

        Raises:
            UserError: If the level has not been trained, or its weights do not fit.
        """
        level = max(self._weights) if level is None else level
        weights = self._of(level)
        if level not in self._built:
            network = self._family.build(level)
            load_strictly(weights.tensors, network, weights.path, NETWORK_HINT)
            scaling = FieldScaling.from_dict(dict(weights.about["scaling"]))
            about = network, scaling, self.problem, self.grids[level], self.device
            self._built[level] = Surrogate.of(*about).eval()
        return self._built[level]

    def save(self, path: str | Path, levels: Sequence[int] | None = None) -> None:
        """Writes networks, by default the finest, as ``.safetensors`` that :func:`load` takes.

        The tensors have the names of the network's parameters; configuration, names of the fields
        and scaling are in the metadata under ``multigrid``, as JSON. Names of several levels begin
        with ``level_<k>.``.

        Raises:
            UserError: If the name has another ending, there is no such level, or the file cannot be
                written.
        """
        path = _require_suffix(path, ".safetensors")
        if levels is None:
            finest = self._weights[max(self._weights)]
            save_weights(path, finest.tensors, finest.about)
            return
        chosen = {f"level_{level}": self._of(level) for level in sorted(set(levels))}
        about = {"levels": {key: dict(item.about) for key, item in chosen.items()}}
        tensors = {f"{k}.{name}": x for k in chosen for name, x in chosen[k].tensors.items()}
        save_weights(path, tensors, about)

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
        shape = (2, len(self.input_names), *self.grids[level].shape)
        example = torch.zeros(shape, device=self.device)
        with torch.no_grad():
            surrogate(example)  # so that constant tensors are made before the tracing
            any_number = {0: torch.export.Dim("N")}
            program = torch.export.export(surrogate, (example,), dynamic_shapes=(any_number,))
        content = BytesIO()
        torch.export.save(program, content)
        write_file(path, content.getvalue())

    def level_of(self, shape: Sequence[int], level: int | None = None) -> int:
        """Returns the finest level, or the one asked for, on a batch's grid, ``[N, in, *grid]``.

        Raises:
            UserError: If there is none; the sentence says what to do.
        """
        if level is not None:
            self._of(level)
        grids = self.grids if level is None else {level: self.grids[level]}
        finest, count = grids[max(grids)], len(self.input_names)
        wanted = f"[N, {count}, {', '.join('xyz'[: finest.ndim])}]"
        given = f"the input has the shape {list(shape)}, but"
        if len(shape) != finest.ndim + 2:
            lacks_fields = len(shape) == finest.ndim + 1 and count == 1
            hint = ": add an axis for the one input field, as in x[:, None]" * lacks_fields
            raise UserError(f"{given} {wanted} is needed{hint}")
        if shape[1] != count:
            names = ", ".join(self.input_names)
            raise UserError(f"the input has {shape[1]} fields, but {count} are needed: {names}")
        if min(shape[2:]) < 2:
            raise UserError(f"{given} every axis needs 2 points at least")
        for number, grid in reversed(grids.items()):  # folded levels all have the finest
            if grid.shape == tuple(shape[2:]):
                return number
        grid = Grid(tuple(shape[2:]), finest.centering)
        folded = self.config.model.fields == "folded"
        raise UserError(_what_to_do(grid, grids, sorted(self._weights) if folded else ()))

    def _of(self, level: int) -> SavedNetwork:
        if level not in self._weights:
            levels = self.config.hierarchy().levels
            trained = ", ".join(f"{k} ({levels[k]})" for k in sorted(self._weights))
            raise UserError(f"level {level}: not there; trained are {trained}")
        return self._weights[level]

    def _predicted(self, level: int, inputs: Tensor) -> Tensor:
        """Returns the outputs of a batch on the surrogate's device, without gradients."""
        batch = inputs.float().to(self.device)
        return predict(self.surrogate(level), batch, max(len(batch), 1))


def _check_about(saved: SavedNetwork, levels: Sequence[Grid], problem: Problem) -> None:
    """Checks that level, grid and fields of a network are those of its configuration."""
    level, shape, fields = saved.level, tuple(saved.about["grid"]), saved.about["fields"]
    counts = len(fields["input"]), len(fields["output"])
    there = 0 <= level < len(levels) and levels[level].shape == shape
    if not there or counts != problem.num_channels:
        raise UserError(
            f"{saved.path}: level {level} on {'x'.join(map(str, shape))} with {counts[0]} input "
            f"and {counts[1]} output fields does not fit the configuration that is saved with it"
        )


def _names_of(grids: Mapping[int, Grid]) -> str:
    return ", ".join(dict.fromkeys(str(grid) for grid in grids.values()))


def _what_to_do(grid: Grid, grids: Mapping[int, Grid], folded: Sequence[int]) -> str:
    """Returns what to do with fields on a grid of no level; ``folded`` are the folded levels."""
    names = _names_of(grids)
    if folded:
        known = f"folded levels all take and give fields on {names}"
        choice = " or ".join(map(str, folded))
        more = f"and choose a level by level={choice}, the coarser the cheaper"
    else:
        known, more = f"trained are {names}", f"or train with {grid} among the levels"
    text = f"the input is on a {grid} grid, but {known}"
    for trained in reversed(list(grids.values())):
        if halvings_between(trained, grid):
            how = "averages of 2 points" if grid.centering == "cell" else "every second point"
            return f"{text}; restrict it to {trained} ({how} along each axis, repeatedly)"
        if halvings_between(grid, trained):
            return f"{text}; give the input on {trained}, {more}"
    return f"{text}; resample it to one of these, or train on its grid"


def _constants(parameters: Any, states: Tensor) -> Tensor:
    """Returns what stays as it is in a roll-out as fields ``[N, P, *grid]``."""
    if parameters is None:
        return states.new_empty((len(states), 0, *states.shape[2:]), dtype=torch.float32)
    values = _real(parameters).to(states.device)
    if values.ndim == 2:
        values = values[(...,) + (None,) * (states.ndim - 2)]
    try:
        return values.expand(len(states), -1, *states.shape[2:])
    except RuntimeError:
        raise UserError(
            f"rollout: the parameters have the shape {list(values.shape)}, which does not fit "
            f"states of shape {list(states.shape)}; [N, P] or [N, P, *grid] is needed"
        ) from None


def _real(values: Any) -> Tensor:
    """Returns a float32 tensor of a tensor or of a copy of an array."""
    if isinstance(values, Tensor):
        return values.float()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise UserError(f"the input holds {array.dtype}, but real numbers are needed")
    return torch.from_numpy(np.array(array, dtype=np.float32))


def _require_suffix(path: str | Path, suffix: str) -> Path:
    path = path_of(path)
    if path.suffix != suffix:
        raise UserError(f"{path}: the name must end in '{suffix}'")
    return path
