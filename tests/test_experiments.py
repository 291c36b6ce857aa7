"""Every shipped experiment runs, learns, and enters each level from the one below."""

from itertools import pairwise
from pathlib import Path

import pytest
from tiny import train

EXPERIMENTS = Path(__file__).parents[1] / "experiments"

COMMON = (
    "data.train=32",
    "data.validation=8",
    "data.test=8",
    "model.width=12",
    "schedule.epochs=[6,3]",
    "schedule.cycle=half-v",
    "schedule.batch_size=8",
    "schedule.learning_rate=1e-2",
    "compute.precision=float32",
)
CELLS, NODES = "levels=[8,16]", "levels=[9,17]"
OUT = "data.extra_tests.out_of_distribution"
FLOW = (
    "problem.resolution=32",
    "problem.num_starts=3",
    "problem.first_start=3",
    "problem.substeps=8",
    "data.rollout_steps=2",
)

# For each experiment a bound of its test error, two thirds of an untrained network's at most,
# and what makes the run small. For the flows of navier_stokes and navier_stokes_ten, for waves of
# kuramoto_sivashinsky, burgers and advection_diffusion it is below the error of persistence.
SMOKE: dict[str, tuple[float, tuple[str, ...]]] = {
    "cno/poisson": (
        0.5,
        (CELLS, "problem.num_modes=4", "data.extra_tests.out_of_distribution.num_modes=5"),
    ),
    "darcy": (0.25, (CELLS, "problem.num_modes=8")),
    "darcy_lognormal": (0.45, (NODES, "problem.num_modes=8")),
    "diffusion": (0.26, (NODES,)),
    "poisson": (0.3, (CELLS, "problem.num_modes=8", "schedule.epochs=[8,4]")),
    "poisson_two_phase": (0.25, (CELLS, "problem.num_modes=8")),
    "poisson_3d": (0.25, ("levels=[4,8]", "problem.num_modes=4")),
    "wave_3d": (0.5, ("levels=[4,8]", "problem.num_modes=2", "model.fields=restricted")),
    "advection_diffusion": (0.5, (CELLS, "problem.num_modes=2", "data.rollout_steps=2")),
    "reaction_diffusion": (0.35, (CELLS, "problem.num_modes=4", "data.rollout_steps=2")),
    "darcy_rough": (0.35, (CELLS, "problem.num_modes=16")),
    "cno/darcy": (0.25, (CELLS, "problem.num_modes=8")),
    "cno/wave": (0.5, (CELLS, "problem.num_modes=3", f"{OUT}={{num_modes: 4}}")),
    "cno/smooth_transport": (0.68, (CELLS,)),
    "cno/discontinuous_transport": (0.68, (CELLS,)),
    "cno/allen_cahn": (
        0.64,
        (CELLS, "problem.num_modes=4", "problem.resolution=32", f"{OUT}={{num_modes: 3}}"),
    ),
    "cno/shear_layer": (0.62, (CELLS, "problem.resolution=32", f"{OUT}={{thickness: 0.2}}")),
    "navier_stokes": (0.21, (CELLS, *FLOW)),
    "navier_stokes_ten": (
        0.5,
        (CELLS, "problem.resolution=32", "problem.substeps=16", "problem.num_states=3"),
    ),
    "kolmogorov": (0.5, (CELLS, *FLOW)),
    "kuramoto_sivashinsky": (
        0.57,
        (CELLS, *FLOW, "problem.extent=20", "problem.time_step=2", "problem.substeps=16"),
    ),
    "burgers": (
        0.5,
        (CELLS, "problem.resolution=32", "problem.time_step=0.3", "data.rollout_steps=2"),
    ),
    "burgers_3d": (0.6, ("levels=[4,8]", "problem.resolution=8", "problem.num_modes=1")),
    "gray_scott": (0.34, (CELLS, *FLOW, "schedule.epochs=[16,6]")),
}


# Pictures take longer than such a training; these two have slices and a roll-out.
DRAWN = ("poisson_3d", "reaction_diffusion")


def test_every_experiment_is_here() -> None:
    here = {*SMOKE, "poisson_to_darcy"}  # which test_transfer_runs.py does
    assert here == {
        path.relative_to(EXPERIMENTS).with_suffix("").as_posix()
        for folder in (EXPERIMENTS, EXPERIMENTS / "cno")
        for path in folder.glob("*.yaml")
    }


@pytest.mark.parametrize("name", SMOKE)
def test_experiment(name: str, tmp_path: Path) -> None:
    bound, overrides = SMOKE[name]
    experiment = EXPERIMENTS / f"{name}.yaml"
    summary = train(experiment, tmp_path, *COMMON, *overrides, pictures=name in DRAWN)
    assert summary["name"] == name.replace("/", "_")
    assert summary["test"]["rel_l2"] < bound
    assert summary["levels"][0]["rel_l2_at_start"] > 1.5 * bound
    for below, above in pairwise(summary["levels"]):
        floor = below["rel_l2"] + below["interpolation_error"]
        assert above["rel_l2_at_start"] <= 1.1 * floor
    further = [test["rel_l2"] for test in summary["extra_tests"].values()]
    assert all(0 < error < 1 for error in [*further, *summary["rollout"]])
    for picture in ("convergence.png", "predictions.png") * (name in DRAWN):
        assert (tmp_path / "results" / name / picture).read_bytes().startswith(b"\x89PNG")
