import copy
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

import multigrid
from multigrid.__main__ import main
from multigrid.config import (
    Config,
    changed_settings,
    dump_config,
    load_config,
    parse_config,
    parse_saved,
    read_saved,
)
from multigrid.config.experiment import settings
from multigrid.data.formats import open_fields
from multigrid.data.remote import local
from multigrid.errors import UserError
from multigrid.files import path_of
from multigrid.problems import Symmetries
from multigrid.problems.elliptic import Poisson
from multigrid.registry import import_plugin
from multigrid.run import configure

BASE = {
    "name": "demo",
    "problem": {"kind": "poisson", "num_modes": 8},
    "levels": [8, 16, 32],
    "model": {"min_size": 4},
}
FOLDER = Path(__file__).parents[1] / "experiments"
EXPERIMENTS = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("cno/*.yaml")])


def with_value(key, value):
    raw = copy.deepcopy(BASE)
    *sections, last = key.split(".")
    place = raw
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = value
    return raw


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "demo.yaml"
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("epochs", 5, r"^.*epochs: unknown key; .*did you mean 'schedule\.epochs'\?$"),
        ("data.padding", "zeros", r"data\.padding: unknown key; .*did you mean 'model\.padding'\?"),
        ("problem.train", 8, r"problem\.train: unknown key; .*did you mean 'data\.train'\?"),
        ("num_modes", 8, r"num_modes: unknown key; .*did you mean 'problem\.num_modes'\?"),
        ("history", 2, r"history: unknown key; .*did you mean 'data\.time\.history'\?"),
        ("modle", {}, r"modle: unknown key; allowed here: name, .*did you mean 'model'\?"),
        ("model.widht", 8, r"model\.widht: unknown key; .*did you mean 'width'\?"),
        ("problem.modes", 8, r"problem\.modes: unknown key; .*did you mean 'num_modes'\?"),
        ("model.width", {"outer": 8, "mx": 9}, r"model\.width\.mx: unknown .*mean 'max'\?"),
        ("levels", [{"grid": 8, "sample": 1}], r"levels\[0\]\.sample: unknown .*'samples'\?"),
        ("schedule.cycle", "halfv", r'schedule\.cycle: "halfv" is not .*did you mean \'half-v\''),
        ("problem.kind", "poison", r"problem\.kind: \"poison\" .*did you mean 'poisson'\?"),
    ],
)
def test_misspelt_names_are_told_with_the_nearest_one(key, value, sentence):
    with pytest.raises(UserError, match=sentence):
        parse_config(with_value(key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 5),
        ("name", "../escape"),
        ("name", "a/b"),
        ("name", ""),
        ("name", "x" * 101),
        ("seed", -1),
        ("seed", 2**32),
        ("seed", 1.5),
        ("seed", "1"),
        ("seed", True),
        ("data.train", 0),
        ("data.centering", "nodes"),
        ("model.width", 0),
        ("model.width", -8),
        ("model.width", "wide"),
        ("model.num_blocks", 0),
        ("model.depth", -1),
        ("model.padding", "circular"),
        ("model.prolongation", 0),
        ("schedule.epochs", -1),
        ("schedule.epochs", 2.0),
        ("schedule.batch_size", 0),
        ("schedule.learning_rate", 0),
        ("schedule.learning_rate", float("nan")),
        ("schedule.learning_rate", float("inf")),
        ("schedule.learning_rate", "1e-3"),
        ("schedule.transferred_ratio", 1.5),
        ("parallel.checkpoint_activations", 1),
        ("optimizer.betas", [0.9]),
        ("optimizer.clip", 0),
        ("loss.name", "l2"),
        ("compute.precision", "float16"),
        ("checkpoints.interval", 0),
        ("levels", []),
        ("levels", 16),
        ("data", 3),
        ("data", None),
    ],
)
def test_impossible_values_are_told_with_path_value_and_what_is_allowed(key, value):
    with pytest.raises(UserError) as caught:
        parse_config(with_value(key, value))
    sentence = str(caught.value)
    assert re.match(rf"configuration: {re.escape(key)}: .+ is not allowed; it must be .+", sentence)
    assert "\n" not in sentence
    assert "must be valid" not in sentence


