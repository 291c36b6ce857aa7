"""Experiment files: YAML read with care, and settings replaced from the command line."""

import re
from pathlib import Path
from typing import Any

import yaml

from multigrid.errors import UserError

MAX_FILE_BYTES = 200_000
MAX_DEPTH = 20


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases and duplicate keys, and with ``1e-3`` read as a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(
                None, None, "aliases are not allowed", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(
                    None, None, "keys must be texts", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' appears twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Writes what :class:`_Loader` reads back unchanged."""


_FLOAT = re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)$")
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))

# What yaml raises for bad input besides its own errors.
BAD_YAML = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


def dump_yaml(value: Any) -> str:
    """Returns plain containers as YAML."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _parse_yaml(text: str) -> Any:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise UserError(f"nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a file that holds a mapping.

    Raises:
        UserError: If it cannot be read, is no YAML, is too large or nested, or no mapping.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"larger than {MAX_FILE_BYTES:,} bytes, no experiment file")
        raw = _parse_yaml(path.read_text(encoding="utf-8"))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except BAD_YAML as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: must hold a mapping of settings, not {_kind(raw)}")
    return raw


def override(raw: dict[str, Any], assignment: str) -> None:
    """Applies ``section.key=value`` to the raw settings.

    Raises:
        UserError: If it has another form, or a key on the way is no section.
    """
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"override '{assignment}' must have the form section.key=value")
    try:
        value = _parse_yaml(text)
    except BAD_YAML as error:
        problem = " ".join(str(error).split())
        raise UserError(
            f"override '{assignment}': the value is not valid YAML: {problem}"
        ) from None
    for depth, key in enumerate(keys[:-1]):
        raw = raw.setdefault(key, {})
        if not isinstance(raw, dict):
            raise UserError(
                f"override '{assignment}': {'.'.join(keys[: depth + 1])} is no mapping but "
                f"{_kind(raw)}"
            )
    raw[keys[-1]] = value


def _kind(value: Any) -> str:
    names = {
        dict: "a mapping", list: "a list", str: "a text", bool: "true or false",
        int: "a whole number", float: "a number", type(None): "empty",
    }  # fmt: skip
    return names.get(type(value), type(value).__name__)
