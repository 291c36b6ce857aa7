"""``multigrid predict``: applies a trained surrogate to a file, batch by batch."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multigrid.cli.arguments import add_json, add_trained
from multigrid.cli.command import Command, print_json
from multigrid.errors import UserError

if TYPE_CHECKING:
    from multigrid.data.arrays import Inputs
    from multigrid.grid import Grid
    from multigrid.surrogate import TrainedSurrogate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_trained(parser)
    parser.add_argument(
        "source", type=Path, metavar="input", help="inputs [N, fields, *grid]: .npy, .npz or .h5"
    )
    parser.add_argument("target", type=Path, metavar="output", help="file to write: .npy or .h5")
    parser.add_argument(
        "--input",
        metavar="NAME",
        help="name of the input array; needed if a file holds several arrays",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output file")
    add_json(parser)


def execute(options: argparse.Namespace) -> None:
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
    from multigrid.data.arrays import FileInputs, open_array
    from multigrid.data.formats import ReaderOptions, open_fields

    try:
        inputs: Inputs = open_array(options.source, options.input)
        return inputs, surrogate.grids[surrogate.level_of(inputs.shape)]
    except UserError as error:
        section = surrogate.config.files
        if section is None or options.input is not None or not options.source.exists():
            raise UserError(_about(options.source, error)) from None
        first = error
    try:
        reading = ReaderOptions.of(section, surrogate.config.data.time)
        inputs = FileInputs(open_fields(options.source, section.reader, reading))
        return inputs, surrogate.grids[surrogate.level_of(inputs.shape)]
    except UserError as error:
        raise UserError(
            f"{_about(options.source, first)}; nor is it a file as the run was trained on: {error}"
        ) from None


def _about(path: Path, error: UserError) -> str:
    return str(error) if str(error).startswith(str(path)) else f"{path}: {error}"


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


COMMAND = Command(
    "predict",
    "Applies a trained surrogate to all samples of a file. The inputs are in physical units and "
    "on a grid of the ladder; so are the outputs.",
    (
        "results/poisson inputs.npy outputs.npy",
        "results/poisson measured.h5 predicted.h5 --input f --batch-size 64",
        "poisson.safetensors inputs.npz outputs.h5 --overwrite",
    ),
    add_arguments,
    execute,
)
