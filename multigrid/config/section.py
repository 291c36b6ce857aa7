"""The base of all sections of an experiment file, and validation errors in one sentence."""

import json
import os
from collections.abc import Iterator, KeysView, Mapping, Sequence, ValuesView
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic.fields import FieldInfo

from multigrid.errors import UserError, nearest
from multigrid.files import expand
from multigrid.registry import CALLBACKS, LOSSES, OPTIMIZERS, Registry

TRAINING_ONLY = (CALLBACKS, LOSSES, OPTIMIZERS)


class Section(BaseModel):
    """A mapping of the experiment file; unknown keys and implicit conversions are errors.

    The text below each field completes the sentence "``key`` must be ...".
    """

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


def allowed(field: FieldInfo) -> str:
    """Returns what a field may be: its text, or what its type says."""
    if field.description:
        return " ".join(field.description.split())
    if section_in(field.annotation):
        return "a mapping"
    if get_origin(field.annotation) is not Literal:
        return "valid"
    *others, last = (f"'{choice}'" for choice in get_args(field.annotation))
    return f"{', '.join(others)} or {last}"


def context(info: ValidationInfo, key: str) -> Any:
    """Returns what is known of where settings come from: ``saved`` by a run, or the ``folder``."""
    return (info.context or {}).get(key)


def registered(registry: Registry, *others: str) -> AfterValidator:
    """Returns a validator that allows what a registry has, and some other names.

    Of a saved configuration, names of what only a training needs are not checked.
    """

    def check(name: str, info: ValidationInfo) -> str:
        unneeded = context(info, "saved") and registry in TRAINING_ONLY
        if unneeded or name in others or name in registry:
            return name
        names = (*registry.names(), *others)
        raise ValueError(
            f"{shown(name)} is not allowed; it must be one of {', '.join(names)}"
            f"{nearest(name, names)}"
        )

    return AfterValidator(check)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else list(value) if isinstance(value, tuple) else value


Size: TypeAlias = Annotated[int, Field(gt=0, le=65536)]
Positive: TypeAlias = Annotated[int, Field(gt=0)]
Count: TypeAlias = Annotated[int, Field(gt=0, le=100_000_000)]
Rate: TypeAlias = Annotated[float, Field(gt=0, lt=float("inf"), allow_inf_nan=False)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name: TypeAlias = Annotated[str, Field(min_length=1)]
Names: TypeAlias = Annotated[list[Name], BeforeValidator(_as_list)]
FileName: TypeAlias = Annotated[Name, AfterValidator(expand)]


def plain(value: Any) -> Any:
    """Returns settings given from Python as what YAML would hold.

    Tuples, ranges, iterators and arrays become lists, numbers of numpy those of Python, and paths
    texts.
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range | Iterator | KeysView | ValuesView):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") else value


def sentence(
    error: ValidationError, root: type[Section], prefix: str = "", others: Sequence[str] = ()
) -> str:
    """Returns one sentence for the most helpful error of validating ``root``, at ``prefix``.

    Unknown keys come first, as a misspelt key often makes another one missing; among the
    branches of a union the one that got furthest is what the user meant, if only to a check of
    ours. ``others`` are the dotted keys of the whole file, for a key in the wrong section.
    """

    def rank(detail: Any) -> tuple[bool, int, bool]:
        ours = "error" in detail.get("ctx", {})
        return detail["type"] == "extra_forbidden", len(detail["loc"]), ours

    details = error.errors(include_url=False)
    first = max(details, key=rank)
    model, path, description = _locate(first["loc"], root, prefix)
    if (cause := first.get("ctx", {}).get("error")) is not None:
        return str(cause) if isinstance(cause, UserError) else f"{path}: {cause}"
    if first["type"] == "extra_forbidden":
        key, keys = str(first["loc"][-1]), list(model.model_fields)
        path = f"{path}.{key}" if path else key
        hint = _elsewhere(key, others) or nearest(key, keys)
        return f"{path}: unknown key; allowed here: {', '.join(keys)}{hint}"
    if first["type"] == "missing":
        return f"{path}: missing; it must be {description}"
    value = first["input"]
    expected = [detail.get("ctx", {}).get("expected", "") for detail in details]
    choices = [choice for text in expected for choice in text.split("'")[1::2]]
    hint = nearest(value, choices) if isinstance(value, str) else ""
    return f"{path}: {shown(value)} is not allowed; it must be {description}{hint}"


def _elsewhere(key: str, others: Sequence[str]) -> str:
    """Returns a hint at the only other place of a key, or at its only one in a section itself."""
    places = [other for other in others if other.rpartition(".")[2] == key]
    outer = [place for place in places if place.count(".") == min(p.count(".") for p in places)]
    return f"; did you mean '{outer[0]}'?" if len(outer) == 1 else ""


def shown(value: Any) -> str:
    """Returns a value as it stands in YAML, shortened."""
    try:
        given = value.model_dump() if isinstance(value, Section) else value
        text = json.dumps(given, default=str)
    except (TypeError, ValueError):
        text = type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."


def _locate(
    loc: Sequence[str | int], root: type[Section], prefix: str
) -> tuple[type[Section], str, str]:
    """Follows an error's location: the section, the dotted path, what is allowed there."""
    model, path, description = root, prefix, "valid"
    for part in loc:
        field = model.model_fields.get(str(part))  # None for the branch of a union
        if isinstance(part, int):
            path += f"[{part}]"
        elif field is not None:
            path += f".{part}" if path else part
            description = allowed(field)
            model = section_in(field.annotation) or model
    return model, path, description


def section_in(annotation: Any) -> type[Section] | None:
    """Returns the section class within a field's type, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    inner = (section_in(part) for part in getattr(annotation, "__args__", ()))
    return next((section for section in inner if section), None)
