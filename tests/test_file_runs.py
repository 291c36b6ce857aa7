"""The user's own files, trained through the command."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tiny import run, train, write_experiment

import multigrid
from multigrid.__main__ import main as data_main
from multigrid.config import load_config
from multigrid.config.data import FileConfig
from multigrid.data.formats import open_fields
from multigrid.data.samples import Samples
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.problems.elliptic import Poisson
from multigrid.training.checkpoint import load_checkpoint

TRAIN, VALIDATION, TEST = 28, 8, 4
COUNTS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
NUM_SAMPLES = sum(COUNTS.values())

Arrays = tuple[np.ndarray, np.ndarray]


def poisson(*shape: int, centering: str = "cell", count: int = NUM_SAMPLES) -> Arrays:
    """Inputs and outputs ``[count, *shape]`` in float32, exact solutions."""
    rngs = [np.random.default_rng(seed) for seed in range(count)]
    f, u = Poisson(ndim=len(shape), num_modes=4).sample(Grid(shape, centering), rngs)
    return f[:, 0].astype(np.float32), u[:, 0].astype(np.float32)


F, U = poisson(16, 16)


def save_hdf5(path: Path, **arrays: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def save_npz(path: Path, inputs: np.ndarray, outputs: np.ndarray) -> Path:
    np.savez(path, x=inputs, y=outputs)
    return path


def experiment(folder: Path, *files: Path | dict, **sections) -> Path:
    """An experiment file that trains from data files."""
    named = [str(file) if isinstance(file, Path) else file for file in files]
    problem = {"kind": "file", "files": named, **sections.pop("problem", {})}
    data = {**COUNTS, **sections.pop("data", {})}
    return write_experiment(folder / "e.yaml", problem=problem, data=data, **sections)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The best weights of all levels, and what fields are scaled with."""
    found = {}
    for path in sorted(folder.glob("results/*/level_*/best.pt")):
        checkpoint = load_checkpoint(path)
        named = checkpoint["network"].items()
        found |= {f"{path.parent.name}.{name}": tensor for name, tensor in named}
        values = checkpoint["scaling"].values()
        scaling = [v for v in values if isinstance(v, list) and isinstance(v[0], float)]
        found[f"{path.parent.name}.scaling"] = torch.tensor(scaling)
    assert found
    return found


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    assert ours.keys() == theirs.keys()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


# ---------------------------------------------------------------- every format


def write_store(folder: Path) -> tuple[Path, dict]:
    path = folder / "store.h5"
    starts = {"train": 0, "validation": TRAIN, "test": TRAIN + VALIDATION}
    with h5py.File(path, "w") as file:
        file.attrs["fingerprint"], file.attrs["centering"] = "made up", "cell"
        for split, start in starts.items():
            part = slice(start, start + COUNTS[split])
            file[f"{split}/input"], file[f"{split}/output"] = F[part, None], U[part, None]
            file[split].attrs["num_complete"] = COUNTS[split]
    return path, {}


def write_npz(folder: Path) -> tuple[Path, dict]:
    return save_npz(folder / "f.npz", F, U), {}


def write_npy(folder: Path) -> tuple[Path, dict]:
    np.save(folder / "rhs.npy", F)
    np.save(folder / "solution.npy", U)
    return folder / "rhs.npy", {"output": "solution.npy"}


def write_hdf5(folder: Path) -> tuple[Path, dict]:
    path = save_hdf5(folder / "f.h5", **{"fields/rhs": F, "fields/solution": U[..., None]})
    return path, {"input": "fields/rhs", "output": "fields/solution"}


def write_pt(folder: Path) -> tuple[Path, dict]:
    torch.save({"x": torch.from_numpy(F), "y": torch.from_numpy(U)}, folder / "f.pt")
    return folder / "f.pt", {}


def write_cno(folder: Path) -> tuple[Path, dict]:
    arrays = {}
    for i, (f, u) in enumerate(zip(F, U, strict=True)):
        arrays |= {f"sample_{i}/input": f, f"sample_{i}/output": u}
    return save_hdf5(folder / "f.h5", **arrays), {}


def write_pdebench(folder: Path) -> tuple[Path, dict]:
    """The first tenth of its samples is for testing; elsewhere the last samples are."""
    f, u = (np.roll(fields, TEST, axis=0) for fields in (F, U))
    assert len(f) // 10 == TEST
    return save_hdf5(folder / "f.hdf5", nu=f, tensor=u[:, None]), {}


