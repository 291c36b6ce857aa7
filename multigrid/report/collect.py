"""What the pictures need, taken from a finished run and written beside its other results."""

import numpy as np
from torch import Tensor

from multigrid.fields import prolong_to
from multigrid.files import write_json
from multigrid.ladder.ladder import LadderRun
from multigrid.records.examples import Examples, RollOut, middle_plane
from multigrid.spectrum import spectrum
from multigrid.training.evaluation import predict, roll_out

NUM_SAMPLES = 64
NUM_STEPS = 6


def collect(run: LadderRun) -> None:
    """Writes ``predictions.npz`` and ``spectra.json`` of a run that has been tested."""
    problem, result = run.experiment.problem, run.test_results
    count = run.experiment.config.output.num_predictions
    inputs, truth, prediction = (
        fields[:count].cpu().numpy()
        for fields in (result.samples.inputs, result.samples.outputs, result.prediction)
    )
    names = problem.input_names, problem.output_names
    Examples.of(names, inputs, truth, prediction, _roll_out(run)).write(run.folder.examples)
    write_json(run.folder.spectra, _spectra(run))


def _roll_out(run: LadderRun) -> RollOut | None:
    """Returns the first trajectory at a few steps."""
    states = run.test_results.states
    if states is None:
        return None
    num_steps = states.shape[1] - 1
    steps = np.unique(np.linspace(0, num_steps, NUM_STEPS).round().astype(int))
    surrogate = run.best_surrogate(run.experiment.stages[-1].level)
    guesses = enumerate(roll_out(surrogate, states[:1, 0], num_steps), start=1)
    kept = [states[0, 0], *(guess[0] for step, guess in guesses if step in steps)]
    return RollOut(steps, _planes([states[0, step] for step in steps]), _planes(kept))


def _planes(states: list[Tensor]) -> np.ndarray:
    return middle_plane(np.stack([state.cpu().numpy() for state in states]))


def _spectra(run: LadderRun) -> dict[str, object]:
    """Returns the spectra of the truth and of every level's error, on the finest grid."""
    experiment = run.experiment
    finest, periodic = run.data.test[:NUM_SAMPLES], experiment.periodic
    degree = experiment.config.model.prolongation
    levels = []
    for level in sorted({stage["level"] for stage in run.recorder.finished}):
        grid = experiment.hierarchy.levels[level]
        inputs = finest.restrict_to(grid).inputs
        guess = predict(run.best_surrogate(level), inputs, experiment.stages[-1].batch_size)
        guess = prolong_to(guess, grid, finest.grid, degree, periodic)
        error = (guess - finest.outputs).cpu().numpy()
        found = spectrum(error, periodic).tolist()
        levels.append({"level": level, "grid": list(grid.shape), "error": found})
    truth = spectrum(finest.outputs.cpu().numpy(), periodic).tolist()
    return {"unit": "half-waves across the box", "truth": truth, "levels": levels}
