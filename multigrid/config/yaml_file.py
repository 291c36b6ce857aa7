"""Experiment files: reading YAML safely, and replacing settings from the command line."""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from multigrid.errors import UserError
from multigrid.files import nearest_file

MAX_FILE_BYTES = 200_000
MAX_DEPTH = 20

# Numbers as in YAML 1.2, where 024 is 24 and 1:20 is a text, and with 1e-3 and 1_000 besides.
FRACTION = r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
SCALARS = (
    ("int", r"[-+]?[0-9]+(?:_[0-9]+)*|0x[0-9a-fA-F]+|0o[0-7]+", "-+0123456789"),
    ("float", FRACTION, "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
)

KINDS: dict[type, str] = {
    dict: "a mapping", list: "a list", str: "a text", bool: "true or false",
    int: "a whole number", float: "a number", type(None): "empty",
}  # fmt: skip
"""What values are called in sentences."""

# What yaml raises for bad input besides its errors.
BAD_YAML = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError)

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):
    """Safe YAML 1.2 without duplicate keys."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            text = key.tag == "tag:yaml.org,2002:str"
            mistake = f"the key '{key.value}' appears twice" if text else "keys must be texts"
            if not text or key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, mistake, key.start_mark)
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping

    def construct_int(self, node: Any) -> int:
        """Reads 024 as 24; a leading zero does not make a number octal."""
        text = self.construct_scalar(node)
        return int(text, 0 if text[:2] in ("0x", "0o") else 10)


class _Dumper(yaml.SafeDumper):
    """Writes what :class:`_Loader`, and readers of YAML 1.1, read back unchanged."""


for _name, _pattern, _first in SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), list(_first)
        )
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)


def dump_yaml(value: Any) -> str:
    """Returns plain containers as YAML."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _parse_yaml(text: str) -> Any:
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Base):
            if isinstance(event, yaml.AliasEvent):
                raise UserError("not valid YAML: aliases are not allowed")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise UserError(f"nested deeper than {MAX_DEPTH} levels")
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        raise UserError(f"not valid YAML: {_marked(error, text)}") from None
    except BAD_YAML as error:
        raise UserError(f"not valid YAML: {' '.join(str(error).split())}") from None


def _marked(error: yaml.MarkedYAMLError, text: str) -> str:
    """Returns what is wrong with a text, and in which of its lines."""
    what = " ".join(filter(None, (error.context, error.problem)))
    if (mark := error.problem_mark or error.context_mark) is None:
        return what
    line = text.splitlines()[mark.line : mark.line + 1]
    tab = line and line[0][mark.column : mark.column + 1] == "\t"
    hint = "; indent with spaces, not tabs" if tab else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {what}{hint}"


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a file that holds a mapping of plain values."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError("not a regular file, so not an experiment file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"larger than {MAX_FILE_BYTES:,} bytes, so not an experiment file")
        raw = _parse_yaml(path.read_text(encoding="utf-8"))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        near = nearest_file(path, "*.yaml", "*.yml") if missing else ""
        raise UserError(f"{path}: cannot be read: {error.strerror}{near}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(
            f"{path}: must hold a mapping of settings, not {KINDS.get(type(raw), 'a value')}"
        )
    return raw


def override(raw: dict[str, Any], assignment: str) -> None:
    """Applies ``section.key=value`` to the raw settings."""
    path, equals, text = assignment.partition("=")
    assignment = assignment if len(assignment) <= 100 else f"{assignment[:97]}..."
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"override '{assignment}' must have the form section.key=value")
    try:
        value = _parse_yaml(text)
    except UserError as error:
        raise UserError(f"override '{assignment}': the value is {error}") from None
    for depth, key in enumerate(keys[:-1]):
        raw = raw.setdefault(key, {})
        if not isinstance(raw, dict):
            raise UserError(
                f"override '{assignment}': {'.'.join(keys[: depth + 1])} is not a mapping but "
                f"{KINDS.get(type(raw), 'a value')}"
            )
    raw[keys[-1]] = value


def parse_values(source: str, text: str) -> list[Any]:
    """Returns the values of a list without its brackets, each at most once."""
    try:
        values = _parse_yaml(f"[{text}]")
    except UserError as error:
        raise UserError(f"{source}: the values are {error}") from None
    if not values or any(value in values[:place] for place, value in enumerate(values)):
        raise UserError(f"{source}: must list one value or several different ones")
    return list(values)
