"""A PDE that is handed in from Python, instead of the section ``problem``."""

import math
from functools import cached_property
from types import FunctionType, MethodType
from typing import Any, cast

import numpy as np

from multigrid.config.section import plain, shown
from multigrid.errors import UserError
from multigrid.problems import PDE
from multigrid.registry import PROBLEMS


def register_handed_in(problem: PDE) -> dict[str, Any]:
    """Registers the class of a PDE that was handed in from Python and returns its section.

    Its kind is the attribute ``kind`` of its class, else the name of the class in small letters.
    """
    if not isinstance(problem, PDE):
        raise UserError(f"problem: must be an object of a subclass of PDE, not {problem!r}")
    cls = type(problem)
    kind = vars(cls).get("kind", cls.__name__.lower())
    PROBLEMS.register(kind)(cls)
    try:
        return {"kind": kind, **plain(problem.parameters)}
    except AttributeError as error:
        raise UserError(
            f"problem: {cls.__name__} must keep its constructor's parameters as attributes of the "
            f"same names: {error}"
        ) from None


def require_rebuilt(problem: PDE, rebuilt: PDE) -> None:
    """Checks that a PDE is what its parameters make, of which it is built anew where it is needed.

    Raises:
        UserError: If an attribute is another one.
    """
    cls, given, made = type(problem), vars(problem), vars(rebuilt)
    for name in {**given, **made}:
        computed = isinstance(getattr(cls, name, None), cached_property)
        both, within = name in given and name in made, frozenset({id(problem)})
        if not computed and not (both and _alike(given[name], made[name], within)):
            raise UserError(
                f"problem: the attribute '{name}' of the {cls.__name__} handed in is not that of "
                f"one built from its parameters, {shown(plain(problem.parameters))}, as a run "
                "does; let the constructor set it from a parameter that is kept under its own name"
            )


def _alike(a: Any, b: Any, within: frozenset[int]) -> bool:
    """Whether two values are equal; of what has no equality, all attributes have to be.

    Lists are as good as tuples. ``within`` are the objects that ``a`` is an attribute of.
    """
    if a is b or id(a) in within:
        return True
    within |= {id(a)}
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc" and b.dtype.kind in "fc")
    a, b = plain(_code(a)), plain(_code(b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_alike(x, y, within) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key], within) for key in a)
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    equal, by_identity = a == b, cast(Any, object.__eq__)
    if equal is True or type(a) is not type(b):
        return equal is True
    if isinstance(equal, bool) and type(a).__eq__ is not by_identity:
        return False
    return _alike(getattr(a, "__dict__", {}), getattr(b, "__dict__", {}), within)


def _code(value: Any) -> Any:
    """Returns what a function does, as plain values; anything else stays as it is."""
    if isinstance(value, MethodType):
        value = value.__func__
    if not isinstance(value, FunctionType):
        return value
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    return [value.__code__, value.__defaults__, value.__kwdefaults__, cells]