@pytest.mark.parametrize(
    ("key", "value", "path"),
    [
        ("model.width", [8, 0, 8, 8], r"model\.width\[1\]: 0 "),
        ("schedule.epochs", [1, -2, 3], r"schedule\.epochs\[1\]: -2 "),
        ("schedule.epochs", [[1], 2, 3], r"schedule\.epochs\[0\]: \[1\] "),
        ("levels", [8, "16"], r"levels\[1\]: \"16\" "),
        ("levels", [8, [16, 0]], r"levels\[1\]\[1\]: 0 "),
        ("levels", [{"grid": 8, "samples": 0}], r"levels\[0\]\.samples: 0 "),
        ("model.width", {"outer": 0}, r"model\.width\.outer: 0 "),
    ],
)
def test_the_path_leads_into_lists_and_mappings(key, value, path):
    with pytest.raises(UserError, match=f"configuration: {path}is not allowed; it must be"):
        parse_config(with_value(key, value))


@pytest.mark.parametrize("key", ["name", "problem", "levels"])
def test_missing_keys(key):
    raw = {k: v for k, v in BASE.items() if k != key}
    with pytest.raises(UserError, match=rf"^configuration: {key}: missing; it must be "):
        parse_config(raw)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("schedule.epochs", [1, 2], r"schedule\.epochs: the list has 2 entries, but .* 3 levels"),
        ("schedule.batch_size", [8] * 4, r"schedule\.batch_size: the list has 4 entries"),
        ("schedule.learning_rate", [], r"schedule\.learning_rate: the list has 0 entries"),
        ("levels", [8, 16, 16], r"levels\[2\]: 16x16 must be finer than 16x16"),
        ("levels", [16, 8], r"levels\[1\]: 8x8 must be finer than 16x16"),
        ("levels", [8, 16, 36], r"levels\[2\]: .* 36x36 .* nearest size that can is 32x32"),
        ("levels", [[8, 8, 8]], r"levels\[0\]: \[8, 8, 8\] must have 2 numbers"),
        ("levels", [2, 8], r"levels\[0\]: 2 points are too few, at least 4"),
        ("levels", [{"grid": 8, "samples": 2000}, 16], r"levels\[0\]\.samples: 2000 is more than"),
        ("model.width", [8, 8], r"model\.width: the list has 2 .* 4 scales: 4x4, 8x8, 16x16, 32x"),
        ("model.depth", 6, r"model\.depth: 6 scales below .* 8x8 are not possible, at most 2"),
        ("model.depth", 1, r"model\.min_size: 4 has no effect beside model\.depth 1; it"),
        ("model", {"growth": False, "width": [8] * 5}, r"5 entries, .* 3 scales: 8x8, 16x16"),
        ("data.train", 8, r"schedule\.batch_size: 16 is more than the 8 training samples"),
        ("schedule", "auto", None),
        (
            "schedule",
            {"epochs": "auto", "budget": {"work_units": 4.0, "seconds": 60.0}},
            r"schedule\.budget: give either 'work_units' or 'seconds'",
        ),
        (
            "schedule.budget",
            {"seconds": 60.0},
            r"schedule\.budget: is for 'schedule\.epochs: auto'",
        ),
        (
            "data",
            {"extra_tests": {"a": {"ndim": 3}}},
            r"extra_tests\.a: it must leave the number of",
        ),
        ("data", {"mode_shifts": 0.5, "augmentation": "none"}, r"mode_shifts: 0\.5 has no effect"),
        ("recovery", {"tries": 0, "factor": 0.5}, r"recovery\.factor: 0\.5 has no effect"),
        ("transfer", {"patience": 7}, r"transfer\.patience: 7 has no effect"),
        ("output.num_predictions", 16, None),
        ("data.test", 2, r"output\.num_predictions: 3 is more than data\.test, 2"),
        ("problem.num_modes", 64, r"problem\.num_modes: 64 .* 32 points of the finest level"),
    ],
)
def test_settings_that_do_not_fit_together(key, value, sentence):
    raw = with_value(key, value)
    if sentence is None:
        parse_config(raw)
        return
    with pytest.raises(UserError, match=sentence):
        parse_config(raw)


