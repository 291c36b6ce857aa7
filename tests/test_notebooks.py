"""The notebooks in ``docs/``, on tiny sizes: plain Python, so that no kernel is needed."""

import json
import re
from pathlib import Path

import matplotlib
import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
TINY = 'size = {"train": 32, "levels": [8, 16], "epochs": [1, 1], "width": 4}'


@pytest.mark.parametrize("name", [path.name for path in sorted(FOLDER.glob("*.ipynb"))])
def test_notebooks_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("multigrid.report.write_report", lambda *args: [])
    matplotlib.use("agg")
    names: dict[str, object] = {"__name__": "__main__"}
    cells = json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    code[0], replaced = re.subn("^size = .*$", TINY, code[0], flags=re.MULTILINE)
    assert replaced == 1
    for cell in code:
        plain = "\n".join(line for line in cell.splitlines() if not line.startswith("%"))
        exec(compile(plain, name, "exec"), names)


def test_notebooks_stay_small():
    sizes = {path.name: path.stat().st_size for path in FOLDER.glob("*.ipynb")}
    assert len(sizes) == 4
    assert max(sizes.values()) < 250_000
