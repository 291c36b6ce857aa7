"""The commands: help, examples, answers for scripts, and mistakes."""

import contextlib
import dataclasses
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import sandbox
import yaml
from tiny import sweep_here

import multigrid
from experiments.benchmarks import __main__ as benchmark
from multigrid.__main__ import find, main
from multigrid.cli import COMMANDS, doctor
from multigrid.data.store import DataStore
from multigrid.files import to_json
from multigrid.records.history import read_history, write_history
from multigrid.report import draw_figures
from multigrid.report.record import RunRecord, remarks
from multigrid.signals import check, deferred

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sandbox")
    sandbox.build(folder)
    return folder


@pytest.fixture
def place(original, tmp_path, monkeypatch):
    """A copy of the sandbox, and we are in it."""
    folder = tmp_path / "place"
    shutil.copytree(original, folder)
    monkeypatch.chdir(folder)
    return folder


def ask(capsys, *arguments):
    """Returns what a successful command prints."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


def refuse(capsys, *arguments):
    """Returns the one sentence of a command that fails."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    return shown.err


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_help_work(name, place, capsys, monkeypatch):
    command = find(name)
    if name == "run":
        shutil.rmtree("results")
        monkeypatch.setattr("multigrid.report.write_report", lambda *args: [])
    if name == "sweep":
        sweep_here(monkeypatch)
    if name == "benchmark":
        suite = benchmark.SUITES["poisson_128"]
        direct = ("schedule.cycle=single", "schedule.epochs=16")
        methods = [
            dataclasses.replace(method, overrides=changes, rates=())
            for method, changes in zip(suite.methods[:2], ((), direct), strict=True)
        ]
        small = dataclasses.replace(suite, overrides=(), seeds=(0,), methods=tuple(methods))
        monkeypatch.setitem(benchmark.SUITES, "poisson_128", small)
        monkeypatch.setattr("experiments.benchmarks.step.MATRIX_SIZE", 64)
    assert command.examples
    for example in command.examples:
        assert command.main(shlex.split(example)) == 0, (example, capsys.readouterr().err)
        if name == "run" and "--dry-run" in example:
            assert "total:" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_examples(name, capsys):
    with pytest.raises(SystemExit) as leaving:
        main([name, "--help"])
    assert leaving.value.code == 0
    shown = capsys.readouterr().out
    for example in find(name).examples:
        assert f"  multigrid {name} {example}" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *([name, "--help"] for name in COMMANDS),
        ["run", "gone.yaml"],
        ["generate", "gone.yaml"],
        ["inspect", "gone.h5"],
        ["plot", "gone"],
        ["compare", "gone"],
        ["predict", "gone", "a.npy", "a.txt"],
        ["evaluat"],
    ],
    ids=" ".join,
)
def test_help_and_mistakes_do_not_wait_for_torch(arguments):
    code = (
        "import sys\nfrom multigrid.__main__ import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)


def test_importing_the_package_is_nothing_beside_importing_torch():
    code = "import sys, multigrid; multigrid.UserError; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert shown.stdout.strip() == b"False"


def test_the_list_of_commands(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert main([]) == 2
    assert main(["--version"]) == 0
    assert multigrid.__version__ in capsys.readouterr().out


def test_an_unknown_command_gets_a_suggestion(capsys):
    assert "did you mean 'compare'?" in refuse(capsys, "compair")


def test_the_other_ways_to_call(place):
    for words in (
        ["multigrid", "inspect", "mine.h5", "--json", "--input", "coefficient", "--output",
         "solution"],
        ["experiments.benchmarks", "--help"],
        ["multigrid.run", "--help"],
    ):  # fmt: skip
        environment = {"PYTHONPATH": str(ROOT)}
        subprocess.run(
            [sys.executable, "-m", *words], env=environment, capture_output=True, check=True
        )


@pytest.mark.parametrize("words", ["--help", "run --help", "settings"])
def test_a_reader_that_leaves_early_is_no_mistake(place, words):
    """The pipe is closed before anything is written, which takes more than a pipe's buffer."""
    command = f"{sys.executable} -m multigrid {words} | true; exit ${{PIPESTATUS[0]}}"
    shown = subprocess.run(
        ["bash", "-c", command], env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    assert (shown.returncode, shown.stderr) == (0, b"")


def test_settings_of_all_problems(place, capsys):
    shown = ask(capsys, "settings", "problem")
    assert "problem.darcy.high" in shown
    assert "schedule" not in shown


def test_a_dry_run_tells_of_padding_that_does_not_suit(place, capsys):
    text = "name: a\nproblem: {kind: reaction_diffusion}\nlevels: [8]\nschedule: {epochs: 1}\n"
    Path("periodic.yaml").write_text(text)
    sentence = "the fields are periodic, but model.padding is 'zeros', not 'periodic'"
    assert sentence in ask(capsys, "run", "periodic.yaml", "--dry-run")
    shown = ask(capsys, "run", "periodic.yaml", "model.padding=periodic", "--dry-run")
    assert "the fields are periodic" not in shown


# --- doctor


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ((), "all is well: cpu in float32 trains and predicts, and there is nothing else"),
        ((True,), "all is well: cuda in float32 agrees with cpu in float32"),
        ((True, True), "all is well: cuda in float32, cuda in float32 agree with cpu in float32"),
    ],
)
def test_doctor_ends_with_a_verdict(monkeypatch, capsys, others, said):
    trials = [doctor.Trial("cpu", "float32", 0.1, 10.0, 0.0, True)]
    trials += [doctor.Trial("cuda", "float32", 0.1, 10.0, 0.0, agrees) for agrees in others]
    monkeypatch.setattr(doctor, "run_trials", lambda: trials)
    assert ask(capsys, "doctor").splitlines()[-1].startswith(said)


# --- evaluate


def test_evaluate_agrees_with_the_summary(place, capsys):
    shown = json.loads(ask(capsys, "evaluate", "results/poisson", "--json"))
    summary = json.loads(Path("results/poisson/summary.json").read_text())
    assert [level["grid"] for level in shown["levels"]] == [[4, 4], [8, 8], [16, 16], [32, 32]]
    finest = shown["levels"][-1]
    for name in ("rel_l2", "rel_h1", "rel_l2_low"):
        assert finest["mean"][name] == pytest.approx(summary["test"][name], rel=1e-5)
    assert finest["mean"]["on_data_grid"] == finest["mean"]["rel_l2"]
    assert shown["worst"][0]["rel_l2"] == finest["rel_l2_worst"]
    assert shown["samples"] == 6


def test_evaluate_prints_tables(place, capsys):
    shown = ask(capsys, "evaluate", "results/poisson", "--worst", 2)
    for part in ("6 samples on 32x32", "rel_h1", "Low third", "worst samples on 32x32"):
        assert part in shown


def test_evaluate_on_a_file_of_a_finer_grid(place, capsys):
    np.savez("finer.npz", a=sandbox.fields(3, 64, 64), b=sandbox.fields(3, 64, 64))
    names = ["--input", "a", "--output", "b"]
    shown = json.loads(ask(capsys, "evaluate", "results/poisson", "finer.npz", *names, "--json"))
    assert shown["grid"] == [64, 64]
    assert shown["levels"][-1]["grid"] == [32, 32]
    assert shown["levels"][-1]["mean"]["on_data_grid"] != shown["levels"][-1]["mean"]["rel_l2"]


def test_evaluate_on_a_coarser_file_takes_the_levels_that_it_reaches(place, capsys):
    np.savez("coarse.npz", a=sandbox.fields(3, 8, 8), b=sandbox.fields(3, 8, 8))
    shown = json.loads(
        ask(capsys, "evaluate", "results/poisson", "coarse.npz", "--input", "a", "--output", "b",
            "--json")
    )  # fmt: skip
    assert [level["grid"] for level in shown["levels"]] == [[4, 4], [8, 8]]


def test_evaluate_takes_each_level_once_and_the_worst_of_the_finest(place, capsys):
    levels = ["--level", "3", "--level", "0", "--level", "3"]
    shown = json.loads(ask(capsys, "evaluate", "results/poisson", *levels, "--json"))
    assert [level["level"] for level in shown["levels"]] == [0, 3]
    assert shown["worst"][0]["rel_l2"] == shown["levels"][1]["rel_l2_worst"]


def test_evaluate_refuses_a_file_of_other_points(place, capsys):
    nodes = ["levels=[17]", "schedule.epochs=1", "data.centering=node", "data.folder=nodes"]
    ask(capsys, "generate", "experiments/poisson.yaml", *nodes)
    (path,) = Path("nodes").glob("*.h5")
    assert f"{path}: is node-centred, but the run was trained on cell-centred samples" in refuse(
        capsys, "evaluate", "results/poisson", path
    )


# --- predict


def test_predict_gives_what_the_surrogate_gives(place, capsys):
    expected = multigrid.load("results/poisson")(np.load("inputs.npy"))
    shown = ask(capsys, "predict", "results/poisson", "inputs.npy", "p.npy", "--batch-size", 2)
    assert shown == "p.npy: u [5, 1, 32, 32], float32\n"
    np.testing.assert_allclose(np.load("p.npy"), expected, atol=1e-6)
    ask(capsys, "predict", "results/poisson", "measured.h5", "p.h5", "--input", "f")
    with h5py.File("p.h5") as file:
        np.testing.assert_allclose(file["output"][:], expected, atol=1e-6)
        assert list(file["output"].attrs["fields"]) == ["u"]
    assert not list(Path().glob("*.part"))


def test_predict_reads_by_content_whatever_the_ending(place, capsys):
    expected = multigrid.load("results/poisson")(np.load("inputs.npy"))
    for name, ending in (("inputs.npy", ".npz"), ("inputs.npz", ".npy")):
        shutil.copy(name, f"swapped{ending}")
        ask(capsys, "predict", "results/poisson", f"swapped{ending}", "p.npy", "--overwrite")
        np.testing.assert_allclose(np.load("p.npy"), expected, atol=1e-6)


def test_predict_replaces_only_when_told(place, capsys):
    Path("p.npy").write_text("mine")
    command = ["predict", "results/poisson", "inputs.npy", "p.npy"]
    assert "use --overwrite" in refuse(capsys, *command)
    assert Path("p.npy").read_text() == "mine"
    assert json.loads(ask(capsys, *command, "--overwrite", "--json"))["shape"] == [5, 1, 32, 32]


# --- compare


def test_compare_gathers_seeds(place, capsys):
    runs = [f"results/{name}" for name in ("poisson", "poisson_seed1", "direct")]
    shown = json.loads(ask(capsys, "compare", *runs, "--json", "--figure", "c.svg"))
    ladder, direct = shown["methods"]
    assert (ladder["method"], ladder["seeds"], direct["method"]) == ("poisson", [0, 1], "direct")
    best = ladder["best_validation"]
    assert best["low"] < best["median"] < best["high"]
    assert ladder["speed_up"]["work_units"] == pytest.approx(1)
    assert direct["work_units"]["median"] == 1
    assert "<svg" in Path("c.svg").read_text()
    text = ask(capsys, "compare", *runs, "--baseline", "direct")
    assert "the best validation error of direct" in text
    assert "figure:" not in text
    assert "c.svg: exists already; use --overwrite" in refuse(
        capsys, "compare", *runs, "--figure", "c.svg"
    )
    text = ask(capsys, "compare", *runs, "--figure", "c.svg", "--overwrite")
    assert "which at least half of the runs of poisson reach" in text
    assert text.endswith("figure: c.svg\n")


def test_runs_of_one_seed_are_told(place, capsys):
    shutil.copytree("results/poisson", "results/again")
    assert main(["compare", "results/poisson", "results/again"]) == 0
    told = "note: poisson: several runs have the same seed (0), so ranges are small"
    assert told in capsys.readouterr().err
    shutil.rmtree("results/again")


def test_compare_says_what_is_not_comparable(place, capsys):
    assert main(["compare", "results/poisson", "results/darcy"]) == 0
    assert "note: errors are for different samples" in capsys.readouterr().err


# --- plot


def test_plot_redraws_the_same_bytes(place, capsys):
    names = [f"{n}.png" for n in ("convergence", "ladder", "predictions", "spectra")]
    before = {n: (Path("results/poisson") / n).read_bytes() for n in [*names, "report.html"]}
    ask(capsys, "plot", "results/poisson")
    assert {n: (Path("results/poisson") / n).read_bytes() for n in before} == before
    ask(capsys, "plot", "results/poisson", "--format", "pdf", "--format", "svg", "--output", "a")
    ask(capsys, "plot", "results/poisson", "--format", "pdf", "--format", "svg", "--output", "b")
    for path in Path("a").iterdir():
        assert path.read_bytes() == (Path("b") / path.name).read_bytes(), path
    assert len(list(Path("a").iterdir())) == 9


def test_plot_of_an_unfinished_run_shows_what_there_is(place, capsys):
    for name in ("summary.json", "predictions.npz", "spectra.json"):
        Path("results/poisson", name).unlink()
    shown = ask(capsys, "plot", "results/poisson", "--output", "out").split()
    assert [Path(p).name for p in shown] == ["convergence.png", "ladder.png", "report.html"]
    assert "This run is unfinished" in Path("out/report.html").read_text()


RESULT_FILES = (
    "summary.json", "metrics.csv", "predictions.npz", "spectra.json", "level_1_8x8/transfer.json",
)  # fmt: skip


@pytest.mark.parametrize("name", RESULT_FILES)
def test_result_files_of_another_run_are_refused(place, capsys, name):
    path = Path("results/poisson", name)
    path.write_bytes(Path("results/poisson_seed1", name).read_bytes())
    sentence = f"error: {path}: is of another run than the config.yaml of its folder\n"
    assert refuse(capsys, "plot", "results/poisson") == sentence
    if name in ("summary.json", "metrics.csv"):  # which compare reads
        assert refuse(capsys, "compare", "results/poisson", "results/direct") == sentence


def test_plot_refuses_level_folders_that_are_swapped(place, capsys):
    coarse, fine = (Path("results/poisson", name) for name in ("level_0_4x4", "level_1_8x8"))
    coarse.rename("aside")
    fine.rename(coarse)
    Path("aside").rename(fine)
    sentence = f"error: {coarse}/transfer.json: is of level 1, not of this folder's\n"
    assert refuse(capsys, "plot", "results/poisson") == sentence
    assert refuse(capsys, "compare", "results/poisson", "results/direct") == sentence


def test_result_files_of_an_earlier_version_name_no_run(place, capsys):
    for name in RESULT_FILES:
        path = Path("results/poisson", name)
        if path.suffix == ".json":
            content = json.loads(path.read_text())
            path.write_text(json.dumps({k: v for k, v in content.items() if k != "run"}))
    write_history(Path("results/poisson/metrics.csv"), RunRecord.open("results/poisson").rows)
    ask(capsys, "plot", "results/poisson", "results/poisson_seed1")
    Path("results/poisson/config.yaml").write_text(  # without its checksum
        "".join(Path("results/poisson/config.yaml").read_text().partition("# checksum")[:1])
    )
    ask(capsys, "plot", "results/poisson")


def test_a_finished_run_has_all_rows(place, capsys):
    path = Path("results/poisson/metrics.csv")
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:3]))
    sentence = f"{path}: has 2 rows of stage 0, not the 3 that summary.json tells of; --resume"
    for command in ("plot", "compare"):
        assert sentence in refuse(capsys, command, "results/poisson")
    assert main(["run", "experiments/poisson.yaml", "--resume"]) == 0
    assert path.read_text() == whole


