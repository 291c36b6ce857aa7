"""Imports point downwards only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "multigrid"

FLOORS = {
    "values": {"errors", "grid", "options", "registry", "files", "tables", "zoo"},
    "tools": {
        "fields",
        "hardware",
        "metrics",
        "signals",
    },
    "equations": {"solvers", "problems"},
    "settings": {"config", "plots", "records"},
    "families": {"data", "models"},
    "do": {"distributed", "schedule", "training"},
    "drive": {"ladder", "measurement", "report", "surrogate"},
    "run": {"run", "cli"},
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor_of(module):
    room = "run" if module.endswith("__main__") else module.split(".")[1]
    for number, rooms in enumerate(FLOORS.values()):
        if room in rooms:
            return number
    return None


def imports(module):
    """The project's modules that a module names in its import statements, wherever they stand."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found |= {
                name if (name := f"{node.module}.{alias.name}") in MODULES else node.module
                for alias in node.names
            }
    return {name for name in found if name in MODULES and name != "multigrid"}


ROOMS = [module for module in MODULES if module != "multigrid"]


def test_the_parser_sees_imports():
    assert {"multigrid.errors", "multigrid.grid"} <= imports("multigrid.config.experiment")
    assert "multigrid.ladder.ladder" in imports("multigrid.run")


@pytest.mark.parametrize("module", ROOMS)
def test_every_module_has_a_floor(module):
    assert floor_of(module) is not None


@pytest.mark.parametrize("module", ROOMS)
def test_imports_point_downwards(module):
    floor = floor_of(module)
    assert [name for name in imports(module) if floor_of(name) > floor] == []


def test_there_are_no_import_cycles():
    todo = {module: imports(module) - {module} for module in ROOMS}
    while free := [module for module, needs in todo.items() if not needs]:
        for module in free:
            del todo[module]
        for needs in todo.values():
            needs.difference_update(free)
    assert todo == {}, "these modules import each other, directly or not"


@pytest.mark.parametrize("module", ["multigrid.config", "multigrid.run"])
def test_settings_are_checked_without_waiting_for_torch(module):
    code = f"import sys, {module}; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_generated_samples_need_no_readers_of_files():
    code = "import sys, multigrid.ladder.ladder; print('multigrid.data.formats' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_only_the_configuration_knows_yaml():
    knows = {m for m in ROOMS if "import yaml" in MODULES[m].read_text(encoding="utf-8")}
    assert knows == {"multigrid.config.yaml_file"}


def test_pictures_and_tables_do_not_know_torch():
    rooms = (
        "multigrid.plots",
        "multigrid.tables",
        "multigrid.records.history",
        "multigrid.records.examples",
        "multigrid.records.history",
    )
    modules = [module for module in ROOMS if module.startswith(rooms)]
    assert len(modules) > len(rooms)
    modules += ["multigrid.report.page"]
    code = f"import sys, {', '.join(modules)}; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
