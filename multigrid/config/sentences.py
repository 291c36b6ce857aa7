"""What is wrong with an experiment file, in one sentence."""

import json
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import ValidationError

from multigrid.config.experiment import Config
from multigrid.config.section import Section
from multigrid.errors import nearest


def sentence(error: ValidationError) -> str:
    """Says the most telling error of a validation in one sentence.

    Unknown keys come first, as a misspelt key often makes another one missing; among the
    branches of a union the one that got furthest is what the user meant.
    """
    details = error.errors(include_url=False)
    first = max(details, key=lambda d: (d["type"] == "extra_forbidden", len(d["loc"])))
    model, path, description = _locate(first["loc"])
    if first["type"] == "extra_forbidden":
        key, allowed = str(first["loc"][-1]), list(model.model_fields)
        path = f"{path}.{key}" if path else key
        return f"{path}: unknown key; allowed here: {', '.join(allowed)}{nearest(key, allowed)}"
    if first["type"] == "missing":
        return f"{path}: missing; it must be {description}"
    value = first["input"]
    if first["type"].startswith("union_tag"):
        kinds = list(_branches(Config.model_fields[path].annotation))
        return _tag_sentence(f"{path}.kind", first["ctx"].get("tag"), kinds)
    shown = _shown(value)
    hint = nearest(value, _choices(details)) if isinstance(value, str) else ""
    return f"{path}: {shown} is not allowed; it must be {description}{hint}"


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, default=str)
    except (TypeError, ValueError):
        text = type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."


def _tag_sentence(path: str, tag: str | None, kinds: Sequence[str]) -> str:
    """Says that the key which tells the kind of a section is missing or unknown."""
    allowed = f"it must be one of {', '.join(kinds)}"
    if tag is None:
        return f"{path}: missing; {allowed}"
    return f"{path}: {_shown(tag)} is not allowed; {allowed}{nearest(tag, kinds)}"


def _choices(details: Sequence[Any]) -> list[str]:
    """Returns the texts that would have been allowed."""
    expected = [detail.get("ctx", {}).get("expected", "") for detail in details]
    return [option for text in expected for option in text.split("'")[1::2]]


def _locate(loc: Sequence[str | int]) -> tuple[type[Section], str, str]:
    """Follows an error's location: the section, the dotted path, what is allowed there.

    Entries of the location that are no keys of the file (the branch of a union that was tried)
    are left out of the path.
    """
    model: type[Section] = Config
    path, description = "", "valid"
    branches: dict[str, type[Section]] = {}
    for part in loc:
        if part in branches:
            model, branches = branches[str(part)], {}
            continue
        field = model.model_fields.get(str(part))
        if isinstance(part, int):
            path += f"[{part}]"
        elif field is not None:
            path += f".{part}" if path else part
            description = field.description or description
            branches = _branches(field.annotation)
            model = _section(field.annotation) or model
    return model, path, description


def _branches(annotation: Any) -> dict[str, type[Section]]:
    """Returns the sections of a field's type that are told apart by their kind."""
    parts = getattr(annotation, "__args__", ())
    sections = [part for part in parts if isinstance(part, type) and issubclass(part, Section)]
    return {
        kind: section
        for section in sections
        if "kind" in section.model_fields
        for kind in get_args(section.model_fields["kind"].annotation)
    }


def _section(annotation: Any) -> type[Section] | None:
    """Returns the section class within a field's type, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = (_section(part) for part in getattr(annotation, "__args__", ()))
    return next((section for section in found if section), None)
