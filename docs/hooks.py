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
    definitions = schema["$defs"]
    lines = ["## The top level", "", *_rows(schema, definitions)]
    for name, value in schema["properties"].items():
        classes = _classes(value, definitions)
        lines += ["", f"## {name}", ""] if classes else []
        for title in classes:
            section = definitions[title]
            kind = section["properties"].get("kind", {}).get("const")
            heading = f"### {name}: kind: {kind}" if kind else ""
            heading = heading or (f"### An entry: {title}" if title != classes[0] else "")
            lines += [heading, "", section.get("description", ""), ""]
            lines += [*_rows(section, definitions), ""]
    return "\n".join(lines)


def _classes(value: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    """Returns the names of the sections within a setting, its own first, nested ones after it."""
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


def _rows(section: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    """Returns a table of a section's settings."""
    rows = ["| key | default | what it is |", "|---|---|---|"]
    required = section.get("required", [])
    for name, value in section["properties"].items():
        if name == "kind":
            continue
        rows.append(f"| `{name}` | {_default(name, value, required)} | {_text(value)} |")
    return rows if len(rows) > 2 else ["No settings."]


def _default(name: str, value: dict[str, Any], required: list[str]) -> str:
    """Returns a setting's default, or that there is none."""
    if name in required or "default" not in value:
        return "*required*" if name in required else ""
    default = value["default"]
    if isinstance(default, dict) and default:
        return "see below"
    return f"`{json.dumps(default)}`"


def _text(value: dict[str, Any]) -> str:
    return str(value.get("description", "")).replace("|", "\\|").replace("*", "\\*")
