"""A PDE that is handed in from Python, instead of the section ``problem``."""

import json
from dataclasses import is_dataclass
from functools import cached_property
from typing import Any

from multigrid.config.section import plain, shown
from multigrid.errors import UserError
from multigrid.problems import PDE
from multigrid.registry import PROBLEMS

EMPTY = ("null", "0", "0.0", "false", "[]", "{}", '""')
"""Values of attributes that a PDE may fill while it is used, as JSON."""


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


def require_rebuilt(problem: PDE) -> None:
    """Checks that a PDE is what its parameters make, of which it is built anew where it is needed.

    What its methods may have filled later can differ: cached properties, what is None at first,
    and what is missing, empty or zero under a name with an underscore.

    Raises:
        UserError: If an attribute is another one.
    """
    cls, given = type(problem), vars(problem)
    made = vars(cls(**problem.parameters))
    for name in {**given, **made}:
        before = _text(made.get(name))
        is_cached = isinstance(getattr(cls, name, None), cached_property)
        may_be_filled = (
            before in EMPTY if name.startswith("_") else before == "null" and name in made
        )
        if not (is_cached or may_be_filled) and _text(given.get(name)) != before:
            raise UserError(
                f"problem: the attribute '{name}' of the {cls.__name__} handed in is not that of "
                f"one built from its parameters, {shown(plain(problem.parameters))}, as a run "
                "does; let the constructor set it from a parameter that is kept under its own name"
            )


def _text(value: Any) -> str:
    """Returns a value as text; of objects that are neither plain nor dataclasses the type alone."""

    def described(item: Any) -> Any:
        is_data = is_dataclass(item) and not isinstance(item, type)
        return vars(item) if is_data else type(item).__qualname__

    try:
        return json.dumps(plain(value), default=described, skipkeys=True)
    except (TypeError, ValueError, RecursionError):
        return type(value).__qualname__
