"""The PDEs: a module of this folder that registers a class adds one."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from multigrid.problems.base import PDE, FileProblem, Problem, Symmetries
from multigrid.registry import PROBLEMS

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def build_problem(kind: str, **parameters: Any) -> PDE:
    """Returns the problem of a kind, built from its parameters.

    Raises:
        UserError: If there is no such kind.
    """
    problem: PDE = PROBLEMS.get(kind)(**parameters)
    return problem


__all__ = ["PDE", "FileProblem", "Problem", "Symmetries", "build_problem"]
