"""What is wrong with an experiment file, in one sentence."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from multigrid.config.section import Section
from multigrid.errors import UserError, nearest


def sentence(error: ValidationError, root: type[Section], prefix: str = "") -> str:
    """Says the most telling error of a validation in one sentence.

    Unknown keys come first, as a misspelt key often makes another one missing; among the
    branches of a union the one that got furthest is what the user meant.

    Args:
        error: What pydantic raised.
        root: The section that was validated.
        prefix: Its path in the experiment file.
    """
    details = error.errors(include_url=False)
    first = max(details, key=lambda d: (d["type"] == "extra_forbidden", len(d["loc"])))
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, UserError):
        return str(cause)
    model, path, description = _locate(first["loc"], root, prefix)
    if first["type"] == "extra_forbidden":
        key, allowed = str(first["loc"][-1]), list(model.model_fields)
        path = f"{path}.{key}" if path else key
        return f"{path}: unknown key; allowed here: {', '.join(allowed)}{nearest(key, allowed)}"
    if first["type"] == "missing":
        return f"{path}: missing; it must be {description}"
    value = first["input"]
    hint = nearest(value, _choices(details)) if isinstance(value, str) else ""
    return f"{path}: {shown(value)} is not allowed; it must be {description}{hint}"


def shown(value: Any) -> str:
    """Returns a value as it stands in YAML, shortened."""
    try:
        text = json.dumps(value, default=str)
    except (TypeError, ValueError):
        text = type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."


def _choices(details: Sequence[Any]) -> list[str]:
    """Returns the texts that would have been allowed."""
    expected = [detail.get("ctx", {}).get("expected", "") for detail in details]
    return [option for text in expected for option in text.split("'")[1::2]]


def _locate(
    loc: Sequence[str | int], root: type[Section], prefix: str
) -> tuple[type[Section], str, str]:
    """Follows an error's location: the section, the dotted path, what is allowed there.

    Entries of the location that are no keys of the file (the branch of a union that was tried)
    are left out of the path.
    """
    model, path, description = root, prefix, "valid"
    for part in loc:
        field = model.model_fields.get(str(part))
        if isinstance(part, int):
            path += f"[{part}]"
        elif field is not None:
            path += f".{part}" if path else part
            description = field.description or description
            model = _section(field.annotation) or model
    return model, path, description


def _section(annotation: Any) -> type[Section] | None:
    """Returns the section class within a field's type, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = (_section(part) for part in getattr(annotation, "__args__", ()))
    return next((section for section in found if section), None)
