"""Every setting with its default and what is allowed, read from the sections themselves."""

from collections.abc import Iterator
from typing import NamedTuple

from pydantic_core import PydanticUndefined

from multigrid.config.data import FileConfig
from multigrid.config.experiment import Config, problem_section
from multigrid.config.section import Section, section_in, shown
from multigrid.errors import UserError, nearest
from multigrid.registry import PROBLEMS


class Setting(NamedTuple):
    """A row of the reference: dotted key, default as in YAML, and what is allowed."""

    key: str
    default: str
    description: str


def sections() -> dict[str, type[Section]]:
    """Returns the sections by name: those of the file, and ``problem.<kind>`` for each problem."""
    fields = Config.model_fields.items()
    inner = {name: section_in(field.annotation) for name, field in fields if name != "problem"}
    return {
        **{name: section for name, section in inner.items() if section is not None},
        **{f"problem.{kind}": problem_section(PROBLEMS.get(kind)) for kind in PROBLEMS.names()},
        "problem.file": FileConfig,
    }


def settings(name: str | None = None) -> list[Setting]:
    """Returns the settings of a section, or those of all.

    Args:
        name: A key of the top level, or ``problem.<kind>``; None for the whole file.

    Raises:
        UserError: If there is no such section.
    """
    if name is None:
        top = [row for row in _rows(Config, "") if row.key not in sections()]
        return top + [row for section in sections() for row in settings(section)]
    if name not in sections():
        allowed = list(sections())
        raise UserError(
            f"there is no section '{name}'; there are {', '.join(allowed)}{nearest(name, allowed)}"
        )
    return list(_rows(sections()[name], f"{name}."))


def _rows(section: type[Section], prefix: str) -> Iterator[Setting]:
    for name, field in section.model_fields.items():
        if name == "kind":
            continue
        default = field.default
        inner = section_in(field.annotation)
        text = "required" if default is PydanticUndefined else shown(default)
        if isinstance(default, Section):
            text = "see below"
        yield Setting(prefix + name, text, field.description or "")
        if inner is not None and prefix:
            yield from _rows(inner, f"{prefix}{name}.")
