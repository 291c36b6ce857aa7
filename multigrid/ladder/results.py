"""The results of a finished run: what ``summary.json`` says, and examples and spectra to draw."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from multigrid.data.samples import Samples
from multigrid.data.time import Trajectories
from multigrid.fields import prolong_to
from multigrid.hardware import code_version, machine, peak_memory
from multigrid.ladder.data import RunData
from multigrid.ladder.experiment import Experiment
from multigrid.ladder.state import RunState
from multigrid.metrics import mean_over_fields, mean_rel_l2, rel_l2_by_field
from multigrid.models.scaling import Surrogate
from multigrid.records.examples import Examples, RollOut, choose_samples, middle_plane
from multigrid.schedule import Stage
from multigrid.training.evaluation import Step, evaluate, measure_rollout, predict, roll_out

NUM_SPECTRA, NUM_STEPS = 64, 6


def test(
    experiment: Experiment, data: RunData, surrogate: Surrogate, stage: Stage
) -> tuple[dict[str, Any], Examples]:
    """Tests the best surrogate of a stage.

    Returns what ``summary.json`` says of that, and samples to show. ``baselines`` are guesses that
    every surrogate must beat.
    """
    grid, names = experiment.family.input_grid(stage.level), experiment.problem.output_names
    samples, fields = data.test.restrict_to(grid), data.scaling.fields
    more = experiment.extensions.metrics
    prediction = predict(surrogate, samples.inputs, stage.batch_size)
    errors = evaluate(prediction, samples, fields, names, more)
    extra, baselines = {}, {"test": baseline_errors(samples, data)}
    for name, others in data.extra_tests(grid).items():
        predicted = predict(surrogate, others.inputs, stage.batch_size)
        extra[name] = mean_over_fields(evaluate(predicted, others, fields, names, more))
        baselines[name] = baseline_errors(others, data)
    rollout: dict[str, Any] = {"rollout": []}
    num_steps = experiment.config.data.rollout_steps
    true = experiment.source.trajectories("test", grid, num_steps) if num_steps else None
    if true is not None:
        true = true.to(experiment.device)
        rolled, persistence = measure_rollout(surrogate, true)
        rollout = {
            "rollout": rolled.mean_nrmse(),
            "rollout_persistence": persistence.mean_nrmse(),
            "rollout_metrics": rolled.to_json(persistence),
        }
    results = {
        "test": mean_over_fields(errors),
        "test_by_field": errors,
        "extra_tests": extra,
        "baselines": baselines,
        **rollout,
    }
    return results, examples(experiment, surrogate, samples, prediction, true)


def baseline_errors(samples: Samples, data: RunData) -> dict[str, float]:
    """Returns the mean relative L2 errors of the mean training output, and of persistence."""
    guesses = {}
    if data.mean_output is not None:
        guesses["mean of the training outputs"] = data.mean_output.expand_as(samples.outputs)
    if (setup := data.experiment.source.time) is not None:
        guesses["persistence"] = setup.persistence(samples.inputs)
    fields = data.scaling.fields
    return {
        name: mean_rel_l2(guess.to(samples.outputs.device), samples.outputs, fields).mean().item()
        for name, guess in guesses.items()
    }


def summarise(experiment: Experiment, data: RunData, state: RunState) -> dict[str, Any]:
    """Returns what ``summary.json`` says of a finished run beside its test."""
    last = state.rows[-1]
    with_saving = last.seconds + last.evaluation_seconds + state.saving_seconds
    return {
        "name": experiment.config.name,
        "network": experiment.family.kind,
        "cycle": experiment.reasons.get("schedule.cycle", experiment.config.schedule.cycle),
        "fields": experiment.reasons.get("model.fields", experiment.config.model.fields),
        "handed_in": experiment.extensions.places,
        "levels": state.finished,
        "negligible_fields": {split: rows for split, rows in data.negligible.items() if rows},
        "seconds": last.seconds,
        "saving_seconds": state.saving_seconds,
        "saving_share": state.saving_seconds / with_saving,
        "work_units": last.work_units,
        "flops": last.flops,
        "evaluation_seconds": last.evaluation_seconds,
        "data_preparation_seconds": data.seconds,
        "data_seconds": sum(stage["data_seconds"] for stage in state.finished),
        "data_fingerprint": experiment.source.fingerprint,
        "device": str(experiment.device),
        "precision": experiment.precision,
        "processes": experiment.processes.size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "code": code_version(),
        "machine": machine(experiment.device),
        "peak_memory_bytes": peak_memory(experiment.device),
    }


def examples(
    experiment: Experiment,
    surrogate: Surrogate,
    samples: Samples,
    prediction: Tensor,
    true: Trajectories | None,
) -> Examples:
    """Returns test samples from the best to the worst, and a roll-out."""
    errors = rel_l2_by_field(prediction, samples.outputs, surrogate.scaling.fields)
    groups = experiment.source.groups("test", samples.grid, len(samples))
    count = experiment.config.output.num_predictions
    places = experiment.source.places("test", samples.grid, len(samples))
    indices, labels = choose_samples(errors.mean(1).cpu().numpy(), count, groups, places)
    inputs, truth, shown, rel_l2 = (
        values[indices].cpu().numpy()
        for values in (samples.inputs, samples.outputs, prediction, errors)
    )
    names = experiment.problem.input_names, experiment.problem.output_names
    rollout = None if true is None else _first_rollout(surrogate, true, names[0])
    return Examples.of(names, inputs, truth, shown, rel_l2, rollout, labels)


def _first_rollout(step: Step, true: Trajectories, input_names: Sequence[str]) -> RollOut:
    """Returns the first trajectory at a few steps, true and rolled out."""
    states = true.states[0]
    steps = np.unique(np.linspace(0, len(states) - 1, NUM_STEPS).round().astype(int))
    later = roll_out(step, true.inputs[:1], len(states) - 1, true.setup)
    rolled = torch.stack([states[0], *(state[0] for state in later)])
    truth, prediction = (middle_plane(part[steps].cpu().numpy()) for part in (states, rolled))
    start, constants = true.setup.history * true.setup.num_channels, []
    for name, field in zip(input_names[start:], true.inputs[0, start:], strict=True):
        if field.min() == field.max():  # a parameter
            constants.append(f"{name} = {field.min().item():.4g}")
    which = f"test trajectory {true.first}" + f" ({', '.join(constants)})" * bool(constants)
    return RollOut(steps, truth, prediction, which)


def spectra(
    experiment: Experiment, samples: Samples, surrogates: Mapping[int, Surrogate], batch_size: int
) -> dict[str, Any]:
    """Returns the truth and every level's error by wavelength, of samples on the finest grid."""
    finest, levels = samples[:NUM_SPECTRA], list[dict[str, Any]]()
    degree, periodic = experiment.prolongation
    for level, surrogate in surrogates.items():
        grid = experiment.family.input_grid(level)
        inputs = finest.restrict_to(grid).inputs
        prediction = predict(surrogate, inputs, batch_size)
        error = prolong_to(prediction, grid, finest.grid, degree, periodic) - finest.outputs
        values = spectrum(error.cpu().numpy(), periodic is True).tolist()
        shape = list(experiment.hierarchy.levels[level].shape)
        levels.append({"level": level, "grid": shape, "error": values})
    truth = spectrum(finest.outputs.cpu().numpy(), periodic is True).tolist()
    return {"unit": "half-waves across the box", "truth": truth, "levels": levels}