FILES = {"kind": "file", "file": "f.npz", "input": ["f", "mask"], "output": "u"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": {"seed": 1}}, r"data\.seed: 1 has no effect beside samples from files"),
        ({"symmetries": ["reflections", "odd"]}, None),
        ({"mask": "mask", "symmetries": ["reflections", "rotations", "shifts"]}, None),
        ({"mask": "mask", "symmetries": ["odd"]}, r"'auto' would mix or negate the masks .* odd;"),
        ({"mask": "mask", "symmetries": ["linear", "odd"]}, r"have linear and odd; leave that out"),
        ({"mask": "mask", "symmetries": ["odd"], "data": {"augmentation": "none"}}, None),
    ],
)
def test_settings_of_files_that_do_not_fit_together(changes, sentence):
    raw = {**BASE, "data": changes.pop("data", {}), "problem": {**FILES, **changes}}
    if sentence is None:
        parse_config(raw)
        return
    with pytest.raises(UserError, match=sentence):
        parse_config(raw)
    assert parse_saved(raw, "run").name == "demo"  # an earlier version has taken it


def test_masks_of_a_pde_are_not_negated_by_mirrors():
    class Vortex(Poisson):
        mask_channel = 0
        symmetries = Symmetries(reflections=True, mirror_signs=(-1, -1, -1))

    with pytest.raises(UserError, match=r"'auto' would mix .* have mirror_signs"):
        parse_config(BASE, problem=Vortex(num_modes=8))


def test_widths_without_growth_are_those_of_the_network_of_level_0():
    config = parse_config(with_value("model", {"growth": False, "width": {"outer": 8}}))
    assert config.widths(config.hierarchy()) == [32, 16, 8]
    config = parse_config(with_value("model", {"growth": False, "width": [4, 5, 6]}))
    assert config.widths(config.hierarchy()) == [4, 5, 6]


def test_the_number_of_modes_that_is_said_to_be_the_largest_is_the_largest():
    with pytest.raises(UserError, match="at most 32 are allowed"):
        parse_config(with_value("problem.num_modes", 33))


def nested(depth):
    return "a: " + "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- 1\n- 2", "must hold a mapping of settings, not a list"),
        ("", "must hold a mapping of settings, not empty"),
        ("just text", "must hold a mapping of settings, not a text"),
        ("name: [1, 2", "not valid YAML"),
        ("name: a\nname: b", "line 2, column 1: the key 'name' appears twice"),
        ("name: a\ndata:\n\tseed: 1", "cannot start any token; indent with spaces, not tabs"),
        ("data:\n  seed: 1\n  seed: 2", "the key 'seed' appears twice"),
        ("a: &x [1]\nb: *x", "aliases are not allowed"),
        (nested(30), "nested deeper than 20 levels"),
        (nested(50_000), "nested deeper than 20 levels"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("a: !!int x", "not valid YAML"),
        ('a: !!int ""', "not valid YAML"),
        ("a: \x00", "not valid YAML"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("#" * 200_001, "larger than 200,000 bytes"),
    ],
    ids=range(16),
)
def test_files_that_are_no_experiment(write, text, sentence):
    path = write(text)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]: 3",
        "{a: 1}: 3",
        "seed: {2020-01-01: 1}",
        "seed: 0x" + "f" * 5000,
        "seed: !!timestamp 3",
    ],
    ids=["list-key", "mapping-key", "date-key", "huge-number", "no-date"],
)
def test_odd_yaml(write, text):
    with pytest.raises(UserError):
        load_config(write(yaml.safe_dump(BASE) + text))


@pytest.mark.parametrize(
    ("text", "value"),
    [("024", 24), ("1_000", 1000), ("0x1F", 31), ("0o17", 15), ("+3", 3), ("7", 7)],
)
def test_numbers_are_read_as_people_mean_them(write, text, value):
    assert load_config(write(BASE), [f"data.train={text}", "schedule.batch_size=1"]).data.train == (
        value
    )


@pytest.mark.parametrize("text", ["1:20", "2001-01-01", "1__0", "0b11", "yes", "1e", "12,000"])
def test_texts_that_look_like_numbers_are_refused(write, text):
    with pytest.raises(UserError, match=r"data\.train: .* is not allowed"):
        load_config(write(BASE), [f"data.train={text}"])


def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(UserError, match="not a regular file"):
            load_config(path)


