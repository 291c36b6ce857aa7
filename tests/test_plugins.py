"""A PDE of the user's, in a file of their own or handed in from Python, works everywhere."""

import json
import linecache
import re
import sys
import threading
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from tiny import SECTIONS

import multigrid
from multigrid.__main__ import main
from multigrid.config import dump_config, load_config, parse_config, parse_saved
from multigrid.data.generation import Block, Recipe, _can_travel, _generate_in_pool
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.problems.cno import Wave
from multigrid.registry import PROBLEMS, Registry, import_plugin

HEAT = '''
from typing import Annotated

import numpy as np
from pydantic import Field

from multigrid import PDE, Symmetries, register_problem


@register_problem("{name}")
class Heat(PDE):
    """u_t = nu Laplace(u) on the periodic unit square, one mode."""

    input_names = ("u",)
    output_names = ("u_next",)
    symmetries = Symmetries(linear=True, homogeneous=True)
    periodic = True
    time_dependent = True

    def __init__(self, nu: Annotated[float, Field(gt=0, description="a diffusivity")] = 0.01):
        self.nu = nu

    def sample(self, grid, rngs):
        x, y = np.meshgrid(*grid.axes(), indexing="ij")
        waves = [np.sin(2 * np.pi * (x - rng.uniform())) * np.cos(2 * np.pi * y) for rng in rngs]
        u = np.stack(waves)[:, None]
        return u, np.exp(-8 * np.pi**2 * self.nu) * u

    def trajectory(self, grid, rng, num_steps):
        u = self.sample(grid, [rng])[0]
        decay = np.exp(-8 * np.pi**2 * self.nu * np.arange(num_steps + 1))
        return decay.reshape(-1, 1, 1, 1) * u
'''


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """What is registered here is forgotten afterwards."""
    PROBLEMS.names()  # has all of the package's own registered first
    monkeypatch.setattr(PROBLEMS, "_items", dict(PROBLEMS._items))


@pytest.fixture
def plugin(tmp_path):
    """A file that registers a PDE under its own name; forgotten afterwards."""
    name = f"heat_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(HEAT.replace("{name}", name))
    path, modules = list(sys.path), set(sys.modules)
    yield name
    sys.path[:] = path
    forget(name)
    for module in set(sys.modules) - modules:
        if module.startswith("heat_"):
            del sys.modules[module]


def forget(name):
    PROBLEMS._items.pop(name, None)
    sys.modules.pop(name, None)


@pytest.fixture
def experiment(tmp_path, plugin, monkeypatch):
    """An experiment file that names the plugin, and its folder as the current one."""
    monkeypatch.chdir(tmp_path)
    raw = {
        **SECTIONS,
        "name": "own",
        "plugins": [f"{plugin}.py"],
        "problem": {"kind": plugin, "nu": 0.02},
        "output": {"folder": "results"},
    }
    raw["data"] = {**raw["data"], "rollout_steps": 2, "folder": "data"}
    raw["data"]["extra_tests"] = {"faster": {"nu": 0.05}}
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(raw))
    return path


def test_a_pde_in_a_file_works_with_every_command(experiment, plugin, capsys):
    assert main(["generate", str(experiment)]) == 0
    assert main(["run", str(experiment)]) == 0
    assert main(["run", str(experiment), "--resume"]) == 0
    summary = json.loads((experiment.parent / "results/own/summary.json").read_text())
    assert len(summary["rollout"]) == 2
    assert set(summary["extra_tests"]) == {"faster"}
    capsys.readouterr()
    forget(plugin)
    assert main(["evaluate", "results/own"]) == 2
    sentence = capsys.readouterr().err
    assert f"{plugin}.py: give that as --plugin, or import it before" in sentence
    assert main(["evaluate", "results/own", "--plugin", f"{plugin}.py"]) == 0
    forget(plugin)
    assert main(["plot", "results/own", "--plugin", f"{plugin}.py"]) == 0
    surrogate = multigrid.load("results/own")
    assert surrogate(np.ones((1, 1, *surrogate.finest.shape))).shape[1] == 1


