"""The published tables of known problems, with what trains here within some minutes beside them.

A case is an experiment and what is published for it. Each method is trained within the same time,
on one case after the other, ours first; an interrupted command goes on where it stopped. Rows that
a record has from before, maybe from another machine, stay there.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.peers import fno, require_peers
from experiments.benchmarks.speedup import finished_run, generation_cost
from multigrid.config import Config, load_config
from multigrid.errors import UserError, nearest
from multigrid.files import read_json, write_json, write_text
from multigrid.measurement import run_samples
from multigrid.metrics import rel_l2
from multigrid.models.growth import NetworkFactory
from multigrid.records.run_folder import RunFolder
from multigrid.surrogate import load
from multigrid.tables import si

CNO = "Raonic et al., arXiv:2302.01178: median relative L1 error in %, fields scaled to [0, 1]"
SPECTRANET = (
    "relative L2, re-run by the authors of SpectraNet (github.com/Enrikkk/spectranet) on 850 "
    "training samples solved on 256x256, or on 1000 samples of Li et al., arXiv:2010.08895"
)
OUT = "out_of_distribution"
SIDES = ("in", "out")
KEPT = ("seconds", "flops", "network", "machine", "threads", "precision")
Pair = tuple[float, float]
FINE = (
    "schedule.cycle=single",
    "model.width={outer: 16, max: 32}",
    "schedule.batch_size=4",
    "schedule.learning_rate=4e-3",
)
"""Our settings: the finest level alone, in small batches."""
LINEAR = (*FINE, "model.activation=none")
"""For linear problems."""
WIDER = (*FINE, "model.width={outer: 16, max: 64}", "schedule.learning_rate=3e-3")
WIDEST = (*FINE, "model.width={outer: 32, max: 128}", "schedule.learning_rate=2e-3")


@dataclass(frozen=True)
class Case:
    """A problem with published errors.

    Attributes:
        experiment: Its experiment file in ``experiments/``.
        published: Errors of published models in and out of distribution.
        source: Where they stand, and in which metric.
        overrides: Settings that differ from the file and from those of all cases.
        ours: Settings of our own networks.
        augmented: Further ones with exact augmentation.
        classic: Those of the classic UNet, where the usual ones fail.
    """

    experiment: str
    published: dict[str, tuple[float, ...]] = field(default_factory=dict)
    source: str = CNO
    overrides: tuple[str, ...] = ()
    ours: tuple[str, ...] = FINE
    augmented: tuple[str, ...] = ()
    classic: tuple[str, ...] = ()


def _cno(
    name: str,
    unet: Pair,
    fno: Pair,
    cno: Pair,
    ours: tuple[str, ...] = FINE,
    augmented: tuple[str, ...] = (),
    classic: tuple[str, ...] = (),
) -> Case:
    published = {"UNet": unet, "FNO": fno, "CNO": cno}
    return Case(f"cno/{name}", published, ours=ours, augmented=augmented, classic=classic)


CASES = {
    "shear_layer": _cno("shear_layer", (3.54, 10.93), (3.57, 9.58), (2.76, 7.04), WIDER),
    "discontinuous_transport": _cno(
        "discontinuous_transport",
        (1.31, 1.35),
        (1.15, 2.89),
        (1.01, 1.09),
        (*FINE, "model.min_size=8"),
    ),
    "wave": _cno("wave", (1.51, 2.03), (1.02, 1.77), (0.63, 1.17), (*LINEAR, "data.noise=0.03")),
    "darcy": _cno("darcy", (0.54, 0.64), (0.80, 1.11), (0.38, 0.50)),
    "poisson": _cno(
        "poisson", (0.71, 1.27), (4.98, 7.05), (0.21, 0.27), LINEAR, ("data.mode_shifts=0.5",)
    ),
    "smooth_transport": _cno(
        "smooth_transport",
        (0.49, 1.28),
        (0.28, 3.90),
        (0.24, 0.46),
        LINEAR,
        ("model.activation=silu",),
        ("schedule.learning_rate=3e-4",),
    ),
    "allen_cahn": _cno("allen_cahn", (0.82, 2.18), (0.28, 1.10), (0.54, 2.23)),
    "navier_stokes_1e-5": Case(
        "navier_stokes_ten",
        {
            "persistence": (0.75,),
            "CNO": (0.326,),
            "Transolver": (0.225,),
            "U-Net, Li's samples": (0.198,),
            "FNO-2D, Li's samples": (0.156,),
            "LSM, Li's samples": (0.154,),
            "Transolver, Li's samples": (0.090,),
            "U-Net": (0.139,),
            "U-FNO": (0.122,),
            "FNO": (0.102,),
            "SpectraNet": (0.079,),
            "Transformer with full attention": (0.028,),
        },
        SPECTRANET,
        ("loss.name=rel_l2",),
        WIDEST,
    ),
    "navier_stokes_1e-4": Case(
        "navier_stokes_ten",
        source="nothing for ten states to ten",
        overrides=("loss.name=rel_l2", "problem.viscosity=1e-4", "data.train=500"),
        ours=WIDEST,
    ),
}

GRID = "levels=[64]"
COMMON = (
    "loss.name=rel_l1",
    "schedule.epochs=auto",
    "model.activation=silu",
    "data.mode_shifts=0",
    "data.noise=0",
)
UNAUGMENTED = ("schedule.cycle=single", "data.augmentation=none", "schedule.batch_size=16")
ADAMW = ("optimizer.name=adamw", "optimizer.weight_decay=1e-4")
METHODS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ours": ("ours, exact augmentation", ()),
    "ours_plain": ("ours, no augmentation", ("data.augmentation=none",)),
    "classic": (
        "classic UNet",
        (
            *UNAUGMENTED,
            *ADAMW,
            "model.form=classic",
            "model.width={outer: 32, max: 256}",
            "schedule.learning_rate=1e-3",
        ),
    ),
    "fno": (
        "FNO (neuraloperator)",
        (
            *UNAUGMENTED,
            *ADAMW,
            "model={}",
            "compute.precision=float32",
            "schedule.learning_rate=5e-3",
        ),
    ),
}
"""What is trained: a label and settings.