def test_plot_tells_how_a_run_went(place, capsys):
    path = Path("results/poisson/summary.json")
    summary = json.loads(path.read_text())
    summary["events"] = [{"event": "started"}, {"event": "resumed", "changed": {"torch": [1, 2]}}]
    path.write_text(json.dumps(summary))
    record = RunRecord.open("results/poisson")
    assert record.remarks[:2] == ["resumed 1 time", "resumed with a different torch"]
    title = draw_figures(record)["convergence"].get_suptitle()
    assert title.startswith("poisson\nresumed 1 time; resumed with a different torch")
    ask(capsys, "plot", "results/poisson")
    page = Path("results/poisson/report.html").read_text()
    assert "<li>resumed with a different torch</li>" in page
    for key in ("events", "levels"):  # an earlier version had nothing of this
        summary[key] = [{"level": 0}] * (key == "levels")
    assert remarks(summary) == []


def test_numbers_that_are_not_finite_are_null_in_json(place, capsys):
    assert to_json({"a": (math.nan, -math.inf, 1.5), "b": [None, True, "x", 2]}) == (
        '{"a": [null, null, 1.5], "b": [null, true, "x", 2]}'
    )
    path = Path("results/poisson/metrics.csv")
    first, *rows = read_history(path)
    write_history(path, [dataclasses.replace(first, val_rel_l2=math.nan), *rows])
    ask(capsys, "plot", "results/poisson")
    page = Path("results/poisson/report.html").read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert json.loads(data, parse_constant=pytest.fail)["rows"][0]["val_rel_l2"] is None