def spectrum(fields: np.ndarray, periodic: bool = False) -> np.ndarray:
    """Returns the root mean square of fields by their number of half-waves across the box.

    Fields ``[N, C, *grid]`` that do not wrap around are continued evenly (cosine transform of type
    2), so that their edges do not count as short waves; periodic ones are Fourier-transformed. A
    coefficient counts for the largest number of half-waves among its axes, which a grid of n points
    can carry up to n. By Parseval's identity the squares of all entries add up to the mean square
    of the fields. Entry j of the result ``[n]`` (``[n + 1]`` if periodic), n being the largest
    number of points along an axis, belongs to j half-waves.
    """
    axes = tuple(range(2, fields.ndim))
    shape = fields.shape[2:]
    values = np.asarray(fields, dtype=np.float64)
    if periodic:
        coefficients = np.abs(np.fft.fftn(values, axes=axes, norm="ortho"))
        counts = [2 * np.abs(np.fft.fftfreq(n, 1 / n)).round().astype(int) for n in shape]
    else:
        coefficients = fft.dctn(values, axes=axes, norm="ortho")
        counts = [np.arange(n) for n in shape]
    half_waves = np.max(np.meshgrid(*counts, indexing="ij"), axis=0)
    energy = np.square(coefficients).mean(axis=(0, 1))
    length = max(shape) + periodic
    total = np.bincount(half_waves.ravel(), energy.ravel(), minlength=length)
    return np.sqrt(total / np.prod(shape))
