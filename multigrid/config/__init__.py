"""The experiment file: every setting, its default, what is allowed, and how it is read.

The only package that knows YAML. It imports no torch, so that a typing error is told at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from multigrid.config.checks import check_config
from multigrid.config.experiment import Config
from multigrid.config.section import Section
from multigrid.config.sentences import sentence
from multigrid.config.yaml_file import dump_yaml, override, read_yaml
from multigrid.errors import UserError

__all__ = [
    "Config",
    "Section",
    "changed_keys",
    "dump_config",
    "load_config",
    "parse_config",
    "parse_saved",
    "read_saved",
]

RENAMED = {("recovery", "accumulate"): "split_batches"}
"""Keys of earlier versions, by section, and what they are called now."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads, overrides and validates an experiment file.

    Args:
        path: YAML file.
        overrides: Assignments ``section.key=value``, the value in YAML.

    Raises:
        UserError: With one sentence for the first thing that is wrong.
    """
    raw = read_yaml(Path(path))
    for assignment in overrides:
        override(raw, assignment)
    return parse_config(raw, source=str(path))


def parse_config(raw: Mapping[str, Any], source: str = "configuration") -> Config:
    """Validates an experiment given as plain containers.

    Args:
        raw: Its sections.
        source: What they come from, for the sentence.

    Raises:
        UserError: With one sentence for the first thing that is wrong.
    """
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{source}: {sentence(error, Config)}") from None
    try:
        check_config(config)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    return config


def parse_saved(raw: Any, source: str) -> Config:
    """Validates what a run has saved of its configuration, maybe in an earlier version.

    Args:
        raw: What :func:`dump_config` gave or a checkpoint holds, as plain containers.
        source: What it comes from, for the sentence.

    Raises:
        UserError: With one sentence for the first thing that is wrong.
    """
    current = dict(raw) if isinstance(raw, Mapping) else {}
    for (name, old), new in RENAMED.items():
        section = current.get(name)
        if isinstance(section, Mapping) and old in section:
            current[name] = {new if key == old else key: section[key] for key in section}
    return parse_config(current, source)


def read_saved(path: Path) -> Config:
    """Reads back what :func:`dump_config` gave.

    Raises:
        UserError: If the file cannot be read or holds no experiment.
    """
    return parse_saved(read_yaml(path), str(path))


def dump_config(config: Config) -> str:
    """Returns the resolved configuration as YAML."""
    return dump_yaml(config.model_dump())


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns the dotted keys whose values differ between two dumped configurations."""
    flat_old, flat_new = dict(_flatten(old)), dict(_flatten(new))
    keys = [*flat_old, *(key for key in flat_new if key not in flat_old)]
    missing = object()
    return [key for key in keys if flat_old.get(key, missing) != flat_new.get(key, missing)]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