def test_the_constructor_defines_the_section(experiment, plugin):
    config = load_config(experiment)
    assert config.pde().parameters == {"nu": 0.02}
    assert load_config(experiment, [f"problem={{kind: {plugin}}}"]).pde().nu == 0.01
    with pytest.raises(UserError, match=r"problem\.nu: -1 is not allowed; it must be a diffusiv"):
        load_config(experiment, ["problem.nu=-1"])
    with pytest.raises(UserError, match=r"problem\.mu: unknown key; .* did you mean 'nu'"):
        load_config(experiment, ["problem.mu=1"])
    with pytest.raises(UserError, match=r"extra_tests\.faster: problem\.nu: 0 is not allowed"):
        load_config(experiment, ["data.extra_tests.faster.nu=0"])


def test_a_pde_handed_in_from_python():
    class Shift(multigrid.PDE):
        """Moves a wave."""

        input_names = ("u",)
        output_names = ("v",)

        def __init__(self, distance: int = 1) -> None:
            self.distance = distance

        def sample(self, grid, rngs):
            u = np.stack([rng.standard_normal((1, *grid.shape)) for rng in rngs])
            return u, np.roll(u, self.distance, axis=2)

    raw = {key: value for key, value in SECTIONS.items() if key != "problem"}
    config = parse_config({**raw, "name": "x"}, problem=Shift(np.int64(3)))
    assert config.problem.model_dump() == {"kind": "shift", "distance": 3}
    assert config.pde().distance == 3
    saved = config.model_dump()
    assert parse_saved(saved, "checkpoint").pde().distance == 3
    del PROBLEMS._items["shift"]
    with pytest.raises(UserError, match=r"checkpoint: problem\.kind: \"shift\" is not allowed"):
        parse_saved(saved, "checkpoint")


class Untyped(multigrid.PDE):
    input_names = output_names = ("u",)

    def __init__(self, size=3):
        self.size = size

    def sample(self, grid, rngs):
        raise NotImplementedError


class Forgetful(Untyped):
    def __init__(self, length: int = 3):
        pass


@dataclass
class Locked:
    lock: threading.Lock


class Rich(multigrid.PDE):
    """Has attributes of many kinds, all of which follow from its parameters."""

    input_names = output_names = ("u",)

    def __init__(self, size: list[int]) -> None:
        self.size = tuple(size)
        self.waves = np.arange(size[0]) / np.float64(size[0] - 1)
        self.table = {"nan": float("nan"), "numbers": [np.float32(0.5), self.waves]}
        self.helper = lambda x: x + size[0]
        self.lock = Locked(threading.Lock())
        self.cache = self._matrix = None

    @cached_property
    def slow(self):
        return 3

    def sample(self, grid, rngs):
        raise NotImplementedError


def test_a_pde_handed_in_is_what_its_parameters_make():
    raw = {**SECTIONS, "name": "x"}
    rich = Rich([3, 4])
    assert rich.slow == 3
    assert parse_config(raw, problem=rich).pde().size == (3, 4)

    def differing(name, value):
        rich = Rich([3, 4])
        setattr(rich, name, value)
        return rich

    for name, value in (("size", [3, 4]), ("cache", 3), ("_matrix", 3), ("_more", 3)):
        assert parse_config(raw, problem=differing(name, value)).kind == "rich"
    assert parse_config(raw, problem=Wave(num_modes=4, decay=1)).pde().decay == 1.0
    for name, other in (
        ("waves", differing("waves", np.ones(3))),
        ("table", differing("table", {"nan": float("nan"), "numbers": []})),
        ("helper", differing("helper", None)),
        ("more", differing("more", 3)),
        ("symmetries", differing("symmetries", multigrid.Symmetries(linear=True))),
    ):
        sentence = rf"problem: the attribute '{name}' of the Rich handed in is not that of one "
        with pytest.raises(UserError, match=sentence):
            parse_config(raw, problem=other)


