"""What mkdocs runs to write the pages that follow from the code.

``settings.md`` gets every setting with its description from the configuration's own classes,
``reference.md`` what ``multigrid`` offers from Python, and the records of the benchmarks appear
below ``benchmarks/``, so that pages can show their figures.
"""

import json
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
FIGURES = ("*/*.png",)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the figures of the benchmarks to the site."""
    for pattern in FIGURES:
        for path in sorted(RECORDS.glob(pattern)):
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


def reference() -> str:
    """Returns a directive for each public name."""
    return "\n\n".join(f"::: multigrid.{name}" for name in sorted(multigrid.__all__))


def settings() -> str:
    """Returns a section with a table for each section of the experiment file."""
    schema = Config.model_json_schema()
    lines = ["## The top level", "", *_table(schema)]
    for name, value in schema["properties"].items():
        if name == "problem":
            lines += ["", "## problem", ""]
            for kind in PROBLEMS.names():
                lines += _section(f"problem: kind: {kind}", problem_section(PROBLEMS.get(kind)))
            lines += _section("problem: kind: file", FileConfig)
            continue
        classes = _classes(value, schema["$defs"])
        lines += ["", f"## {name}", ""] if classes else []
        for title in classes:
            section = schema["$defs"][title]
            lines += [f"### An entry: {title}", ""] if title != classes[0] else []
            lines += [_first_paragraph(section), "", *_table(section), ""]
    return "\n".join(lines)


def _section(heading: str, model: type[Section]) -> list[str]:
    """Returns a heading, what a section is about, and its table."""
    schema = model.model_json_schema()
    lines = [f"### {heading}", "", _first_paragraph(schema), "", *_table(schema), ""]
    for title, nested in schema.get("$defs", {}).items():
        lines += [f"#### An entry: {title}", "", _first_paragraph(nested), "", *_table(nested), ""]
    return lines


def _first_paragraph(schema: dict[str, Any]) -> str:
    return str(schema.get("description", "")).split("\n\n")[0].replace("``", "`")


def _classes(value: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    """Returns the names of the sections within a setting, the outermost first."""
    names: list[str] = []
    queue = [value]
    while queue:
        item = queue.pop(0)
        if "$ref" in item:
            name = item["$ref"].rsplit("/", 1)[1]
            if name not in names:
                names.append(name)
                queue += definitions[name].get("properties", {}).values()
            continue
        for key in ("anyOf", "oneOf", "allOf"):
            queue += item.get(key, [])
        if isinstance(item.get("items"), dict):
            queue.append(item["items"])
    return names


def _table(section: dict[str, Any]) -> list[str]:
    """Returns a table of a section's settings."""
    rows = []
    required = section.get("required", [])
    for name, value in section["properties"].items():
        if name != "kind":
            text = str(value.get("description", "")).replace("|", "\\|").replace("*", "\\*")
            rows.append(f"| `{name}` | {_default(name, value, required)} | {text} |")
    if not rows:
        return ["No settings."]
    return ["| key | default | what it is |", "|---|---|---|", *rows]


def _default(name: str, value: dict[str, Any], required: list[str]) -> str:
    """Returns a setting's default, or that there is none."""
    if name in required or "default" not in value:
        return "*required*" if name in required else ""
    default = value["default"]
    return "see below" if isinstance(default, dict) and default else f"`{json.dumps(default)}`"
