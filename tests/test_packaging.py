"""What is installed, and what a user's script imports."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest

import multigrid

ROOT = Path(__file__).parents[1]


@pytest.fixture
def installed():
    """Skips unless ``pip install -e`` of this or another folder has installed the package."""
    for package in distributions(name="multigrid-surrogates"):  # an egg-info may come first
        address = json.loads(package.read_text("direct_url.json") or "{}")
        if address.get("dir_info", {}).get("editable"):
            return
    pytest.skip("there is no editable installation of multigrid-surrogates")


@pytest.mark.usefixtures("installed")
def test_a_script_beside_the_clone_imports_the_package(tmp_path):
    """The folder of the clone may be called multigrid; it must not hide the package."""
    clone = tmp_path / "multigrid"
    clone.mkdir()
    (clone / "README.md").touch()
    script = tmp_path / "script.py"
    script.write_text("import multigrid\nprint(multigrid.Grid((8, 8), 'cell').shape)\n")
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
    shown = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == "(8, 8)\n"


def test_one_version_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == multigrid.__version__
    assert re.search(r"^## (\S+)", changes, re.MULTILINE)[1] == multigrid.__version__


def test_all_that_is_installed_is_pinned():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    wanted = list(project["dependencies"])
    for extra in ("test", "files", "docs"):
        wanted += project["optional-dependencies"][extra]
    names = [re.split(r"[<>=\[ ]", requirement)[0].lower() for requirement in wanted]
    names.remove(project["name"])  # which an extra names to include another
    assert [name for name in names if f"\n{name}==" not in pinned] == []
    assert (ROOT / "multigrid" / "py.typed").exists()


def test_every_file_of_the_package_is_installed():
    with (ROOT / "pyproject.toml").open("rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]["multigrid"]
    package = ROOT / "multigrid"
    data = [p for p in package.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    names = [path.relative_to(package) for path in data]
    assert Path("py.typed") in names
    assert [str(name) for name in names if not any(name.match(p) for p in patterns)] == []
