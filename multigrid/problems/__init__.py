"""The PDEs, one file each."""

from typing import Any

from multigrid.problems.base import PDE, FileProblem, Problem, Symmetries
from multigrid.problems.cno_poisson import CNOPoisson
from multigrid.problems.darcy import LognormalDarcy, TwoPhaseDarcy
from multigrid.problems.diffusion import Diffusion
from multigrid.problems.elliptic import EllipticPDE
from multigrid.problems.poisson import Poisson
from multigrid.problems.reaction_diffusion import ReactionDiffusion
from multigrid.problems.two_phase_poisson import TwoPhasePoisson

PROBLEMS: dict[str, type[PDE]] = {
    problem.kind: problem
    for problem in (
        Poisson,
        CNOPoisson,
        TwoPhaseDarcy,
        LognormalDarcy,
        TwoPhasePoisson,
        Diffusion,
        ReactionDiffusion,
    )
}


def build_problem(kind: str, **parameters: Any) -> PDE:
    """Returns the problem of a kind, built from its parameters."""
    return PROBLEMS[kind](**parameters)


__all__ = [
    "PDE",
    "PROBLEMS",
    "CNOPoisson",
    "Diffusion",
    "EllipticPDE",
    "FileProblem",
    "LognormalDarcy",
    "Poisson",
    "Problem",
    "ReactionDiffusion",
    "Symmetries",
    "TwoPhaseDarcy",
    "TwoPhasePoisson",
    "build_problem",
]
