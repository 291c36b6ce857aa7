"""The PDEs, one file each."""

from typing import Any

from multigrid.problems.base import Problem, Symmetries
from multigrid.problems.poisson import Poisson

PROBLEMS: dict[str, type[Problem]] = {problem.kind: problem for problem in (Poisson,)}


def build_problem(kind: str, **parameters: Any) -> Problem:
    """Returns the problem of a kind, built from its parameters."""
    return PROBLEMS[kind](**parameters)


__all__ = ["PROBLEMS", "Poisson", "Problem", "Symmetries", "build_problem"]