class Doubling(Untyped):
    hidden = 1

    def __init__(self, size: int = 3, hidden: int = 1):
        self.size, self._hidden = 2 * size, hidden


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        (Doubling(), r"the attribute 'size' of the Doubling handed in is not that of one built fr"),
        (Doubling(0, 2), r"the attribute '_hidden' of .* from its parameters, .*\"hidden\": 1"),
        (Untyped(), r"constructor of Untyped has a parameter 'size'; each needs a type"),
        (Forgetful(), r"Forgetful must keep its constructor's parameters as attributes"),
        (3, "must be an object of a subclass of PDE, not 3"),
    ],
)
def test_pdes_that_cannot_be_used(problem, sentence):
    with pytest.raises(UserError, match=sentence):
        parse_config({**SECTIONS, "name": "x"}, problem=problem)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("class Bad(PDE):\n    input_names = ('u',)", "the class Bad has no method sample"),
        ("class Bad:\n    pass", "Bad'> is registered, but is no subclass of PDE"),
        ("class Bad(PDE):\n    sample = print", "Bad.input_names is None; a tuple of different"),
        (
            "class Bad(PDE):\n    sample = print\n    input_names = ('u')",
            "Bad.input_names is 'u'; a tuple of different names is expected, as in",
        ),
    ],
)
def test_registered_classes_that_are_no_pdes(tmp_path, monkeypatch, content, sentence):
    monkeypatch.setattr(PROBLEMS, "_items", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    text = f"from multigrid import PDE, register_problem\n@register_problem('bad')\n{content}\n"
    name = f"bad_{abs(hash(content))}.py"
    (tmp_path / name).write_text(text)
    raw = {**SECTIONS, "name": "x", "plugins": [name], "problem": {"kind": "bad"}}
    (tmp_path / "e.yaml").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_config(tmp_path / "e.yaml").pde()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("nowhere.py", None, "there is no such file"),
        ("no-name.py", "", "'no-name' is not a name that Python can import"),
        ("json.py", "", "there is another module 'json'; rename the file"),
        ("heat_bad.py", "x = 1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("heat_odd.py", "def f(:", "cannot be imported: SyntaxError"),
        ("heat_nowhere", None, "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_plugins_that_cannot_be_imported(tmp_path, name, content, sentence):
    place = tmp_path / name if name.endswith(".py") else name
    if content is not None:
        place.write_text(content)
    with pytest.raises(UserError, match=f"plugins: .*{name}.*{sentence}"):
        import_plugin(str(place))


@pytest.mark.parametrize(
    "change",
    [
        ("np.cos(2 * np.pi * y)", "np.cos(4 * np.pi * y)"),
        ("import numpy", "HELP = 1\nimport numpy"),
    ],
)
def test_samples_follow_the_code_of_a_pde_of_the_users(experiment, plugin, change):
    first = Recipe(load_config(experiment).pde(), Grid((8, 8)), 0).fingerprint
    file = experiment.parent / f"{plugin}.py"
    file.write_text(file.read_text().replace(*change))
    forget(plugin)
    linecache.clearcache()
    again = Recipe(load_config(experiment).pde(), Grid((8, 8)), 0).fingerprint
    assert first != again


def test_workers_sample_a_pde_from_a_file(experiment):
    recipe = Recipe(load_config(experiment).pde(), Grid((8, 8)), 0)
    blocks = [Block("train", i, i + 2) for i in (0, 2)]
    here = [(block, recipe.make(block)) for block in blocks]
    there = list(_generate_in_pool(recipe, blocks, workers=2))
    for (_, one), (_, other) in zip(here, there, strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_classes_that_no_worker_can_import_are_sampled_here():
    class Local(Untyped):
        """Cannot be pickled."""

    assert not _can_travel(Recipe(Local(), Grid((8, 8)), 0))
    assert _can_travel(Recipe(Untyped(), Grid((8, 8)), 0))


def test_reading_a_saved_configuration_imports_nothing(experiment, plugin):
    saved = dump_config(load_config(experiment))
    forget(plugin)
    (experiment.parent / "config.yaml").write_text(saved)
    with pytest.raises(UserError, match="give that as --plugin"):
        parse_saved(json.loads(experiment.read_text()), "checkpoint")
    assert plugin not in sys.modules


def test_a_name_is_given_once():
    registry = Registry("thing", "multigrid.errors")
    registry.register("a")(len)
    registry.register("a")(len)
    with pytest.raises(UserError, match=r"the thing 'a' is registered already, by builtins\.len"):
        registry.register("a")(max)
    with pytest.raises(UserError, match=r"no thing 'aa'; there are a; did you mean 'a'\?"):
        registry.get("aa")