@pytest.mark.parametrize(
    "text",
    ["a: " + "[" * 19 + "1," * 90_000 + "]" * 19, "\n".join(f"k{i}: {i}" for i in range(15_000))],
    ids=["long-list", "many-keys"],
)
def test_large_files_are_refused_quickly(write, text):
    started = time.process_time()
    with pytest.raises(UserError):
        load_config(write(text))
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data.train=1000000000000", r"data\.train: 1000000000000 is not allowed; .* 1 to 10\^8"),
        (
            "levels=[16384,32768]",
            r"data: 1280 samples of 2 fields on 32768x32768 would take .*TB, ",
        ),
        ("problem.num_modes=100000", r"problem\.num_modes: 100000 is not allowed"),
    ],
)
def test_numbers_beyond_any_machine_are_told_at_once(write, override, sentence):
    started = time.perf_counter()
    with pytest.raises(UserError, match=sentence):
        load_config(write(BASE), [override])
    assert time.perf_counter() - started < 2


def test_names_of_files_are_expanded(write, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("HOME", "/home/me")
    names = [
        "data.folder=$SCRATCH/data",
        "output.folder=~/runs",
        "checkpoints.load=${SCRATCH}/a.pt",
    ]
    config = load_config(write(BASE), names)
    assert config.data.folder == "/scratch/me/data"
    assert config.output.folder == "/home/me/runs"
    assert config.checkpoints.load == "/scratch/me/a.pt"
    with pytest.raises(UserError, match=r"output\.folder: the environment variable \$NOWHERE in"):
        load_config(write(BASE), ["output.folder=$NOWHERE/runs"])

    with pytest.raises(
        UserError, match=r"output\.folder: there is no user 'nouser', in whose home"
    ):
        load_config(write(BASE), ["output.folder=~nouser/x"])


def test_names_of_files_are_expanded_wherever_they_enter(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HERE", str(tmp_path))
    (tmp_path / "a$b.yaml").touch()
    assert path_of("~/x.yaml") == path_of(Path("~/x.yaml")) == path_of("$HERE/x.yaml")
    assert path_of(tmp_path / "a$b.yaml") == tmp_path / "a$b.yaml"
    assert path_of("~/a$b.yaml") == tmp_path / "a$b.yaml"
    write(BASE).rename(tmp_path / "mine.yaml")
    for name in ("~/mine.yaml", "$HERE/mine.yaml", Path("~/mine.yaml")):
        assert configure(name).name == BASE["name"]
    calls = (
        configure,
        multigrid.load,
        lambda name: multigrid.compare([name]),
        multigrid.figures,
        local,
        open_fields,
        lambda name: import_plugin(name + ".py"),
    )
    for call in calls:
        with pytest.raises(UserError, match=r"there is no user 'nouser', in whose home folder"):
            call("~nouser/x")
        with pytest.raises(UserError, match=r"the environment variable \$NOWHERE in"):
            call("$NOWHERE/x")


def test_quoted_names_of_files_are_expanded_by_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    for command in (
        ["run", "~/x"],
        ["floors", "~/x"],
        ["evaluate", "~/x"],
        ["predict", "~/x", "~/i.npy", "~/o.npy"],
        ["plot", "~/x"],
        ["compare", "~/x"],
        ["inspect", "~/x"],
    ):
        assert main(command) == 2
        assert capsys.readouterr().err.startswith(f"error: {tmp_path}/x: ")
    with pytest.raises(SystemExit):
        main(["evaluate", "~nouser/x"])
    assert "argument run: there is no user 'nouser'" in capsys.readouterr().err


def test_levels_from_anything_that_lists_them():
    for levels in ((8 * 2**k for k in range(2)), {8: "", 16: ""}.keys(), map(int, ("8", "16"))):
        assert configure({**BASE, "levels": levels}).levels == [8, 16]


def test_values_from_python_are_accepted(tmp_path):
    raw = {
        **BASE,
        "seed": np.int64(3),
        "levels": (8, np.int32(16)),
        "data": {"folder": tmp_path, "train": np.uint16(64)},
        "schedule": {"epochs": range(2, 4), "learning_rate": np.array([1e-3, 1e-4])},
        "optimizer": {"clip": np.float32(0.5)},
    }
    config = parse_config(raw)
    assert (config.seed, config.levels, config.data.folder) == (3, [8, 16], str(tmp_path))
    assert config.schedule.epochs == [2, 3]
    assert config.schedule.learning_rate == [1e-3, 1e-4]
    assert parse_config(yaml.safe_load(dump_config(config))) == config


def test_sentences_escape_what_could_pass_for_another_line(write):
    with pytest.raises(UserError) as caught:
        parse_config({**BASE, "a\nerror: b\x1b[2J": 1})
    assert str(caught.value).isprintable()
    assert r"a\nerror: b\x1b[2J: unknown key" in str(caught.value)


def test_every_setting_has_a_description():
    rows = settings()
    assert [row for row in rows if not row.description or row.description == "valid"] == []
    assert {"name", "schedule.epochs", "problem.darcy.high"} <= {row.key for row in rows}
    assert settings("loss")[0] == ("loss.name", '"rel_l2"', rows_by_key(rows)["loss.name"])
    with pytest.raises(UserError, match=r"no section 'schedul'.*did you mean 'schedule'"):
        settings("schedul")


def rows_by_key(rows):
    return {row.key: row.description for row in rows}


def test_unreadable_files(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "nowhere.yaml")
    (tmp_path / "flow.yaml").write_text("name: flow")
    with pytest.raises(UserError, match=r"flw\.yaml: cannot .*; did you mean 'flow\.yaml'\?$"):
        load_config(tmp_path / "flw.yaml")
    with pytest.raises(UserError, match=r"No such file or directory \(nor a folder '.*none'\)$"):
        load_config(tmp_path / "none" / "flow.yaml")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: caf\xe9")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(path)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=3", "seed", 3),
        ("name=other", "name", "other"),
        ("model.width=16", "model.width", 16),
        ("model.width=[4, 5, 6, 7]", "model.width", [4, 5, 6, 7]),
        ("schedule.epochs=[2,1,1]", "schedule.epochs", [2, 1, 1]),
        ("schedule.learning_rate=1e-3", "schedule.learning_rate", 1e-3),
        ("schedule.warmup=.5e-1", "schedule.warmup", 0.05),
        ("schedule.learning_rate=[1e-2,2.5E-3,5]", "schedule.learning_rate", [0.01, 0.0025, 5]),
        ("levels=[[8, 16], [16, 32]]", "levels", [[8, 16], [16, 32]]),
        ("optimizer.clip=null", "optimizer.clip", None),
        ("schedule={epochs: 4}", "schedule.epochs", 4),
        ("model.growth=false", "model.growth", False),
        (" seed = 3", "seed", 3),
    ],
)
def test_overrides(write, override, key, value):
    found = load_config(write(BASE), [override])
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


