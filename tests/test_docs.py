"""What the README and the pages in ``docs/`` show works: Python, experiments and commands.

Blocks ``python`` of a page run in order, with smaller numbers. A block with a ``title`` is a file
that those after it use.
"""

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny import train, write_experiment

from multigrid.config import load_config, parse_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r'^```(\w+)(?: title="(.*?)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)
SMALLER = (
    ("1000, 64, 64", "56, 16, 16"),
    ("100, 20, 2, 64, 64", "20, 6, 2, 16, 16"),
    ("np.random.rand(100)", "np.random.rand(20)"),
    ("800", "32"),
    ("100", "12"),
    ("256", "16"),
    ('"validation": 32, "test": 32', '"validation": 8, "test": 8'),
    ("[16, 32, 64]", "[8, 16]"),
    ("[32, 64]", "[8, 16]"),
    ("[16, 32]", "[8, 16]"),
    ("[30, 10, 3]", "1"),
    ("[20, 5]", "1"),
)


def name(page):
    return str(page.relative_to(ROOT))


def blocks(page):
    """Yields language, title and content of the blocks of a page."""
    yield from BLOCK.findall(page.read_text(encoding="utf-8"))


def pages_with(language):
    return [page for page in PAGES if any(block[0] == language for block in blocks(page))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    problem = {"kind": "poisson", "num_modes": 8}
    train(write_experiment(folder / "tiny.yaml", problem=problem), folder)
    return folder / "results" / "tiny"


@pytest.fixture
def workplace(trained, tmp_path, monkeypatch):
    """A folder with the files that the pages use."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("multigrid.report.write_report", lambda *args: [])
    (tmp_path / "experiments").mkdir()
    problem = {"kind": "poisson", "num_modes": 8}
    write_experiment(tmp_path / "experiments" / "poisson.yaml", problem=problem)
    np.save(tmp_path / "sources.npy", np.ones((16, 1, 16, 16)))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "poisson").symlink_to(trained)
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("page", pages_with("python"), ids=name)
def test_python(page, workplace):
    names: dict[str, object] = {}
    for language, title, content in blocks(page):
        if "import optuna" in content and find_spec("optuna") is None:
            continue
        for old, new in SMALLER:
            content = content.replace(old, new)
        if title:
            (workplace / title).write_text(content)
        elif language == "python":
            exec(compile(content, page.name, "exec"), names)


@pytest.mark.parametrize("page", pages_with("yaml"), ids=name)
def test_experiments(page, workplace):
    """A block with a title is a whole experiment, others are sections of one."""
    rest = {"name": "docs", "problem": {"kind": "poisson"}, "levels": [16, 32, 64, 128]}
    for language, title, content in blocks(page):
        if title:
            (workplace / title).write_text(content)
            if language == "yaml":
                assert load_config(workplace / title).name
        elif language == "yaml":
            assert parse_config({**rest, **yaml.safe_load(content)})


@pytest.mark.parametrize("page", pages_with("bash"), ids=name)
def test_commands_exist(page):
    """Each command and each experiment file that a page names is there, with its options."""
    from multigrid.__main__ import COMMANDS

    text = "\n".join(content for language, _, content in blocks(page) if language == "bash")
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for word in words:
            if word.startswith("experiments/"):
                assert (ROOT / word).exists(), word
        if words[:1] == ["multigrid"] and not words[1].startswith(("-", "<")):
            assert words[1] in COMMANDS, line


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 180
    assert 400 <= sum(len(line.split()) for line in lines) <= 1150


def test_links_and_figures_of_the_readme():
    for target in re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


def test_site(tmp_path):
    """Builds without a warning: pages, links, settings and reference."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    shown = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "num_blocks" in (tmp_path / "settings.html").read_text(encoding="utf-8")
    assert "multigrid.train" in (tmp_path / "reference.html").read_text(encoding="utf-8")