@pytest.fixture(scope="module")
def of_the_store(tmp_path_factory) -> tuple[dict[str, torch.Tensor], dict]:
    """Weights and test errors of a training from our own format."""
    folder = tmp_path_factory.mktemp("store")
    path, _ = write_store(folder)
    summary = train(experiment(folder, path), folder)
    return weights(folder), summary["test"]


@pytest.mark.parametrize(
    "write", [write_npz, write_npy, write_hdf5, write_pt, write_cno, write_pdebench]
)
def test_every_format_gives_the_same_weights(
    write: Callable[[Path], tuple[Path, dict]], of_the_store, tmp_path: Path
) -> None:
    path, options = write(tmp_path)
    summary = train(experiment(tmp_path, path, problem=options), tmp_path)
    assert same(weights(tmp_path), of_the_store[0])
    assert summary["test"] == of_the_store[1]


def test_other_samples_give_other_weights(of_the_store, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "f.npz", F[::-1], U[::-1])
    train(experiment(tmp_path, path), tmp_path)
    assert not same(weights(tmp_path), of_the_store[0])


def test_generated_samples_are_a_file_like_any_other(tmp_path: Path) -> None:
    made, read = tmp_path / "made", tmp_path / "read"
    made.mkdir()
    read.mkdir()
    problem = {"kind": "poisson", "num_modes": 4}
    train(write_experiment(made / "e.yaml", problem=problem, data=COUNTS), made)
    (path,) = made.glob("data/*.h5")
    symmetries = ["reflections", "rotations", "linear", "homogeneous"]
    train(experiment(read, path, problem={"symmetries": symmetries}), read)
    assert same(weights(read), weights(made))


def test_a_file_for_each_split(of_the_store, tmp_path: Path) -> None:
    files, start = [], 0
    for split, count in COUNTS.items():
        part = slice(start, start + count)
        path = save_npz(tmp_path / f"{split}.npz", F[part], U[part])
        files.append({"file": str(path), "split": split})
        start += count
    train(experiment(tmp_path, *files), tmp_path)
    assert same(weights(tmp_path), of_the_store[0])


# ---------------------------------------------------------------- levels


def halved(fields: np.ndarray, centering: str = "cell") -> np.ndarray:
    tensor = torch.from_numpy(fields)[:, None]
    samples = Samples(tensor, tensor, Grid(fields.shape[1:], centering))
    return samples.restrict_to(samples.grid.coarsen()).inputs[:, 0].numpy()


@pytest.mark.parametrize("factor", [1, 2])
def test_a_level_uses_the_file_of_its_own_grid(of_the_store, tmp_path: Path, factor: float) -> None:
    coarse = save_npz(tmp_path / "8.npz", factor * halved(F), halved(U))
    fine = save_npz(tmp_path / "16.npz", F, U)
    train(experiment(tmp_path, coarse, fine), tmp_path)
    assert same(weights(tmp_path), of_the_store[0]) == (factor == 1)


def test_fewer_samples_on_finer_levels(tmp_path: Path) -> None:
    """The number of samples shows in the operations of an epoch."""
    path = save_npz(tmp_path / "f.npz", F, U)
    levels = [{"grid": 8, "samples": 24}, {"grid": 16, "samples": 12}]
    few = train(experiment(tmp_path, path, levels=levels), tmp_path)
    other = tmp_path / "all"
    other.mkdir()
    full = train(experiment(other, path), other)
    for count, part, whole in zip((24, 12), few["levels"], full["levels"], strict=True):
        assert part["flops"] / whole["flops"] == pytest.approx(count / TRAIN)


def test_the_fine_file_may_hold_fewer_samples_than_the_coarse_one(tmp_path: Path) -> None:
    first = slice(NUM_SAMPLES - 8 - VALIDATION - TEST, None)
    fine = save_npz(tmp_path / "16.npz", F[first], U[first])
    coarse = save_npz(tmp_path / "8.npz", halved(F)[:TRAIN], halved(U)[:TRAIN])
    files = {"file": str(coarse), "split": "train"}, fine
    levels = [{"grid": 8, "samples": TRAIN}, {"grid": 16, "samples": 8}]
    summary = train(experiment(tmp_path, *files, levels=levels), tmp_path)
    assert summary["test"]["rel_l2"] > 0