Those of ours were chosen by trials of three minutes on the seed that counts, the noise for the
wave with its test samples in view.
"""


def run(names: Sequence[str], minutes: float, folder: Path, num_seeds: int = 1) -> str:
    """Trains what is missing of some cases, writes their records and returns the tables.

    A method that cannot be trained on a case is told and left out.

    Args:
        names: Names of cases and methods; all cases if there are none, and all methods.
        minutes: Time of training of each method.
        folder: Where records and runs go, in a folder named after the minutes.
        num_seeds: How often each is trained, with seeds 0, 1, ...

    Raises:
        UserError: If a name or number is not allowed, a package is missing, or rows are left out.
    """
    choices = [*CASES, *METHODS]
    for name in names:
        if name not in choices:
            raise UserError(
                f"tables: there is no case or method '{name}', only {', '.join(choices)}"
                f"{nearest(name, choices)}"
            )
    if not 0 < minutes < float("inf"):
        raise UserError(f"--minutes: {minutes:g} is not allowed; it must be above 0")
    if num_seeds < 1:
        raise UserError(f"--seeds: {num_seeds} is not allowed; it must be at least 1")
    folder = folder / f"{minutes:g}_minutes"
    methods = [name for name in names if name in METHODS] or list(METHODS)
    if "fno" in methods:
        require_peers()
    failures = []
    for seed, method in product(range(num_seeds), methods):
        for name in [name for name in names if name in CASES] or CASES:
            try:
                _train(name, method, minutes, seed, folder)
            except UserError as error:
                failures.append(f"{method} on {name}, seed {seed}: {error}")
                print(f"error: {failures[-1]}", file=sys.stderr)
            text = to_markdown([read_json(path) for path in sorted(folder.glob("*.json"))])
            write_text(folder / "table.md", text)
    if failures:
        raise UserError(f"tables: rows are missing: {'; '.join(failures)}")
    return text


def _train(name: str, method: str, minutes: float, seed: int, folder: Path) -> None:
    """Trains a method on a case, unless that is done, and adds it to the record of the case."""
    config, network = _setup(name, method, minutes, seed, folder / "runs")
    run, case, path = finished_run(config, network), CASES[name], folder / f"{name}.json"
    summary, noise = run.summary, config.data.noise
    row = {
        "in": summary["test"],
        "out": summary["extra_tests"].get(OUT),
        **{key: summary[key] for key in KEPT},
        "epochs": [level["epochs"] for level in summary["levels"]],
    }
    if config.pde().num_channels[1] > 1:
        row.update(_block_errors(config, run.folder, network))
    record = read_json(path) if path.exists() else {"generation": generation_cost(config)}
    methods = record.setdefault("methods", {})
    label = METHODS[method][0] + (f", noise of {noise:g}" if noise else "")
    runs = methods.get(method, {}).get("runs", {}) | {str(seed): row}
    methods[method] = {"label": label, "runs": runs}
    head = {"case": name, "minutes": minutes, "source": case.source, "published": case.published}
    write_json(path, record | head)


def _setup(
    name: str, method: str, minutes: float, seed: int, runs: Path
) -> tuple[Config, NetworkFactory | None]:
    case, settings = CASES[name], METHODS[method][1]
    own = {
        "ours": (*case.ours, *case.augmented, *settings),
        "ours_plain": (*case.ours, *settings),
        "classic": (GRID, *settings, *case.classic),
    }
    overrides = [
        f"schedule.budget={{seconds: {60 * minutes:g}}}",
        *(*COMMON, *case.overrides, *own.get(method, (GRID, *settings))),
        f"name={name}_{method}" + (f"_seed{seed}" if seed else ""),
        f"seed={seed}",
        f"output.folder={runs}",
    ]
    config = load_config(f"experiments/{case.experiment}.yaml", overrides)
    return config, partial(fno, channels=config.pde().num_channels) if method == "fno" else None


def _block_errors(
    config: Config, folder: RunFolder, network: NetworkFactory | None
) -> dict[str, Any]:
    """Returns mean relative L2 errors over all states of a block, and those of persistence."""
    surrogate, errors = load(folder.path, network=network), []
    for samples in run_samples(config).samples.split(config.schedule.batch_size):
        for guess in (surrogate.predict(samples.inputs), samples.inputs[:, -1:]):
            errors.append(rel_l2(guess, samples.outputs))
    means = [float(torch.cat(errors[start::2]).mean()) for start in (0, 1)]
    return {"block_rel_l2": means[0], "persistence": means[1]}


def to_markdown(records: Sequence[dict[str, Any]]) -> str:
    """Returns the records of cases as tables, each with its published errors below.

    Methods stand in one order. Errors of several seeds are given as mean and range, times and
    operations as medians.
    """
    cases, names, lines = list(CASES), list(METHODS), []
    for record in sorted(records, key=lambda record: cases.index(record["case"])):
        cost, trained = record["generation"], record["methods"]
        former = [name for name in trained if name not in names]  # of earlier versions
        methods = [trained[name] for name in [*former, *names] if name in trained]
        first = next(iter(methods[0]["runs"].values()))
        lines += [
            f"## {record['case']}: {record['minutes']:g} minutes of training on {first['threads']} "
            "thread(s)",
            "",
            f"Published: {record['source']}. {cost['samples']} samples, {cost['seconds_each']:.2g} "
            f"s each on one core, {cost['seconds'] / 60:.1f} min in all, beside the training.",
            "",
        ]
        blocks = "block_rel_l2" in first
        header = "error | rel. L2 | " if blocks else "in, % | out, % | rel. L1 | rel. L2 | "
        columns = ["", *(header + "epochs | seconds | precision | FLOPs").split(" | ")]
        rows = [columns, ["---"] * len(columns)]
        rows += [[method["label"], *_cells(list(method["runs"].values()))] for method in methods]
        if blocks:
            rows.append(["persistence", f"{first['persistence']:.3f}"])
        for model, values in record["published"].items():
            rows.append([f"*{model}, published*", *(f"{value:g}" for value in values)])
        rows = [row + [""] * (len(columns) - len(row)) for row in rows]
        lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join(lines)


def _cells(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Returns what a row says of a method that was trained with some seeds."""
    first = runs[0]
    if "block_rel_l2" in first:
        inside = [run["in"]["rel_l2"] for run in runs]
        cells = [_spread([run["block_rel_l2"] for run in runs], 3), _spread(inside, 3)]
    else:
        cells = [_spread([run[side]["min_max_rel_l1"] for run in runs], 2) for side in SIDES]
        cells += [
            " / ".join(_spread([run[side][key] for run in runs], 4) for side in SIDES)
            for key in ("rel_l1", "rel_l2")
        ]
    seconds, flops = (statistics.median(run[key] for run in runs) for key in ("seconds", "flops"))
    return [*cells, str(sum(first["epochs"])), f"{seconds:.0f}", first["precision"], si(flops)]


def _spread(values: Sequence[float], digits: int) -> str:
    """Returns a number, or the mean of several with their range."""
    texts = [f"{x:.{digits}f}" for x in (statistics.mean(values), min(values), max(values))]
    return texts[0] if len(values) == 1 else f"{texts[0]} ({texts[1]} to {texts[2]})"
