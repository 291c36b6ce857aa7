"""``evaluate``, ``predict``, ``compare`` and ``plot``: what runs have given."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multigrid.cli import (
    JSON,
    PLUGINS,
    add_reader,
    argument,
    command,
    file_path,
    flag,
    positive,
    print_json,
)
from multigrid.errors import UserError

if TYPE_CHECKING:
    from multigrid.data.formats import Inputs
    from multigrid.grid import Grid
    from multigrid.surrogate import TrainedSurrogate

FIGURES = ("png", "pdf", "svg")
ARRAYS = ("npy", "h5", "hdf5")

TRAINED = (
    PLUGINS,
    argument("run", type=file_path, help="folder of a run, or a file of a trained network"),
    argument("--batch-size", type=positive, default=32, metavar="N", help="samples at once (32)"),
    argument("--device", default="auto", choices=("auto", "cpu", "cuda")),
)
RUNS = (
    PLUGINS,
    argument("runs", nargs="+", type=file_path, metavar="run", help="folder of a run"),
)
OVERWRITE = flag("--overwrite", "replace a file that is there")


def _check_target(path: Path, endings: Sequence[str], overwrite: bool) -> None:
    """Checks that a file may be written."""
    if path.suffix[1:] not in endings:
        raise UserError(f"{path}: the name must end in .{', .'.join(endings)}")
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists already; use --overwrite to replace it")


@command(
    *TRAINED,
    argument("file", nargs="?", help="data file or URL; by default the run's test samples"),
    argument(
        "--split", choices=("train", "validation", "test"), help="of the run's samples (test)"
    ),
    argument("--samples", type=positive, metavar="N", help="only the first N samples"),
    argument(
        "--level", type=int, action="append", metavar="K", help="only this level; may be repeated"
    ),
    argument(
        "--worst", type=positive, default=5, metavar="N", help="number of worst samples shown (5)"
    ),
    JSON,
    add_reader,
    examples=(
        "results/poisson",
        "results/poisson --split validation --level 3 --json",
        "results/darcy 2D_DarcyFlow_beta1.0_Train.hdf5 --samples 100 --worst 10",
    ),
)
def evaluate(options: argparse.Namespace) -> None:
    """Measures a run on its test samples or on those of any file: per level and wavelength.

    The grid of the file is one of the ladder's or finer. The worst samples are listed, too.
    """
    from multigrid.config.data import ReaderOptions

    if options.file is not None and options.split is not None:
        raise UserError("--split: is for the run's samples; all samples of a file are used")
    given = [name for name in ReaderOptions.model_fields if getattr(options, name)]
    if options.file is None and given:
        name = given[0].replace("_", "-")
        raise UserError(f"--{name}: says how to read a data file, but none is given")
    from multigrid.surrogate import load

    surrogate = load(options.run, options.device)
    evaluation = surrogate.evaluate(
        options.file,
        split=options.split or "test",
        samples=options.samples,
        levels=options.level or (),
        batch_size=options.batch_size,
        options=ReaderOptions.of(vars(options)) if given else None,
    )
    if options.json:
        print_json({"run": str(options.run), **evaluation.to_json(options.worst)})
    else:
        print(evaluation.to_text(options.worst))


@command(
    *TRAINED,
    argument(
        "source",
        type=file_path,
        metavar="input",
        help="inputs [N, fields, *grid]: .npy, .npz or .h5",
    ),
    argument("target", type=file_path, metavar="output", help="file to write: .npy or .h5"),
    argument("--input", metavar="NAME", help="name of the input array, where a file holds several"),
    OVERWRITE,
    JSON,
    examples=(
        "results/poisson inputs.npy outputs.npy",
        "results/poisson measured.h5 predicted.h5 --input f --batch-size 64",
        "poisson.safetensors inputs.npz outputs.h5 --overwrite",
    ),
)
def predict(options: argparse.Namespace) -> None:
    """Applies a trained surrogate to all samples of a file, which may be larger than memory.

    The inputs are in physical units and on a grid of the ladder; so are the outputs.
    """
    _check_target(options.target, ARRAYS, options.overwrite)
    from tqdm import tqdm

    from multigrid.data.arrays import write_array
    from multigrid.surrogate import load

    surrogate = load(options.run, options.device)
    inputs, grid = _open_inputs(options, surrogate)
    names = surrogate.output_names
    shape = (inputs.shape[0], len(names), *grid.shape)
    batches = surrogate.stream(inputs, options.batch_size)
    with tqdm(total=len(inputs), unit="sample", disable=not sys.stderr.isatty()) as bar:
        write_array(options.target, shape, _finite(options.source, batches), bar.update, names)
    if options.json:
        print_json({"file": str(options.target), "shape": list(shape)})
    else:
        print(f"{options.target}: {', '.join(names)} {list(shape)}, float32")


def _open_inputs(
    options: argparse.Namespace, surrogate: "TrainedSurrogate"
) -> "tuple[Inputs, Grid]":
    """Returns the array of inputs, or those of a file that the run could train on."""
    from multigrid.data.formats import Inputs, open_array, open_fields

    try:
        inputs = open_array(options.source, options.input)
        return inputs, surrogate.grids[surrogate.level_of(inputs.shape)]
    except UserError as error:
        reason, place = str(error), str(options.source)
        if not reason.startswith(place):
            reason = f"{place}: {reason}"
    section = surrogate.config.files
    if section is None or options.input is not None or not options.source.exists():
        raise UserError(reason)
    try:
        file = open_fields(options.source, section, surrogate.config.data.time)
        inputs = Inputs.of(file)
        return inputs, surrogate.grids[surrogate.level_of(inputs.shape)]
    except UserError as error:
        raise UserError(f"{reason}; nor is it a file as the run was trained on: {error}") from None


def _finite(path: Path, batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the batches, and refuses NaN, which comes only from NaN or far too large inputs."""
    start = 0
    for batch in batches:
        bad = np.flatnonzero(~np.isfinite(batch).all(axis=tuple(range(1, batch.ndim))))
        if len(bad):
            raise UserError(
                f"{path}: the prediction of sample {start + bad[0]} is not finite, as its input "
                "is NaN, infinite or far too large"
            )
        start += len(batch)
        yield batch


