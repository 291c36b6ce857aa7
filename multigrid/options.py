"""Options of what users register: parameters that an experiment file gives by name."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from inspect import Parameter, signature
from typing import Any

from multigrid.errors import UserError, nearest

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
PLAIN = (bool, int, float, str)


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
        UserError: If there is no such option, one is missing, or a value is not like its default.
    """
    try:
        parameters = signature(item).parameters
    except ValueError:  # written in C
        parameters = {}  # type: ignore[assignment]
    positional = [name for name, p in parameters.items() if p.kind in POSITIONAL]
    taken = {*positional[:passed], *reserved}
    allowed = {n: p for n, p in parameters.items() if p.kind in BY_NAME and n not in taken}
    takes_any = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    for option, value in options.items():
        if option not in allowed and (option in taken or not takes_any):
            listed = ", ".join(allowed) or "none"
            hint = nearest(option, allowed)
            raise UserError(f"{key}: {what} has no option '{option}'; it has {listed}{hint}")
        if option in allowed and not _fits(value, allowed[option]):
            raise UserError(
                f"{key}.{option}: {value!r} is not allowed; it must be of the kind of its default, "
                f"{allowed[option].default!r}"
            )
    for option, parameter in allowed.items():
        if parameter.default is Parameter.empty and option not in options:
            raise UserError(f"{key}: {what} needs the option '{option}'")
    return partial(item, **options) if options else item


def _fits(value: Any, parameter: Parameter) -> bool:
    """Whether a value is a number, a text, or true or false if the default is.

    Any value does where the parameter is annotated as something else.
    """
    default, annotation = parameter.default, parameter.annotation
    names = [kind.__name__ for kind in PLAIN]
    if type(default) not in PLAIN or annotation not in (Parameter.empty, *PLAIN, *names):
        return True
    if isinstance(default, bool | str):
        return type(value) is type(default)
    return isinstance(value, int | float) and not isinstance(value, bool)
