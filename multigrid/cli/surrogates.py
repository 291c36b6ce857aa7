"""``multigrid evaluate`` and ``multigrid predict``: what a trained surrogate gives."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multigrid.cli.command import (
    Command,
    add_json,
    add_plugins,
    add_reader,
    file_path,
    positive,
    print_json,
)
from multigrid.errors import UserError

if TYPE_CHECKING:
    from multigrid.data.formats import Inputs
    from multigrid.grid import Grid
    from multigrid.surrogate import TrainedSurrogate


def add_trained(parser: argparse.ArgumentParser) -> None:
    """Adds what was trained, and how to apply it."""
    add_plugins(parser)
    parser.add_argument(
        "run", type=file_path, help="folder of a run, or a file of a trained network"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="samples at once (32)"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``evaluate``."""
    add_trained(parser)
    parser.add_argument(
        "file", nargs="?", help="data file or URL; by default the run's test samples"
    )
    parser.add_argument(
        "--split", choices=("train", "validation", "test"), help="of the run's samples (test)"
    )
    parser.add_argument("--samples", type=positive, metavar="N", help="only the first N samples")
    parser.add_argument(
        "--level", type=int, action="append", metavar="K", help="only this level; may be repeated"
    )
    parser.add_argument(
        "--worst", type=positive, default=5, metavar="N", help="number of worst samples shown (5)"
    )
    add_json(parser)
    add_reader(parser)


def evaluate(options: argparse.Namespace) -> None:
    """Measures every level and prints tables by level, by wavelength and of the worst samples."""
    if options.file is not None and options.split is not None:
        raise UserError("--split: is for the run's samples; all samples of a file are used")
    reader = argparse.ArgumentParser()
    add_reader(reader)
    defaults = vars(reader.parse_args([]))
    given = [name for name, value in defaults.items() if getattr(options, name) != value]
    if options.file is None and given:
        flag = given[0].replace("_", "-")
        raise UserError(f"--{flag}: says how to read a data file, but none is given")
    from multigrid.config.data import ReaderOptions
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


def add_prediction(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``predict``."""
    add_trained(parser)
    inputs = "inputs [N, fields, *grid]: .npy, .npz or .h5"
    parser.add_argument("source", type=file_path, metavar="input", help=inputs)
    parser.add_argument(
        "target", type=file_path, metavar="output", help="file to write: .npy or .h5"
    )
    parser.add_argument(
        "--input", metavar="NAME", help="name of the input array, where a file holds several"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output file")
    add_json(parser)


def predict(options: argparse.Namespace) -> None:
    """Reads, predicts and writes batch after batch, so that files may be larger than memory."""
    if options.target.suffix not in (".npy", ".h5", ".hdf5"):
        raise UserError(f"{options.target}: the name must end in .npy, .h5 or .hdf5")
    if options.target.exists() and not options.overwrite:
        raise UserError(f"{options.target}: exists already; use --overwrite to replace it")
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


EVALUATE = Command(
    "evaluate",
    "Measures a run on its test samples or on the samples of any file whose grid is one of "
    "the ladder's or finer: per level, per wavelength, and the worst samples.",
    (
        "results/poisson",
        "results/poisson --split validation --level 3 --json",
        "results/darcy 2D_DarcyFlow_beta1.0_Train.hdf5 --samples 100 --worst 10",
    ),
    add_evaluation,
    evaluate,
)

PREDICT = Command(
    "predict",
    "Applies a trained surrogate to all samples of a file. The inputs are in physical units and "
    "on a grid of the ladder; so are the outputs.",
    (
        "results/poisson inputs.npy outputs.npy",
        "results/poisson measured.h5 predicted.h5 --input f --batch-size 64",
        "poisson.safetensors inputs.npz outputs.h5 --overwrite",
    ),
    add_prediction,
    predict,
)
