"""Spectra, the files pictures are drawn from, and every type of figure."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from multigrid.errors import UserError
from multigrid.ladder.results import spectrum
from multigrid.plots.curves import plot_comparison, plot_convergence, plot_spectra
from multigrid.plots.pictures import plot_ladder, plot_predictions, plot_rollout
from multigrid.plots.style import save_figure
from multigrid.records.examples import Examples, RollOut
from multigrid.records.history import LevelParts, Row, epochs_so_far

RNG = np.random.default_rng(0)


def fields(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def history(scale=1.0):
    rows = []
    for stage, count in enumerate((4, 3)):
        for epoch in range(count):
            number = len(rows)
            error = scale / (1 + number)
            rows.append(
                Row(stage, stage, f"{8 << stage}x8", epoch, None, error, 2 * error, None, None,
                    number + 0.1, 0.0, number / 10 + 0.1, 1e6 * (number + 1))
            )  # fmt: skip
    return rows


def parts(level, *entries):
    tensors = [{"key": key, "status": status, "shape": [2, 3]} for key, status in entries]
    return LevelParts(level, f"{8 << level}x8", ["4x4", "8x8"][: level + 1], tensors)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("shape", [(16, 16), (9, 12), (6, 6, 6)])
def test_parseval(shape, periodic):
    values = fields(3, 2, *shape)
    total = np.square(spectrum(values, periodic)).sum()
    assert total == pytest.approx(np.square(values, dtype=float).mean(), rel=1e-12)


def test_a_wave_is_found_where_it_is():
    x = (np.arange(32) + 0.5) / 32
    cosine = np.cos(5 * np.pi * x)[:, None] * np.cos(2 * np.pi * x)
    assert spectrum(cosine[None, None]).argmax() == 5
    wave = np.sin(2 * np.pi * 3 * np.arange(32) / 32)[:, None] * np.ones(32)
    found = spectrum(wave[None, None], periodic=True)
    assert (found.argmax(), found.max()) == (6, pytest.approx(np.sqrt(0.5)))


@pytest.mark.parametrize("shape", [(8, 12), (4, 6, 8)])
def test_examples_are_read_back_as_written(tmp_path, shape):
    rollout = RollOut(np.array([0, 3]), fields(2, 2, 8, 8), fields(2, 2, 8, 8))
    names = ("a",), ("u", "v")
    truth, guess = fields(3, 2, *shape), fields(3, 2, *shape)
    examples = Examples.of(names, fields(3, 1, *shape), truth, guess, fields(3, 2), rollout)
    assert len(examples.cuts) == (1 if len(shape) == 2 else 3)
    path = tmp_path / "e.npz"
    examples.write(path)
    again = Examples.read(path)
    assert (again.grid, again.input_names, again.output_names) == (shape, ("a",), ("u", "v"))
    np.testing.assert_array_equal(again.rel_l2, examples.rel_l2)
    for cut, other in zip(examples.cuts, again.cuts, strict=True):
        assert cut.label == other.label
        for name in ("inputs", "truth", "prediction"):
            np.testing.assert_array_equal(getattr(cut, name), getattr(other, name))
    np.testing.assert_array_equal(again.rollout.truth, rollout.truth)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nothing", b"text"])
def test_damaged_examples_are_told(tmp_path, content):
    path = tmp_path / "e.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"e\.npz: unreadable"):
        Examples.read(path)


def test_epochs_are_counted_over_stages():
    assert epochs_so_far(history()) == [0, 1, 2, 3, 3, 4, 5]


def test_a_ladder_knows_what_is_new():
    level = parts(
        1,
        ("scales.0.encoder.a", "TRANSFERRED"),
        ("scales.1.encoder.a", "NEW"),
        ("scales.1.head.a", "TRANSFERRED"),
        ("scales.1.head.b", "MISMATCHED"),
        ("scales.2.head.a", "FROZEN"),
        ("scales.2.head.b", "TRANSFERRED"),
        ("scales.9.head.b", "UNUSED"),
    )
    assert level.parts() == {(0, "encoder"): "transferred", (1, "encoder"): "new",
                             (1, "head"): "mixed", (2, "head"): "transferred"}  # fmt: skip
    assert (level.count("NEW"), level.count("TRANSFERRED")) == (6, 18)


def test_frozen_weights_count_as_transferred():
    level = parts(
        0,
        ("scales.0.encoder.a", "FROZEN"),
        ("scales.0.encoder.b", "TRANSFERRED"),
        ("scales.0.head.a", "NEW"),
    )
    texts = [text.get_text() for text in plot_ladder([level], "title").axes[0].texts]
    assert "12 transferred\n6 of these frozen\n6 new" in texts


def _predictions_2d():
    examples = Examples.of((("f",), ("u",)), fields(2, 1, 8, 12), fields(2, 1, 8, 12),
                           fields(2, 1, 8, 12), fields(2, 1))  # fmt: skip
    return plot_predictions(examples, "two dimensions")


def _predictions_3d():
    shape = (2, 2, 6, 6, 6)
    examples = Examples.of((("f",), ("u", "v")), fields(2, 1, 6, 6, 6), fields(*shape),
                           fields(*shape), fields(2, 2))  # fmt: skip
    return plot_predictions(examples, "three dimensions")


FIGURES = {
    "convergence": lambda: plot_convergence(history(), "title"),
    "ladder": lambda: plot_ladder(
        [
            parts(0, ("scales.0.encoder.a", "NEW")),
            parts(1, ("scales.0.encoder.a", "TRANSFERRED"), ("scales.1.encoder.a", "NEW")),
        ],
        "title",
    ),
    "predictions": _predictions_2d,
    "slices": _predictions_3d,
    "rollout": lambda: plot_rollout(
        RollOut(np.array([0, 2, 5]), fields(3, 2, 8, 8), fields(3, 2, 8, 8)),
        ("u", "v"),
        "title",
        [0.1, 0.2, 0.3, 0.4, 0.5],
    ),
    "spectra": lambda: plot_spectra(
        [1.0, *(1 / np.arange(1, 32) ** 2)],
        [
            {"level": 0, "grid": [8, 8], "error": 0.1 * np.ones(32)},
            {"level": 1, "grid": [32, 32], "error": np.zeros(32)},
        ],
        "title",
    ),
    "comparison": lambda: plot_comparison(
        {"ladder": [history(), history(0.9)], "direct": [history(2.0)]}, 0.3, "title"
    ),
}


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn(tmp_path, name, ending):
    if ending != "png" and name not in ("ladder", "predictions"):
        pytest.skip("one format is enough for most")
    (path,) = save_figure(FIGURES[name](), tmp_path / "figure.png", [ending])
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(start)
    if ending == "png":
        assert matplotlib.image.imread(path)[..., :3].std() > 0.01


def test_a_history_of_one_row_can_be_drawn(tmp_path):
    row = dataclasses.replace(history()[0], seconds=0.5)
    save_figure(plot_convergence([row], "title"), tmp_path / "a.png")
    save_figure(plot_comparison({"one": [[row]]}, 0.3, "title"), tmp_path / "b.png")


def test_figures_can_be_resized():
    labels = ["epochs", "training time [s]", "work units (1 = an epoch on the finest grid)"]
    figure = plot_convergence(history(), "title")
    figure.axes[0].set_title("mine", fontsize=13)
    for size in ((7, 2.6), (3.5, 2.6), (13, 5)):
        figure.set_size_inches(*size)
        figure.draw_without_rendering()
        renderer = figure._get_renderer()
        whole = figure.bbox.padded(1)
        legend = figure.legends[0].get_window_extent(renderer)
        for axis, label in zip(figure.axes, labels, strict=True):
            box = axis.get_tightbbox(renderer)
            assert whole.contains(*box.min)
            assert whole.contains(*box.max)
            assert box.y0 >= legend.y1 - 1
            assert axis.get_window_extent().height > 0.2 * figure.bbox.height
            assert " ".join(axis.get_xlabel().split()) == label
        assert whole.contains(*legend.min)
        assert whole.contains(*legend.max)
    assert figure.axes[0].title.get_fontsize() == 13
    assert figure.axes[0].xaxis.label.get_fontsize() == 10


def test_a_pdf_that_the_user_saves_holds_truetype(tmp_path):
    plot_convergence(history(), "title").savefig(tmp_path / "a.pdf")
    content = (tmp_path / "a.pdf").read_bytes()
    assert b"CIDFontType2" in content
    assert b"Type3" not in content


def test_one_panel_alone():
    assert len(plot_convergence(history(), "title", against="seconds").axes) == 1
    assert len(plot_comparison({"a": [history()]}, 0.3, "title", against="seconds").axes) == 1
    with pytest.raises(UserError, match=r"against: 'second' is not one of .* mean 'seconds'"):
        plot_comparison({"a": [history()]}, 0.3, "title", against="second")


def test_equal_errors_on_both_grids_are_one_curve():
    rows = [dataclasses.replace(row, val_finest_rel_l2=row.val_rel_l2) for row in history()]
    labels = [text.get_text() for text in plot_convergence(rows, "title").legends[0].get_texts()]
    assert labels == ["level 0: 8x8", "level 1: 16x8"]


def test_the_curve_of_a_method_ends_at_its_target():
    ends = [history()[-1].val_finest_rel_l2, history(0.9)[-1].val_finest_rel_l2]
    figure = plot_comparison({"a": [history(), history(0.9)]}, max(ends), "title")
    curve, target = figure.axes[0].get_lines()[:2]
    assert curve.get_ydata()[-1] == target.get_ydata()[0] == max(ends)


def test_a_rollout_has_a_logarithmic_error_and_its_own_colours_at_the_start():
    figure = FIGURES["rollout"]()
    assert figure.axes[-1].get_yscale() == "log"
    titles = [axis.get_title() for axis in figure.axes]
    assert [title for title in titles if title] == ["given", "step 2", "step 5"]


def test_names_with_dollar_signs_are_no_formulas(tmp_path):
    name = r"$\foo$"
    names = (name,), (name,)
    square = fields(1, 1, 8, 8)
    rollout = RollOut(np.array([0, 2]), fields(2, 1, 8, 8), fields(2, 1, 8, 8))
    for figure in (
        plot_predictions(Examples.of(names, square, square, 2 * square, np.ones((1, 1))), name),
        plot_rollout(rollout, (name,), name, [0.1, 0.2]),
        plot_comparison({name: [history()]}, 0.3, name),
        plot_convergence(history(), name, [name]),
        plot_ladder([parts(0, ("scales.0.encoder.a", "NEW"))], name),
        plot_spectra([1.0, 0.5, 0.2], [{"level": 0, "grid": [3, 3], "error": [0.1] * 3}], name),
    ):
        save_figure(figure, tmp_path / "figure.png")


def test_drawing_leaves_the_users_backend_alone():
    code = (
        "import matplotlib; matplotlib.use('pdf'); import multigrid.report.page; "
        "print(matplotlib.get_backend())"
    )
    root = Path(__file__).parents[1]
    shown = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    assert shown.stdout.strip() == b"pdf"
