"""Trajectories in files: which states are inputs and outputs, parameters, and roll-outs."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tiny import train, write_experiment

import multigrid
from multigrid.config.data import TimeConfig
from multigrid.data.files import FileSource
from multigrid.data.formats import ReaderOptions, open_fields
from multigrid.data.splits import DataFile
from multigrid.data.time import TimeSetup
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.report.record import RunRecord

RNG = np.random.default_rng(0)
U = RNG.standard_normal((12, 9, 2, 8, 8), dtype=np.float32)
NU = np.linspace(0.1, 0.2, 12).astype(np.float32)
MASK = (RNG.random((8, 8)) > 0.5).astype(np.float32)
COUNTS = {"train": 8, "validation": 4, "test": 4}


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    "axes",
    ["N T C X Y", "N T X Y C", "T N C X Y", "X Y C T N", "C N X T Y"],
)
def test_axes_in_any_order_give_the_same_samples(axes: str, tmp_path: Path) -> None:
    letters = axes.replace(" ", "")
    order = ["NTCXY".index(letter) for letter in letters]
    path = save(tmp_path / "f.npz", u=np.transpose(U, order))
    file = open_fields(path, options=ReaderOptions(axes=axes))
    inputs, outputs = file.read([0, 9, 17, 3])
    for row, (k, t) in enumerate(((0, 0), (1, 1), (2, 1), (0, 3))):
        np.testing.assert_array_equal(inputs[row], U[k, t])
        np.testing.assert_array_equal(outputs[row], U[k, t + 1])


def test_stride_history_delta_start_and_end(tmp_path: Path) -> None:
    time = TimeConfig(stride=2, history=2, target="delta", start=1, end=8)
    file = open_fields(save(tmp_path / "f.npz", u=U), time=time)
    described = file
    assert described.group_size == 2  # states 1, 3, 5, 7: 1 and 3 give 5, 3 and 5 give 7
    assert described.input_names == ("u_0(t-1)", "u_1(t-1)", "u_0", "u_1")
    inputs, outputs = file.read([3])
    np.testing.assert_array_equal(inputs[0], np.concatenate([U[1, 3], U[1, 5]]))
    np.testing.assert_array_equal(outputs[0], U[1, 7] - U[1, 5])
    time = TimeConfig(stride=2, history=4, start=1, end=8)
    with pytest.raises(UserError, match="the trajectories have 4 states, but pairs of 4"):
        open_fields(tmp_path / "f.npz", time=time)


def test_parameters_and_static_fields_become_channels(tmp_path: Path) -> None:
    path = save(tmp_path / "f.npz", u=U, nu=NU, mask=MASK, dt=np.float64(0.1))
    plain = open_fields(path)
    assert set(plain.ignored) == {"nu", "mask", "dt"}
    assert set(plain.parameters) == {"nu", "dt"}
    assert any("not used: nu, mask, dt" in line for line in plain.remarks())
    options = ReaderOptions(input=("u", "mask"), output="u", parameters=("nu",))
    file = open_fields(path, options=options)
    assert file.input_names == ("u_0", "u_1", "mask", "nu")
    assert file.ignored == ("dt",)
    inputs, _ = file.read([8 * 3 + 2])
    np.testing.assert_array_equal(inputs[0, :2], U[3, 2])
    np.testing.assert_array_equal(inputs[0, 2], MASK)
    np.testing.assert_array_equal(inputs[0, 3], np.full((8, 8), NU[3]))
    with pytest.raises(UserError, match=r"no parameter 'nux'; there are .*did you mean 'nu'"):
        open_fields(path, options=ReaderOptions(parameters=("nux",)))


def test_channels_by_name(tmp_path: Path) -> None:
    path = save(tmp_path / "f.npz", u=U, nu=NU)
    options = ReaderOptions(output_channels=("u_1",), input_channels=("u_1", "u_0"))
    file = open_fields(path, options=options)
    inputs, outputs = file.read([0])
    np.testing.assert_array_equal(inputs[0], U[0, 0, ::-1])
    np.testing.assert_array_equal(outputs[0], U[0, 1, 1:])
    assert file.time is None
    with pytest.raises(UserError, match=r"no output channel 'u_2'; .*did you mean"):
        open_fields(path, options=ReaderOptions(output_channels=("u_2",)))


def test_pairs_of_one_trajectory_stay_together(tmp_path: Path) -> None:
    flat = np.arange(24.0)[:, None, None] * np.ones((1, 8, 8))
    path = save(tmp_path / "f.npz", x=flat, y=flat)
    time = TimeConfig(trajectory=4)
    source = FileSource([DataFile(path)], COUNTS, "cell", time=time)
    pools = source.files[0].pools
    groups = [set((pool // 4).tolist()) for pool in pools.values()]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


def test_an_array_that_is_input_and_output_without_time(tmp_path: Path) -> None:
    path = save(tmp_path / "f.npz", u=U[:, 0, 0])
    with pytest.raises(UserError, match="has no time axis"):
        open_fields(path, options=ReaderOptions(input="u", output="u", axes="N X Y"))


def test_true_trajectories(tmp_path: Path) -> None:
    time = TimeConfig(history=2, target="delta")
    path = save(tmp_path / "f.npz", u=U, nu=NU)
    options = ReaderOptions(parameters=("nu",))
    source = FileSource([DataFile(path)], COUNTS, "cell", options, time)
    true = source.trajectories("test", Grid((8, 8)), 5)
    assert true.setup == TimeSetup(2, 2, "delta")
    torch.testing.assert_close(true.states, torch.from_numpy(U[-1:, 1:7]))
    inputs = true.inputs
    for step in range(5):
        delta = true.states[:, step + 1] - true.states[:, step]
        torch.testing.assert_close(true.setup.state(inputs, delta), true.states[:, step + 1])
        inputs = true.setup.next_input(inputs, delta)
        expected = torch.cat([true.states[:, step], true.states[:, step + 1]], 1)
        torch.testing.assert_close(inputs[:, :4], expected)
        assert torch.equal(inputs[:, 4], true.inputs[:, 4])
    assert source.trajectories("test", Grid((8, 8)), 8) is None


def test_a_run_with_history_and_parameters_is_rolled_out(tmp_path: Path) -> None:
    path = save(tmp_path / "f.npz", u=U, nu=NU, other=MASK)
    experiment = write_experiment(
        tmp_path / "e.yaml",
        problem={"kind": "file", "file": str(path), "parameters": ["nu"]},
        data={**COUNTS, "time": {"history": 2, "target": "delta"}, "rollout_steps": 3},
        levels=[4, 8],
    )
    summary = train(experiment, tmp_path, "schedule.epochs=1", "output.num_predictions=1")
    assert len(summary["rollout"]) == 3
    (folder,) = tmp_path.glob("results/*")
    log = (folder / "run.log").read_text()
    assert "not used: other" in log
    assert f"data: {path}, held in memory, " in log
    assert "stage 0: 1 epoch, " in log
    examples = RunRecord.open(folder).examples
    last = len(U) - 1
    assert examples.rollout.label == f"test trajectory {last} (nu = {NU[-1]:.4g})"
    assert re.fullmatch(rf"best: sample \d, trajectory {last}, step \d", examples.labels[0])
    surrogate = multigrid.load(folder)
    own, whole = surrogate.evaluate(samples=3), surrogate.evaluate(path)
    assert own.notes == ()
    assert own.worst(1)[0]["place"].startswith(f"trajectory {last}, step ")
    assert f"trajectory {last}, step" in str(own)
    assert "note: the run was trained on samples of this file" in str(whole)
    assert "single steps; roll-outs are those of the run" in whole.to_json()["notes"][1]
    states = np.concatenate([U[-1:, 0], U[-1:, 1]], axis=1)
    rolled = surrogate.rollout(states, 3, parameters=NU[-1:, None])
    assert rolled.shape == (1, 3, 2, 8, 8)
    size = np.linalg.norm((U[-1:, 4] - rolled[:, 2]).reshape(2, -1), axis=1)
    relative = size / np.linalg.norm(U[-1, 4].reshape(2, -1), axis=1)
    assert relative.mean() == pytest.approx(summary["rollout"][2], rel=0.05)


def test_roll_outs_that_are_too_long_are_told_before_the_training(tmp_path: Path) -> None:
    path = save(tmp_path / "f.npz", u=U)
    source = FileSource([DataFile(path)], COUNTS, "cell")
    source.require_steps(8)
    with pytest.raises(UserError, match="9 is more than the 8 steps"):
        source.require_steps(9)
    pairs = save(tmp_path / "g.npz", x=U[:, 0], y=U[:, 1])
    with pytest.raises(UserError, match="it must be 0"):
        FileSource([DataFile(pairs)], COUNTS | {"train": 4}, "cell").require_steps(1)


def test_one_dimensional_trajectories(tmp_path: Path) -> None:
    path = save(tmp_path / "f.npz", u=U[:, :, 0, 0], nu=NU)
    file = open_fields(path, options=ReaderOptions(ndim=1))
    assert file.shape == (8,)
    np.testing.assert_array_equal(file.read([8])[1][0, 0], U[1, 1, 0, 0])


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("X Y", r"^problem.axes: 'X Y' names 2 axes, but 'u' has 5, \[12, 9, 2, 8, 8\]$"),
        ("X", "problem.axes: 'X' names 1 axis, but 'u' has 5"),
        ("N T C X Z", r"'u' \[12, 9, 2, 8, 8\] is read as \[N, T, C, X, Z\], as stated; see"),
        ("T N C X Y", r"'nu' \[12\] is no parameter: .* each of the 9 .*see problem.axes"),
        ({"v": "N T C X Y"}, "problem.axes: no array 'v' is read, only u$"),
        ({"u": "N T X Y"}, r"'N T X Y' names 4 axes, but 'u' has 5, \[12, 9, 2, 8, 8\]"),
    ],
)
def test_axes_that_do_not_fit_are_refused(axes, message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "f.npz", u=U, nu=NU)
    for names in ({}, {"input": "u", "output": "u"}):
        with pytest.raises(UserError, match=message):
            open_fields(path, ReaderOptions(axes=axes, parameters=("nu",), **names))


def test_axes_of_some_of_several_arrays(tmp_path: Path) -> None:
    path = save(tmp_path / "f.npz", u=U, mask=MASK, nu=NU)
    options = ReaderOptions(input=("u", "mask"), output="u", axes="X Y", parameters=("nu",))
    assert str(open_fields(path, options).layout.fields[1]).endswith("read as [X, Y], as stated")
    options = options.model_copy(update={"axes": "N X Y"})
    message = r"'N X Y' names 3 axes, but 'u' has 5, \[12, 9, 2, 8, 8\] and 'mask' has 2, \[8, 8\]"
    with pytest.raises(UserError, match=message):
        open_fields(path, options)


def test_axes_of_a_format_that_says_them_itself(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["tensor"] = U[:, :, 0]
    message = r"'N X Y T' is stated, but 'tensor' .* is read as \[N, T, X, Y\]"
    with pytest.raises(UserError, match=message):
        open_fields(tmp_path / "f.h5", ReaderOptions(axes="N X Y T"))
    assert open_fields(tmp_path / "f.h5", ReaderOptions(axes="N T X Y")).num_groups == 12


def test_too_many_samples_of_trajectories_are_wanted(tmp_path: Path) -> None:
    path = save(tmp_path / "f.npz", u=U)
    counts = {"train": 100, "validation": 9, "test": 4}
    with pytest.raises(UserError) as error:
        FileSource([DataFile(path)], counts, "cell")
    assert str(error.value) == (
        f"{path}: 100 train samples are wanted (data.train), but of the 96 in the file (one-step "
        "pairs, 8 of each of 12 trajectories, which are never divided) only 72 are left besides 16 "
        "for validation (data.validation), 8 for test (data.test); 'u' [12, 9, 2, 8, 8] is read as "
        "[N, T, C, X, Y], a guess from the shapes"
    )