@pytest.mark.parametrize(
    ("shape", "centering", "levels"),
    [
        ((16, 8), "cell", [[8, 4], [16, 8]]),
        ((48, 48), "cell", [6, 12, 24, 48]),
        ((33, 33), "node", [9, 17, 33]),
        ((21, 21), "node", [6, 11, 21]),
        ((17, 9), "node", [[9, 5], [17, 9]]),
        ((8, 8, 8), "cell", [4, 8]),
    ],
    ids=str,
)
def test_grids(shape: tuple[int, ...], centering: str, levels: list, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "f.npz", *poisson(*shape, centering=centering))
    options = {"problem": {"ndim": len(shape)}, "data": {"centering": centering}}
    file = experiment(tmp_path, path, levels=levels, **options)
    summary = train(file, tmp_path, "schedule.epochs=2")
    assert [len(stage["grid"]) for stage in summary["levels"]] == [len(shape)] * len(levels)
    first, *_, last = summary["levels"]
    assert tuple(last["grid"]) == shape
    assert last["rel_l2"] < 0.7 * first["rel_l2_at_start"]


def test_odd_nodes_of_each_resolution(tmp_path: Path) -> None:
    """21, 11 and 6 = 5 + 1 nodes with both ends: files of all grids are as good as the finest."""
    fields = [poisson(21, 21, centering="node")]
    for _ in range(2):
        fields.insert(0, tuple(halved(values, "node") for values in fields[0]))
    files = [save_npz(tmp_path / f"{len(u[0])}.npz", f, u) for f, u in fields]
    options = {"data": {"centering": "node"}, "levels": [6, 11, 21]}
    found = []
    for name, given in (("all", files), ("finest", files[-1:])):
        folder = tmp_path / name
        folder.mkdir()
        train(experiment(folder, *given, **options), folder)
        found.append(weights(folder))
    assert same(*found)


def test_a_grid_that_cannot_be_halved_is_told_with_the_nearest_that_can(
    tmp_path: Path, capsys
) -> None:
    path = save_npz(tmp_path / "f.npz", *poisson(18, 18))
    assert run(experiment(tmp_path, path, levels=[8, 18]), tmp_path) == 2
    assert "the nearest size that can is 16x16" in capsys.readouterr().err


# ---------------------------------------------------------------- channels and types


def test_two_inputs_and_two_outputs(tmp_path: Path) -> None:
    inputs, outputs = np.stack([F, F[::-1]], 1), np.stack([U, U[::-1]], 1)
    path = save_npz(tmp_path / "f.npz", inputs, outputs)
    summary = train(experiment(tmp_path, path), tmp_path, pictures=True)
    assert summary["test"]["rel_l2"] < 0.9
    scaling = weights(tmp_path)["level_0_8x8.scaling"]
    assert scaling.shape == (4, 2)  # means and standard deviations of inputs and outputs


def test_boolean_inputs_are_zeros_and_ones(tmp_path: Path) -> None:
    found = []
    for dtype in (bool, np.float32):
        folder = tmp_path / np.dtype(dtype).name
        folder.mkdir()
        train(experiment(folder, save_npz(folder / "f.npz", (F > 0).astype(dtype), U)), folder)
        found.append(weights(folder))
    assert same(*found)


# ---------------------------------------------------------------- inspection


def test_what_inspect_prints_runs(tmp_path: Path, capsys) -> None:
    path = save_npz(tmp_path / "f.npz", *poisson(32, 32))
    assert data_main(["inspect", str(path)]) == 0
    sections = capsys.readouterr().out.partition("# for the experiment file:\n")[2]
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\n{sections}")
    summary = train(file, tmp_path, "model.width=8", "schedule.epochs=1")
    assert [stage["grid"] for stage in summary["levels"]] == [[16, 16], [32, 32]]
    assert "rel_l2" in summary["test"]


# ---------------------------------------------------------------- bad input


def with_nan(folder: Path) -> Path:
    fields = F.copy()
    fields[3, 2, 1] = np.nan
    return experiment(folder, save_npz(folder / "f.npz", fields, U))


def with_nan_on_the_second_level(folder: Path) -> Path:
    """In a file of its own, which is told before the first level is trained."""
    fine = poisson(32, 32)
    middle = F.copy()
    middle[10, 2, 1] = np.nan
    files = save_npz(folder / "16.npz", middle, U), save_npz(folder / "32.npz", *fine)
    return experiment(folder, *files, levels=[8, 16, 32])


def missing_file(folder: Path) -> Path:
    return experiment(folder, folder / "nowhere.h5")


def missing_dataset(folder: Path) -> Path:
    path = save_hdf5(folder / "f.h5", coefficient=F, solution=U)
    return experiment(folder, path, problem={"input": "coefficient", "output": "u"})


