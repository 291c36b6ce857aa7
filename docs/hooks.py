"""What mkdocs runs to write the pages that follow from the code.

``settings.md`` gets every setting with its description from the configuration's own classes,
``reference.md`` what ``multigrid`` offers from Python, notebooks become pages, and the records of
the benchmarks appear below ``benchmarks/``, so that pages can show their figures.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import multigrid
from multigrid.config import Config
from multigrid.config.experiment import Setting, sections, settings
from multigrid.config.section import allowed

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "results" / "benchmarks"
FIRST_PROBLEM = next(name for name in sections() if name.startswith("problem."))
FIRST = ("train", "load", "configure")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds notebooks and the figures of the benchmarks to the site."""
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        page = f"notebooks/{path.stem}.md"
        files.append(File.generated(config, page, content=notebook_page(path)))
    for path in sorted(RECORDS.glob("*/*.png")):
        name = f"benchmarks/{path.relative_to(RECORDS).as_posix()}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def notebook_page(path: Path) -> str:
    """Returns a notebook as Markdown, with what it prints and draws."""
    blocks = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(source)
            continue
        blocks.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            if image := output.get("data", {}).get("image/png"):
                blocks.append(f'<img alt="" src="data:image/png;base64,{image.strip()}">')
            elif "text" in output:
                blocks.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
    return "\n\n".join([*blocks, f"[This notebook as a file]({path.name})"])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills in what the code says."""
    if page.file.src_uri == "settings.md":
        return markdown.replace("<!-- settings -->", settings_page())
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


def settings_page() -> str:
    """Returns a heading and a table for each section of the experiment file."""
    lines = ["## The top level", "", "| key | what it is |", "|---|---|"]
    for name, field in Config.model_fields.items():
        key = f"[`{name}`](#{name})" if name in ("problem", *sections()) else f"`{name}`"
        lines.append(f"| {key} | {_escaped(allowed(field))} |")
    for name, section in sections().items():
        if name == FIRST_PROBLEM:
            lines += ["", "## problem", "", "The keys depend on `kind`."]
        level = "###" if name.startswith("problem.") else "##"
        summary = (section.__doc__ or "").split("\n\n")[0].replace("``", "`")
        lines += ["", f"{level} {name}", "", summary, "", *_table(settings(name), f"{name}.")]
    return "\n".join(lines)


def _table(rows: Sequence[Setting], prefix: str = "") -> list[str]:
    """Returns a table of settings, without what their keys have in common."""
    if not rows:
        return ["No settings."]
    lines = ["| key | default | what it is |", "|---|---|---|"]
    for key, default, description in rows:
        lines.append(f"| `{key.removeprefix(prefix)}` | `{default}` | {_escaped(description)} |")
    return lines


def _escaped(text: str) -> str:
    """Returns plain text as Markdown for the cell of a table."""
    for character in "|*{}_<":
        text = text.replace(character, f"&#{ord(character)};")
    return text
