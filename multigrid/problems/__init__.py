"""The PDEs: a module of this folder that registers a class adds one."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from multigrid.errors import UserError
from multigrid.problems.base import PDE, FileProblem, Problem, Symmetries
from multigrid.registry import PROBLEMS

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def build_problem(kind: str, **parameters: Any) -> PDE:
    """Returns the problem of a kind, built from its parameters.

    Raises:
        UserError: If there is no such kind, or its class does not say what its fields are.
    """
    problem: PDE = PROBLEMS.get(kind)(**parameters)
    for key in ("input_names", "output_names"):
        names = getattr(problem, key, None)
        texts = isinstance(names, tuple | list) and all(isinstance(name, str) for name in names)
        if not texts or not names or len(set(names)) < len(names):
            raise UserError(
                f"problem '{kind}': {type(problem).__name__}.{key} is {names!r}; a tuple of "
                'different names is expected, as in ("u",)'
            )
    return problem


__all__ = ["PDE", "FileProblem", "Problem", "Symmetries", "build_problem"]