def test_later_overrides_win_and_others_stay(write):
    path = write(with_value("model.num_blocks", 2))
    config = load_config(path, ["model.width=4", "model.width=8"])
    assert (config.model.width, config.model.num_blocks) == (8, 2)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seed", "must have the form section.key=value"),
        ("=3", "must have the form section.key=value"),
        ("data..train=3", "must have the form section.key=value"),
        ("levels=[8,16", "the value is not valid YAML"),
        ("levels=" + "[" * 100, "nested deeper than 20 levels"),
        ("name.x=3", "name is not a mapping but a text"),
        ("levels.0=3", "levels is not a mapping but a list"),
        ("sede=3", "sede: unknown key"),
        ("seed=", "seed: null is not allowed"),
    ],
)
def test_bad_overrides(write, override, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_config(write(BASE), [override])


RICH = [
    BASE,
    with_value("levels", [{"grid": [8, 16], "samples": 40}, [16, 32], {"grid": [32, 64]}]),
    with_value("model.width", {"outer": 8, "max": 64}),
    with_value("schedule.learning_rate", [1e-5, 2e-7, 3.0]),
    with_value("optimizer.clip", None),
    with_value("data.folder", "a: b # c"),
]


@pytest.mark.parametrize("raw", RICH)
def test_dump_and_load_is_the_identity(write, raw):
    config = parse_config(raw)
    again = load_config(write(dump_config(config)))
    assert again == config
    assert changed_settings(config, again) == []


@pytest.mark.parametrize("name", ["1e3", "0e0"])
def test_names_that_look_like_numbers_survive(write, name):
    config = parse_config(with_value("name", name))
    assert load_config(write(dump_config(config))) == config


def test_configurations_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        parse_config(BASE).seed = 3


def test_changed_settings():
    old = parse_config(BASE)
    new = parse_config(with_value("model.width", [8, 8, 8, 8]) | {"seed": 1})
    assert changed_settings(old, new) == ["seed", "model.width"]
    more = parse_config(with_value("loss.weights", {"u": 2.0}))
    assert changed_settings(old, more) == changed_settings(more, old) == ["loss.weights.u"]
    doubling = parse_config(with_value("model.width", {"outer": 8}))
    keys = ["model.width", "model.width.outer", "model.width.max"]
    assert changed_settings(old, doubling) == keys


def test_widths_by_rule():
    hierarchy = parse_config(BASE).hierarchy()

    def widths(value):
        return parse_config(with_value("model.width", value)).widths(hierarchy)

    assert widths(24) == [24] * 4
    assert widths({"outer": 8}) == [64, 32, 16, 8]
    assert widths({"outer": 8, "max": 20}) == [20, 20, 16, 8]
    assert widths([9, 7, 5, 3]) == [9, 7, 5, 3]


def test_settings_per_level():
    config = parse_config(with_value("levels", [{"grid": 8, "samples": 100}, 16, 32]))
    assert config.samples() == [100, 1024, 1024]
    assert config.per_level("epochs") == [10, 10, 10]
    config = parse_config(with_value("schedule.epochs", [3, 2, 0]))
    assert config.per_level("epochs") == [3, 2, 0]


def keys_of(model):
    return list(model.model_fields) + [
        key
        for field in model.model_fields.values()
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields")
        for key in field.annotation.model_fields
    ]


KEYS = st.sampled_from([*keys_of(Config), "grid", "samples", "outer", "max", "nonsense"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5000)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["poisson", "node", "half-v", "demo", "muon", "group"])
)
JUNK = st.recursive(
    SCALARS,
    lambda part: st.lists(part, max_size=4) | st.dictionaries(KEYS | SCALARS, part, max_size=4),
    max_leaves=12,
)


