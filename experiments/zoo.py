"""Trains the surrogates of ``multigrid/zoo`` and writes each with its card.

``python -m experiments.zoo poisson darcy`` trains these, without names all. An interrupted training
goes on where it stopped; one that is done is only written again. To add one, add a line below.
"""

import inspect
import sys

import multigrid
from multigrid.files import write_text
from multigrid.report.record import RunRecord
from multigrid.zoo import FOLDER

SMALL = ("output.folder=results/zoo", "output.figures=false", "model.width=24",
         "data.train=512", "data.validation=32", "data.test=64", "schedule.batch_size=16",
         "schedule.learning_rate=[8.0e-3,4.0e-3,2.0e-3]")  # fmt: skip
CELLS, NODES, STEP = "levels=[16,32,64]", "levels=[17,33,65]", "data.rollout_steps=0"
RESTRICTED = "schedule.epochs=[30,8,2]"
FOLDED = "schedule.cycle=half-v", "model.fields=folded", "schedule.epochs=[50,6,1]"
NEAR = (  # outputs depend on what is near alone
    "schedule.cycle=single",
    "model.width={outer: 8, max: 32}",
    "schedule.epochs=20",
    "schedule.batch_size=4",
    "schedule.learning_rate=3.0e-3",
)
LINEAR = *NEAR, "model.activation=none"
SURROGATES = {
    "poisson": ("poisson", CELLS, RESTRICTED, "problem.num_modes=16", "problem.smoothness=2.0"),
    "darcy": ("darcy", CELLS, RESTRICTED),
    "darcy_lognormal": ("darcy_lognormal", NODES, RESTRICTED),
    "diffusion": ("diffusion", NODES, RESTRICTED),
    "reaction_diffusion": ("reaction_diffusion", CELLS, RESTRICTED, STEP),
    "burgers": ("burgers", CELLS, *NEAR, STEP),
    "gray_scott": ("gray_scott", CELLS, *NEAR, STEP),
    "wave": ("cno/wave", CELLS, *LINEAR),
    "smooth_transport": ("cno/smooth_transport", CELLS, *FOLDED),
    "discontinuous_transport": ("cno/discontinuous_transport", CELLS, *NEAR),
    "allen_cahn": ("cno/allen_cahn", CELLS, *NEAR),
    "advection_diffusion": ("advection_diffusion", CELLS, *FOLDED, STEP),
    "kolmogorov": ("kolmogorov", CELLS, *NEAR, STEP),
    "navier_stokes": ("navier_stokes", CELLS, *NEAR, STEP),
    "kuramoto_sivashinsky": ("kuramoto_sivashinsky", CELLS, *NEAR, STEP),
    "poisson_two_phase": ("poisson_two_phase", CELLS, RESTRICTED),
    "cno_poisson": ("cno/poisson", CELLS, *LINEAR),
    "darcy_rough": ("darcy_rough", CELLS, *FOLDED),
}  # fmt: skip


def write(name: str) -> None:
    """Trains a surrogate and writes its weights, on the finest grid, and its card."""
    file, *settings = SURROGATES[name]
    experiment, overrides = f"experiments/{file}.yaml", (*SMALL, *settings, f"name={name}")
    surrogate = multigrid.train(experiment, *overrides, resume=True)
    surrogate.save(FOLDER / f"{name}.safetensors")
    write_text(FOLDER / f"{name}.md", card(name, surrogate, experiment))


def card(name: str, surrogate: multigrid.TrainedSurrogate, experiment: str) -> str:
    """Returns what a surrogate is, how it was trained and how good it is, as Markdown."""
    config, summary = surrogate.config, RunRecord.open(f"results/zoo/{name}").summary
    settings = ", ".join(f"{k} {v}" for k, v in config.problem.model_dump().items() if k != "kind")
    equation, _, _ = (inspect.getdoc(type(config.pde())) or "").partition("\n")
    errors = surrogate.evaluate().to_text().partition("\n\nworst samples")[0]
    width = config.model.model_dump()["width"]
    linear = " linear," if config.model.activation == "none" else ""
    size = (FOLDER / f"{name}.safetensors").stat().st_size
    return f"""## {name}

- Problem: {equation} `{config.problem.kind}` with {settings or "no settings"}; from `{experiment}`.
- Data: {config.data.train} training samples, {config.data.test} test samples, generated.
- Network:{linear} {config.model.fields} levels, width {width}, \
{config.schedule.epochs} epochs; the finest level is in the file of {size / 1e6:.2f} MB.
- Cost: {summary["flops"] / 1e12:.1f} TFLOP, {summary["seconds"]:.0f} s of training on a busy core.
- Again: `python -m experiments.zoo {name}`. Licence: BSD-3-Clause.

```text
{errors}
```
"""


if __name__ == "__main__":
    for chosen in sys.argv[1:] or SURROGATES:
        write(chosen)