# --- inspect


def test_inspect_writes_an_experiment_that_trains(place, capsys):
    command = ["inspect", "mine.h5", "--input", "coefficient", "--output", "solution"]
    ask(capsys, *command, "--write", "mine.yaml")
    assert main(["run", "mine.yaml", "schedule.epochs=1", "model.width=4"]) == 0
    assert multigrid.load("results/mine").output_names == ("solution",)
    assert "exists already" in refuse(capsys, *command, "--write", "mine.yaml")


def test_inspect_says_how_to_name_the_arrays(place, capsys):
    assert "say which with 'input' and 'output'" in refuse(capsys, "inspect", "mine.h5")


# --- generate


def test_generate_makes_what_the_run_takes(place, capsys):
    shown = json.loads(ask(capsys, "generate", "experiments/darcy.yaml", "data.folder=d", "--json"))
    assert shown["generated"] == 18
    again = json.loads(ask(capsys, "generate", "experiments/darcy.yaml", "data.folder=d", "--json"))
    assert (again["generated"], again["file"]) == (0, shown["file"])


@pytest.mark.parametrize(("numbers", "status"), [([15], 75), ([2], 75), ([2, 2], 130)])
def test_a_signal_stops_any_command(place, capsys, monkeypatch, numbers, status):
    def ensure(*args, **kwargs):
        with deferred():
            for number in numbers:
                os.kill(os.getpid(), number)
        check()

    monkeypatch.setattr(DataStore, "ensure", ensure)
    assert main(["generate", "experiments/darcy.yaml", "data.folder=d"]) == status
    name = "interrupted" if status == 130 else f"stopped by {signal.Signals(numbers[0]).name}"
    assert f"{name}; the same command continues from here" in capsys.readouterr().err