@limits(deadline=None, max_examples=200)
@given(st.dictionaries(KEYS, JUNK, max_size=6), st.booleans())
def test_junk_gives_a_configuration_or_a_sentence(junk, on_top_of_valid):
    raw = {**BASE, **junk} if on_top_of_valid else junk
    try:
        result = parse_config(raw)
    except UserError as error:
        result = str(error)
    assert isinstance(result, Config) or "\n" not in result


@limits(deadline=None, max_examples=200)
@given(st.dictionaries(KEYS, JUNK, max_size=6))
def test_valid_settings_survive_a_round_trip(junk):
    try:
        config = parse_config({**BASE, **junk})
    except UserError:
        return
    assert parse_config(yaml.safe_load(dump_config(config))) == config


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_shipped_experiments_are_valid(path):
    assert load_config(path).name.removeprefix("cno_") == path.stem


def test_there_are_shipped_experiments():
    assert "poisson" in [path.stem for path in EXPERIMENTS]


def test_overrides_leave_the_callers_dictionary_alone():
    raw = copy.deepcopy(BASE)
    assert configure(raw, "problem.num_modes=5", "name=other").problem.num_modes == 5
    assert raw == BASE


@pytest.mark.parametrize(
    "key", ["recovery.split_batches", "schedule.stop_at_interpolation_error", "optimizer.decay"]
)
def test_what_an_earlier_version_set_is_passed_over_in_its_runs_alone(write, key):
    path = write(with_value(key, False))
    assert read_saved(path) == read_saved(write(BASE))
    with pytest.raises(UserError, match=f"{key}: unknown key"):
        load_config(write(with_value(key, False)))


def test_a_key_of_an_earlier_version_is_passed_over_where_its_value_is_what_there_is_now(write):
    saved = read_saved(write(with_value("model.bottleneck", "conv")))
    assert saved.model == read_saved(write(BASE)).model
    with pytest.raises(UserError, match=r"model\.bottleneck: unknown key"):
        read_saved(write(with_value("model.bottleneck", "dense")))


def test_the_section_transfer_of_an_earlier_version_does_not_matter(write):
    old = {"regime": "fine-tuning", "warmup": 0.1, "rules": [{"level": 0, "freeze": True}]}
    assert read_saved(write({**BASE, "transfer": old})).transfer.mode == "finetuning"
    with pytest.raises(UserError, match=r"transfer\..*: unknown key"):
        load_config(write({**BASE, "transfer": old}))
