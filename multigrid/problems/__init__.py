"""The PDEs, one file each."""

from typing import Any

from multigrid.problems.base import Problem, Symmetries
from multigrid.problems.cno_poisson import CNOPoisson
from multigrid.problems.darcy import LognormalDarcy, TwoPhaseDarcy
from multigrid.problems.diffusion import Diffusion
from multigrid.problems.poisson import Poisson
from multigrid.problems.reaction_diffusion import ReactionDiffusion

PROBLEMS: dict[str, type[Problem]] = {
    problem.kind: problem
    for problem in (
        Poisson,
        CNOPoisson,
        TwoPhaseDarcy,
        LognormalDarcy,
        Diffusion,
        ReactionDiffusion,
    )
}


def build_problem(kind: str, **parameters: Any) -> Problem:
    """Returns the problem of a kind, built from its parameters."""
    return PROBLEMS[kind](**parameters)


__all__ = [
    "PROBLEMS",
    "CNOPoisson",
    "Diffusion",
    "LognormalDarcy",
    "Poisson",
    "Problem",
    "ReactionDiffusion",
    "Symmetries",
    "TwoPhaseDarcy",
    "build_problem",
]