# --- mistakes


@pytest.fixture(scope="module")
def mistaken(original, tmp_path_factory):
    """A copy of the sandbox with files and runs that nothing can be done with."""
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("mistaken") / "place"
    shutil.copytree(original, folder)
    with contextlib.chdir(folder):
        np.savez("odd.npz", a=sandbox.fields(3, 20, 20), b=sandbox.fields(3, 20, 20))
        np.savez("two.npz", a=sandbox.fields(3, 32, 32, 2), b=sandbox.fields(3, 32, 32))
        np.save("flat.npy", sandbox.fields(3, 32, 32))
        np.save("finer.npy", sandbox.fields(3, 1, 64, 64))
        bad = sandbox.fields(3, 1, 32, 32)
        bad[1, 0, 3, 3] = np.nan
        np.save("nan.npy", bad)
        np.save("pickled.npy", np.array([{}, None]), allow_pickle=True)
        np.save("none.npy", sandbox.fields(0, 1, 32, 32))
        np.save("thin.npy", sandbox.fields(3, 1, 1, 32))
        with zipfile.ZipFile("huge.npz", "w") as archive, archive.open("f.npy", "w") as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 1, 32, 32)}
            np.lib.format.write_array_header_1_0(member, header)
        for name in ("inputs.npy", "measured.h5", "poisson.safetensors"):
            Path(f"cut{Path(name).suffix}").write_bytes(Path(name).read_bytes()[:3000])
        save_file({"a": np.zeros(3)}, "bare.safetensors")
        shutil.copytree("results/direct", "results/broken")
        Path("results/broken/metrics.csv").write_text("stage,level\n0,0\n")
        for name in ("unbegun", "older", "oldest"):
            shutil.copytree("results/direct", f"results/{name}")
        rows = Path("results/direct/metrics.csv").read_text().splitlines()
        Path("results/unbegun/metrics.csv").write_text("\n".join(rows[:2]) + "\n")
        Path("results/unbegun/summary.json").unlink()
        summary = json.loads(Path("results/older/summary.json").read_text())
        del summary["levels"][0]["transferred"]
        Path("results/older/summary.json").write_text(json.dumps(summary))
        Path("results/oldest/level_3_32x32/transfer.json").write_text("{}")
        from_file = {**sandbox.POISSON, "problem": {"kind": "file", "file": "mine.h5"}}
        Path("results/fromfile.yaml").write_text(yaml.safe_dump(from_file))
    return folder


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("evaluate results/poison", "no such run or checkpoint; did you mean 'poisson'?"),
        (
            "evaluate results",
            "holds no run, or one that has no checkpoint yet; there are broken, darcy,",
        ),
        ("compare results/poison", "did you mean 'poisson'?"),
        ("evaluate results/poisson gone.h5", "there is no such file"),
        ("evaluate results/poisson --level 9", "level 9: not there; trained are 0 (4x4), 1 (8x8)"),
        ("evaluate results/poisson --samples 999", "the run has 6 test samples"),
        ("evaluate results/poisson inputs.npz --split test", "all samples of a file are used"),
        ("evaluate results/poisson 2D_DarcyFlow_beta1.0_Train.hdf5 --level 3", "does not halve"),
        ("evaluate results/poisson odd.npz --input a --output b", "halves to none of the run's"),
        ("evaluate results/poisson two.npz --input a --output b", "has 2 input fields"),
        ("evaluate results/poisson --input a", "--input: says how to read a data file, but none"),
        ("evaluate results/poisson --reduced-resolution 2", "--reduced-resolution: says how"),
        ("predict results/poisson gone.npy a.npy", "there is no such file"),
        ("predict results/poisson inputs.npy a.txt", "must end in .npy"),
        ("predict results/poisson measured.h5 a.npy", "holds f, weights; say with --input"),
        ("predict results/poisson measured.h5 a.npy --input g", "no array 'g'"),
        ("predict results/poisson inputs.npz a.npy --input g", "holds no array 'g' but f"),
        ("predict results/poisson inputs.npy a.npy --input g", "one array without a name"),
        ("predict results/poisson flat.npy a.npy", "as in x[:, None]"),
        ("predict results/poisson finer.npy a.npy", "restrict it to 32x32"),
        ("predict results/poisson nan.npy a.npy", "the prediction of sample 1 is not finite"),
        ("predict results/poisson cut.npy a.npy", "damaged or truncated file"),
        ("predict results/poisson cut.h5 a.npy", "damaged, truncated or unreadable"),
        ("predict results/poisson pickled.npy a.npy", "pickled Python objects, which is refused"),
        ("predict results/poisson none.npy a.npy", "none.npy: holds no sample"),
        ("predict results/poisson thin.npy a.npy", "every axis needs 2 points at least"),
        ("predict results/poisson huge.npz a.npy", "'f' declares more data"),
        ("predict results/poisson inputs.npy gone/a.npy", "cannot be written"),
        ("predict cut.safetensors inputs.npy a.npy", "damaged, or no safetensors file"),
        ("predict bare.safetensors inputs.npy a.npy", "was not saved by multigrid"),
        ("predict inputs.npy inputs.npy a.npy", "checkpoint"),
        ("compare results/poisson results/gone", "there are broken, darcy, direct"),
        ("compare results/poisson --baseline poison", "did you mean 'poisson'?"),
        ("compare results/poisson --figure a.gif", "must end in .png, .pdf, .svg"),
        ("compare results/poisson --figure gone/a.png", "cannot be written"),
        ("compare results/poisson results/unbegun", "unbegun: has trained no epoch yet"),
        ("plot results/older", "summary.json: lacks 'transferred'; it is of another version"),
        ("plot results/oldest", "transfer.json: lacks 'tensors'; it is of another version"),
        ("plot results", "there are broken, darcy, direct"),
        ("plot results/broken", "metrics.csv: unreadable or half-written"),
        ("plot results/poisson --output inputs.npy", "cannot be written"),
        ("generate results/fromfile.yaml", "nothing to generate"),
    ],
)
def test_mistakes_get_one_sentence(mistaken, capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(mistaken)
    assert sentence in refuse(capsys, *arguments.split())
    assert not Path("a.npy").exists()


@pytest.mark.skipif("not sys.platform.startswith('linux')", reason="start-up times differ")
def test_help_answers_at_once():
    """Half a second is promised on an idle machine; what is measured here is the CPU's time."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "multigrid", "run", "--help"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert cpu < 1.0, time.perf_counter() - started


@pytest.mark.parametrize("command", ["inspect", "plot", "compare", "evaluate", "run"])
def test_names_that_are_too_long(place, capsys, command):
    assert main([command, "x" * 300]) == 2
    error = capsys.readouterr().err
    assert "File name too long" in error
    assert error.count("\n") == 1


def test_arguments_with_control_characters_are_escaped(capsys):
    assert main(["x\nerror: b\x1b"]) == 2
    assert capsys.readouterr().err.startswith(r"error: 'x\nerror: b\x1b' is not a command; there")
    with pytest.raises(SystemExit):
        main(["settings", "data", "--x\nerror: b\x1b"])
    *_, last, end = capsys.readouterr().err.split("\n")
    assert (last, end) == (
        r"multigrid settings: error: unrecognized arguments: --x\nerror: b\x1b",
        "",
    )
