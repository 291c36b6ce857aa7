"""Options of what users register: parameters that an experiment file gives by name."""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from inspect import Parameter, isclass, signature
from types import SimpleNamespace
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from multigrid.errors import UserError, nearest

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
PLAIN = {bool: bool, int: int | float, float: int | float, str: str}
"""What a parameter without annotation takes, by the type of its default."""
STRICT = ConfigDict(strict=True)


def with_options(
    item: Callable[..., Any],
    options: Mapping[str, Any],
    passed: int,
    reserved: Collection[str],
    what: str,
    key: str,
) -> Callable[..., Any]:
    """Returns a class or function with options given by keyword.

    Args:
        item: The class or function.
        options: Values by name of the parameter.
        passed: How many arguments it is called with; these are no options.
        reserved: Names of further parameters that are none.
        what: What it is, for error messages.
        key: Where the options stand.

    Raises:
        UserError: If there is no such option, one is missing, or a value is not what its parameter
            is annotated with, or of the kind of its default.
    """
    try:
        parameters = signature(item).parameters
    except ValueError:  # written in C
        parameters = {}  # type: ignore[assignment]
    positional = [name for name, p in parameters.items() if p.kind in POSITIONAL]
    taken = {*positional[:passed], *reserved}
    allowed = {n: p for n, p in parameters.items() if p.kind in BY_NAME and n not in taken}
    takes_any = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    for option in options:
        if option not in allowed and (option in taken or not takes_any):
            listed = ", ".join(allowed) or "none"
            hint = nearest(option, allowed)
            raise UserError(f"{key}: {what} has no option '{option}'; it has {listed}{hint}")
    for option, parameter in allowed.items():
        if parameter.default is Parameter.empty and option not in options:
            raise UserError(f"{key}: {what} needs the option '{option}'")
    checked = dict(options)
    for option in allowed.keys() & options.keys():
        parameter, value = allowed[option], options[option]
        if value is not parameter.default:
            checked[option] = _checked(value, _hint(item, parameter), f"{key}.{option}")
    return partial(item, **checked) if checked else item


def _hint(item: Callable[..., Any], parameter: Parameter) -> Any:
    """Returns the type of a parameter, limits included."""
    if parameter.annotation is Parameter.empty:
        return PLAIN.get(type(parameter.default), Any)
    function = item.__init__ if isclass(item) else item
    names = getattr(function, "__globals__", {})
    alone = SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        return get_type_hints(alone, names, include_extras=True)["it"]
    except (NameError, AttributeError, SyntaxError, TypeError):  # for type checkers alone, or text
        return Any


def _checked(value: Any, hint: Any, place: str) -> Any:
    """Returns a value as its type; what is no value of YAML, or no type of one, stays as it is."""
    if hint is Any:
        return value
    try:
        text = json.dumps(value)
        checked = TypeAdapter(hint, config=STRICT).validate_json(text)
        is_plain = json.loads(text) == value and not isinstance(checked, Iterator)
        return checked if is_plain else value
    except (PydanticUserError, TypeError):
        return value
    except ValidationError as error:
        reasons = [re.sub(r"^\w+ should ", "it must ", e["msg"]) for e in error.errors()]
        described = FieldInfo.from_annotation(hint).description
        what = f"it must be {described}" if described else " or ".join(reasons)
        raise UserError(f"{place}: {value!r} is not allowed; {what}") from None
