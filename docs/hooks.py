"""What mkdocs runs to write the pages that follow from the code.

``settings.md`` gets every setting with its description from the configuration's own classes,
``reference.md`` what ``multigrid`` offers from Python, and the records of the benchmarks appear
below ``benchmarks/``, so that pages can show their figures.
"""

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import multigrid
from multigrid.config import Config
from multigrid.config.problem import FileConfig, problem_section
from multigrid.config.section import Section
from multigrid.registry import PROBLEMS

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "results" / "benchmarks"
FIRST = ("train", "load", "configure")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the figures of the benchmarks to the site."""
    for path in sorted(RECORDS.glob("*/*.png")):
        name = f"benchmarks/{path.relative_to(RECORDS).as_posix()}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills in what the code says."""
    if page.file.src_uri == "settings.md":
        return markdown.replace("<!-- settings -->", settings())
    if page.file.src_uri == "reference.md":
        return markdown.replace("<!-- reference -->", reference())
    return markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Takes the roles out of cross-references in docstrings, as in ``:attr:`name```."""
    return re.sub(r":(?:attr|class|data|func|meth|mod):(?=<code>)", "", html)


def reference() -> str:
    """Returns a directive for each public name, the functions that most people need first."""
    names = sorted(multigrid.__all__, key=lambda name: (name not in FIRST, name))
    return "\n\n".join(f"::: multigrid.{name}" for name in names)


def settings() -> str:
    """Returns a heading and a table for each section of the experiment file."""
    schema = Config.model_json_schema()
    lines = ["## The top level", "", *_table(schema)]
    for name, value in schema["properties"].items():
        if name == "problem":
            lines += ["", "## problem", "", "The keys depend on `kind`.", ""]
            for kind in PROBLEMS.names():
                lines += _problem(kind, problem_section(PROBLEMS.get(kind)))
            lines += _problem("file", FileConfig)
        else:
            lines += _section(name, value, schema["$defs"], "##")
    return "\n".join(lines)


def _problem(kind: str, model: type[Section]) -> list[str]:
    """Returns the settings of one kind of problem."""
    schema = model.model_json_schema()
    lines = [f"### problem, kind: {kind}", "", _summary(schema), "", *_table(schema), ""]
    for name, value in schema["properties"].items():
        lines += _section(f"problem.{name}", value, schema.get("$defs", {}), "####")
    return lines


def _section(path: str, value: dict[str, Any], definitions: dict[str, Any], head: str) -> list[str]:
    """Returns the settings of the sections within a value, and of those within them."""
    lines = []
    for title in _references(value):
        section = definitions[title]
        lines += ["", f"{head} {path}", "", _summary(section), "", *_table(section), ""]
        for name, nested in section["properties"].items():
            lines += _section(f"{path}.{name}", nested, definitions, "###")
    return lines


def _references(value: Any) -> list[str]:
    """Returns the names of the sections that a value may be, or consist of."""
    if isinstance(value, list):
        return [name for item in value for name in _references(item)]
    if not isinstance(value, dict):
        return []
    if "$ref" in value:
        return [value["$ref"].rsplit("/", 1)[1]]
    inner = ("anyOf", "oneOf", "allOf", "items", "additionalProperties")
    return [name for key in inner for name in _references(value.get(key))]


def _summary(schema: dict[str, Any]) -> str:
    """Returns the first paragraph of a section's docstring."""
    return str(schema.get("description", "")).split("\n\n")[0].replace("``", "`")


def _table(section: dict[str, Any]) -> list[str]:
    """Returns a table of a section's settings."""
    rows = []
    required = section.get("required", [])
    for name, value in section["properties"].items():
        if name != "kind":
            text = _escaped(str(value.get("description", "")))
            rows.append(f"| `{name}` | {_default(name, value, required)} | {text} |")
    if not rows:
        return ["No settings."]
    return ["| key | default | what it is |", "|---|---|---|", *rows]


def _escaped(text: str) -> str:
    """Returns plain text as Markdown for the cell of a table."""
    for character in "|*{}_<":
        text = text.replace(character, f"&#{ord(character)};")
    return text


def _default(name: str, value: dict[str, Any], required: list[str]) -> str:
    """Returns a setting's default, or that there is none."""
    if name in required or "default" not in value:
        return "*required*" if name in required else ""
    default = value["default"]
    return "see below" if isinstance(default, dict) and default else f"`{json.dumps(default)}`"