def too_few_samples(folder: Path) -> Path:
    return experiment(folder, save_npz(folder / "f.npz", F[:20], U[:20]))


def truncated(folder: Path) -> Path:
    path = save_hdf5(folder / "f.h5", x=F, y=U)
    path.write_bytes(path.read_bytes()[:-1000])
    return experiment(folder, path)


def other_grid(folder: Path) -> Path:
    return experiment(folder, save_npz(folder / "f.npz", F[:, :12, :12], U[:, :12, :12]))


def another_size(folder: Path) -> Path:
    return experiment(folder, save_npz(folder / "f.npz", F, U), levels=[10, 20])


def unlike_axes(folder: Path) -> Path:
    path = save_npz(folder / "f.npz", F, U)
    return experiment(folder, path, problem={"axes": "N X"})


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (with_nan, "1 NaN or infinite values as float32, in sample 3"),
        (with_nan_on_the_second_level, "16.npz: the input holds 1 NaN"),
        (missing_file, "there is no such file"),
        (missing_dataset, "'u'; the file holds coefficient"),
        (too_few_samples, "28 train samples are wanted"),
        (truncated, "f.h5"),
        (other_grid, "levels: there are no train samples on 16x16: the files have 12x12 (cell"),
        (another_size, "on 20x20: the files have 16x16 (cell-centred), which can be halved to 8x8"),
        (unlike_axes, "problem.axes: 'N X' names 2 axes, but 'x' has 3, [40, 16, 16] and 'y' has"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    bad: Callable[[Path], Path], sentence: str, tmp_path: Path, capsys
) -> None:
    assert run(bad(tmp_path), tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "results").exists()
    if "NaN" not in sentence:  # which a dry run would have to read all samples for
        assert run(tmp_path / "e.yaml", tmp_path, "--dry-run") == 2
        assert capsys.readouterr().err == error


def test_a_mask_says_where_fields_mean_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    f, u = Poisson(num_modes=4).sample(
        Grid((16, 16)), [np.random.default_rng(i) for i in range(40)]
    )
    mask = np.ones((40, 16, 16))
    mask[:, 4:8, 6:12] = 0
    mask[np.arange(40), rng.integers(16, size=40), 0] = 0
    f[:, 0][mask == 0] = u[:, 0][mask == 0] = np.nan
    np.savez(tmp_path / "f.npz", f=f, u=u, mask=mask)
    problem = {"kind": "file", "file": str(tmp_path / "f.npz"), "input": ["f", "mask"]}
    experiment = write_experiment(
        tmp_path / "e.yaml",
        problem={**problem, "output": "u", "mask": "mask"},
        data={"train": 28, "validation": 8, "test": 4},
    )
    summary = train(experiment, tmp_path, "output.num_predictions=1")
    surrogate = multigrid.load(next(tmp_path.glob("results/*")))
    inputs = np.concatenate([f, mask[:, None]], axis=1)[-4:]
    predicted = surrogate.predict(inputs)
    outside = mask[-4:, None] == 0
    assert (predicted[outside] == 0).all()
    truth = np.nan_to_num(u[-4:])
    size = np.linalg.norm((predicted - truth).reshape(4, -1), axis=1)
    relative = size / np.linalg.norm(truth.reshape(4, -1), axis=1)
    assert relative.mean() == pytest.approx(summary["test"]["rel_l2"], rel=1e-4)
    with pytest.raises(UserError, match=r"no input channel 'msk'; .*did you mean 'mask'"):
        open_fields(tmp_path / "f.npz", FileConfig(**problem, output="u", mask="msk"))


def test_data_files_lie_in_the_working_directory_or_beside_the_experiment_file(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    save_npz(there / "f.npz", F, U)
    path = experiment(there, {"file": "f.npz"})
    assert load_config(path).files.files[0].file == str(there / "f.npz")
    one = [path, ["problem.files=null", "problem.file=f*.npz"]]
    assert load_config(*one).files.file == str(there / "f*.npz")
    assert run(path, tmp_path, "--dry-run") == 0
    save_npz(here / "f.npz", F, U)
    assert load_config(path).files.files[0].file == "f.npz"
    assert load_config(*one).files.file == "f*.npz"
    capsys.readouterr()
    assert run(path, tmp_path, "--dry-run", "problem.files=[g.npz]") == 2
    assert capsys.readouterr().err == (
        f"error: {path}: problem.files[0]: there is no 'g.npz', neither in the working directory, "
        f"{here}, nor beside the experiment file, in {there}; did you mean 'f.npz'?\n"
    )
