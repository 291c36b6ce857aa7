"""``multigrid evaluate``: measures a run on its own samples or on any file."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multigrid.cli.arguments import (
    add_json,
    add_reader,
    add_trained,
    given_reader_arguments,
    positive,
)
from multigrid.cli.command import Command, print_json
from multigrid.errors import UserError
from multigrid.tables import table

if TYPE_CHECKING:
    from multigrid.measurement import Measurement, Scored
    from multigrid.surrogate import TrainedSurrogate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_trained(parser)
    parser.add_argument(
        "file", type=Path, nargs="?", help="data file; by default the run's own test samples"
    )
    parser.add_argument(
        "--split", choices=("train", "validation", "test"), help="of the run's own samples (test)"
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


def execute(options: argparse.Namespace) -> None:
    """Measures every level and prints tables by level, by wavelength and of the worst samples."""
    from multigrid.surrogate import load

    if options.file is not None and options.split is not None:
        raise UserError("--split: is for the run's own samples; of a file all are taken")
    if options.file is None and (given := given_reader_arguments(options)):
        raise UserError(f"{given[0]}: says how to read a data file, but none is given")
    surrogate = load(options.run, options.device)
    scored = _scored(options, surrogate)
    from multigrid.measurement import measure

    reached = [k for k, grid in surrogate.grids.items() if scored.reaches(grid)]
    levels = sorted(set(options.level or reached))
    if not levels:
        grids = ", ".join(map(str, surrogate.grids.values()))
        raise UserError(
            f"{scored.place}: the samples are on {scored.grid}, which halves to none of the run's "
            f"grids {grids}"
        )
    found = measure(surrogate, scored, levels, options.batch_size)
    if options.json:
        print_json(
            {
                "run": str(options.run),
                "data": scored.place,
                "grid": list(scored.grid.shape),
                "samples": scored.count,
                "levels": [item.to_json() for item in found],
                "worst": _worst(found[-1], options.worst),
            }
        )
    else:
        print(_text(scored, found, options.worst))


def _scored(options: argparse.Namespace, surrogate: "TrainedSurrogate") -> "Scored":
    from multigrid.measurement import file_samples, own_samples

    if options.file is None:
        return own_samples(surrogate, options.split or "test", options.samples)
    from multigrid.data.formats import ReaderOptions, open_fields

    said = ReaderOptions.of(options)
    said = replace(said, ndim=said.ndim or surrogate.finest.ndim)
    file = open_fields(options.file, options.reader, said)
    return file_samples(surrogate, file, options.samples)


def _text(scored: "Scored", found: "list[Measurement]", num_worst: int) -> str:
    rows = [
        [
            str(item.level),
            str(item.grid),
            *(f"{item.mean(name):.4g}" for name in ("rel_l2", "rel_l1", "rel_h1", "rmse")),
            f"{item.errors['rel_l2'].median():.4g}",
            f"{item.errors['rel_l2'].max():.4g}",
            f"{item.mean('on_data_grid'):.4g}",
        ]
        for item in found
    ]
    header = ["Level", "Grid", "rel_l2", "rel_l1", "rel_h1", "rmse", "Median", "Worst"]
    by_level = table([*header, f"On {scored.grid}"], rows)
    bands = [
        [str(item.level), str(item.grid)]
        + [f"{item.mean(f'rel_l2_{band}'):.4g}" for band in ("low", "mid", "high")]
        for item in found
    ]
    by_band = table(["Level", "Grid", "Low third", "Mid", "High"], bands)
    worst = [[str(w["sample"]), f"{w['rel_l2']:.4g}"] for w in _worst(found[-1], num_worst)]
    return "\n".join(
        [
            f"{scored.place}: {scored.count} samples on {scored.grid}",
            "",
            "errors on each level's own grid (rel_l2: mean, median, worst), and of its prediction "
            "prolonged to the samples' grid",
            by_level,
            "",
            "relative L2 error by wavelength, in thirds up to the grid's limit",
            by_band,
            "",
            f"worst samples on {found[-1].grid}",
            table(["Sample", "rel_l2"], worst),
        ]
    )


def _worst(measured: "Measurement", count: int) -> list[dict[str, Any]]:
    errors = measured.errors["rel_l2"]
    order = errors.argsort(descending=True)[:count].tolist()
    return [{"sample": index, "rel_l2": errors[index].item()} for index in order]


COMMAND = Command(
    "evaluate",
    "Measures a run on its own test samples or on the samples of any file whose grid is one of "
    "the ladder's or finer: per level, per wavelength, and the worst samples.",
    (
        "results/poisson",
        "results/poisson --split validation --level 3 --json",
        "results/darcy 2D_DarcyFlow_beta1.0_Train.hdf5 --samples 100 --worst 10",
    ),
    add_arguments,
    execute,
)