@command(
    *RUNS,
    argument(
        "--baseline", metavar="NAME", help="what the speed-ups refer to, by default the first"
    ),
    argument(
        "--figure",
        type=file_path,
        metavar="FILE",
        help="figure to write: .png, .pdf or .svg; none by default",
    ),
    OVERWRITE,
    JSON,
    examples=(
        "results/poisson results/direct",
        "results/poisson_seed0 results/poisson_seed1 results/direct --baseline direct",
        "results/poisson results/direct --figure comparison.pdf --json",
    ),
)
def compare(options: argparse.Namespace) -> None:
    """Puts several runs into one table and, if that is wanted, one figure.

    Runs that differ in name and seed only are one method: its median and its spread are shown.
    """
    from multigrid.plots.style import save_figure
    from multigrid.report.comparison import compare

    if options.figure is not None:
        _check_target(options.figure, FIGURES, options.overwrite)
    comparison = compare(options.runs, options.baseline)
    if options.figure is not None:
        save_figure(comparison.figure(), options.figure)
    if options.json:
        print_json(comparison.to_json())
        return
    for note in comparison.notes:
        print(f"note: {note}", file=sys.stderr)
    print(comparison)
    if options.figure is not None:
        print(f"\nfigure: {options.figure}")


@command(
    *RUNS,
    argument(
        "--format",
        choices=FIGURES,
        action="append",
        help="png (the default), pdf or svg; may be given several times",
    ),
    argument(
        "--output", type=file_path, metavar="FOLDER", help="where to write, by default into the run"
    ),
    examples=(
        "results/poisson",
        "results/poisson --format pdf --format svg --output figures",
        "results/poisson results/darcy --output figures",
    ),
)
def plot(options: argparse.Namespace) -> None:
    """Draws the figures and the report of a run again, from the result files alone.

    They are convergence, ladder, predictions, roll-out and spectra; of an unfinished run, what is
    there so far.
    """
    from multigrid.report import write_report

    for path in options.runs:
        folder = options.output
        if folder is not None and len(options.runs) > 1:
            folder = folder / path.resolve().name
        print(*write_report(path, True, folder, options.format or ("png",)), sep="\n")
