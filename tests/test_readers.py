"""Every foreign format is read bit for bit, and every bad file gives one sentence."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multigrid.data.formats import FieldFile, ReaderOptions, open_fields
from multigrid.data.formats.layout import guess_axes
from multigrid.data.splits import split_pools
from multigrid.data.store import DataStore
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.problems.elliptic import Poisson

N = 20
RNG = np.random.default_rng(0)
A = RNG.standard_normal((N, 8, 6), dtype=np.float32)
U = RNG.standard_normal((N, 8, 6), dtype=np.float32)
ORDER = np.array([7, 3, 4, 5, 19, 0, 4])


def save_hdf5(path: Path, **arrays: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array
    return path


def save_cno(path: Path, inputs: np.ndarray, outputs: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for i, (a, u) in enumerate(zip(inputs, outputs, strict=True)):
            file[f"sample_{i}/input"], file[f"sample_{i}/output"] = a, u
    return path


def save_npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def save_npy(path: Path, inputs: np.ndarray, outputs: np.ndarray) -> Path:
    np.save(path.with_name("x.npy"), inputs)
    np.save(path.with_name("y.npy"), outputs)
    return path.with_name("x.npy")


def save_pt(path: Path, **arrays: np.ndarray) -> Path:
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    return path


def save_well(path: Path, density: np.ndarray, velocity: np.ndarray) -> Path:
    """A file of The Well, with all kinds of axes left out."""
    count, num_steps, *grid = density.shape
    with h5py.File(path, "w") as file:
        file.attrs["dataset_name"], file.attrs["grid_type"] = "made_up", "cartesian"
        file.attrs["n_spatial_dims"], file.attrs["n_trajectories"] = len(grid), count
        for name, array, varying in (
            ("t0_fields/density", density, (True, True, [True, True])),
            ("t0_fields/mask", density[:, 0], (True, False, [True, True])),
            ("t0_fields/depth", density[0, 0, :, 0], (False, False, [True, False])),
            ("t0_fields/tide", density[0, :, 0, :], (False, True, [False, True])),
            ("t1_fields/velocity", velocity, (True, True, [True, True])),
        ):
            file[name] = array
            attributes = file[name].attrs
            attributes["sample_varying"], attributes["time_varying"] = varying[:2]
            attributes["dim_varying"] = varying[2]
        file["dimensions/x"] = np.arange(grid[0])
    assert num_steps > 1
    return path


def assert_reads(
    file: FieldFile, inputs: np.ndarray, outputs: np.ndarray, indices: np.ndarray = ORDER
) -> None:
    """Reads some samples in any order, and all of them, and compares bit for bit."""
    assert file.num_samples == len(inputs)
    assert file.shape == inputs.shape[2:]
    assert len(file.input_names) == inputs.shape[1]
    assert len(file.output_names) == outputs.shape[1]
    for chosen in (indices, np.arange(len(inputs)), np.array([], int)):
        got = file.read(chosen)
        for values, expected in zip(got, (inputs, outputs), strict=True):
            assert values.dtype == np.float32
            assert values.flags.c_contiguous
            np.testing.assert_array_equal(values, expected[chosen].astype(np.float32))


SAVERS = {
    "hdf5": lambda folder, a, u: save_hdf5(folder / "f.h5", input=a, output=u),
    "npz": lambda folder, a, u: save_npz(folder / "f.npz", x=a, y=u),
    "npy": lambda folder, a, u: save_npy(folder / "x.npy", a, u),
    "neuraloperator": lambda folder, a, u: save_pt(folder / "f.pt", x=a, y=u),
    "pdebench": lambda folder, a, u: save_hdf5(folder / "f.hdf5", nu=a, tensor=u),
    "cno": lambda folder, a, u: save_cno(folder / "f.h5", a, u),
}


@pytest.mark.parametrize("reader", SAVERS)
@pytest.mark.parametrize("case", ["plain", "channels", "last", "3d", "double"])
def test_formats_are_read_bit_for_bit(reader: str, case: str, tmp_path: Path) -> None:
    a, u = {
        "plain": (A, U[:, None]),
        "channels": (np.stack([A, U, A], 1), np.stack([A, U], 1)),
        "last": (np.stack([A, U, A], -1), U[..., None]),
        "3d": (np.stack([A] * 5, -1), np.stack([U] * 5, -1)),
        "double": (A.astype(np.float64) / 3, U.astype(np.float64) / 7),
    }[case]
    path = SAVERS[reader](tmp_path, a, u)
    file = open_fields(path, options=ReaderOptions(ndim=3 if case == "3d" else 2))
    assert file.reader == reader
    move = {"plain": (A[:, None], U[:, None]), "channels": (a, u)}
    move["last"] = (np.moveaxis(a, -1, 1), np.moveaxis(u, -1, 1))
    inputs, outputs = move.get(case, (a[:, None], u[:, None]))
    assert_reads(file, inputs, outputs)


@pytest.mark.parametrize("reader", SAVERS)
def test_boolean_inputs(reader: str, tmp_path: Path) -> None:
    file = open_fields(SAVERS[reader](tmp_path, A > 0, U))
    assert file.dtypes[0] == "bool"
    assert_reads(file, (A > 0)[:, None], U[:, None])


@pytest.mark.parametrize("dtype", ["float16", "int32", ">f4", "uint8"])
def test_number_types(dtype: str, tmp_path: Path) -> None:
    a = (A * 10).astype(np.int32).astype(dtype) if dtype != "uint8" else (A * 9).astype("uint8")
    assert_reads(open_fields(save_hdf5(tmp_path / "f.h5", x=a, y=U)), a[:, None], U[:, None])
    assert_reads(open_fields(save_npz(tmp_path / "f.npz", x=a, y=U)), a[:, None], U[:, None])


def test_compressed_chunked_and_fortran_arrays(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("x", data=A, chunks=(3, 8, 5), compression="gzip", shuffle=True)
        file.create_dataset("y", data=U, chunks=(1, 8, 6), compression="lzf")
    assert_reads(open_fields(tmp_path / "f.h5"), A[:, None], U[:, None])
    np.savez_compressed(tmp_path / "f.npz", x=np.asfortranarray(A), y=U)
    assert_reads(open_fields(tmp_path / "f.npz"), A[:, None], U[:, None])
    np.save(tmp_path / "a_x.npy", np.asfortranarray(A))
    np.save(tmp_path / "a_y.npy", U)
    assert_reads(open_fields(tmp_path / "a_x.npy"), A[:, None], U[:, None])


def test_legacy_and_bfloat16_pt(tmp_path: Path) -> None:
    tensors = {"x": torch.from_numpy(A).bfloat16(), "y": torch.from_numpy(U)}
    torch.save(tensors, tmp_path / "f.pt", _use_new_zipfile_serialization=False)
    expected = tensors["x"].float().numpy()
    assert_reads(open_fields(tmp_path / "f.pt"), expected[:, None], U[:, None])


def test_named_arrays(tmp_path: Path) -> None:
    options = ReaderOptions(input="deep/coef", output="deep/sol")
    path = save_hdf5(tmp_path / "f.h5", deep__coef=A, deep__sol=U, nu=U, tensor=U)
    file = open_fields(path, options=options)
    assert file.input_names == ("deep/coef",)
    assert_reads(file, A[:, None], U[:, None])
    named = ReaderOptions(input="p", output="q")
    assert_reads(open_fields(save_npz(tmp_path / "f.npz", p=A, q=U), options=named), A[:, None],
                 U[:, None])  # fmt: skip
    assert_reads(open_fields(save_pt(tmp_path / "f.pt", p=A, q=U), options=named), A[:, None],
                 U[:, None])  # fmt: skip
    np.save(tmp_path / "coef.npy", A)
    np.save(tmp_path / "sol.npy", U)
    for output in ("sol.npy", str(tmp_path / "sol.npy")):
        file = open_fields(tmp_path / "coef.npy", options=ReaderOptions(output=output))
        assert_reads(file, A[:, None], U[:, None])


def test_reduced_resolution_strides(tmp_path: Path) -> None:
    path = save_hdf5(tmp_path / "f.hdf5", nu=A, tensor=U[:, None])
    file = open_fields(path, options=ReaderOptions(reduced_resolution=3))
    assert file.shape == (3, 2)
    assert_reads(file, A[:, None, ::3, ::3], U[:, None, ::3, ::3])
    with pytest.raises(UserError, match="leaves 1x1"):
        open_fields(path, options=ReaderOptions(reduced_resolution=9))


def test_pdebench_trajectories(tmp_path: Path) -> None:
    tensor = RNG.standard_normal((10, 4, 8, 6), dtype=np.float32)
    file = open_fields(save_hdf5(tmp_path / "f.hdf5", tensor=tensor, **{"t-coordinate": A[0, 0]}))
    inputs = tensor[:, :-1].reshape(30, 1, 8, 6)
    outputs = tensor[:, 1:].reshape(30, 1, 8, 6)
    assert_reads(file, inputs, outputs, np.array([2, 3, 29, 28, 5, 5, 0]))
    fluid = save_hdf5(tmp_path / "g.hdf5", density=tensor, Vx=2 * tensor, pressure=tensor + 1)
    stacked = np.stack([tensor, tensor + 1, 2 * tensor], 2)
    both = stacked[:, :-1].reshape(30, 3, 8, 6), stacked[:, 1:].reshape(30, 3, 8, 6)
    assert_reads(open_fields(fluid), *both)
    chosen = open_fields(fluid, options=ReaderOptions(fields=("Vx", "density")))
    assert chosen.output_names == ("Vx", "density")
    assert_reads(chosen, both[0][:, [2, 0]], both[1][:, [2, 0]])
    with pytest.raises(UserError, match=r"no field 'Vy'; .* density, pressure, Vx; did you mean"):
        open_fields(fluid, options=ReaderOptions(fields=("Vy",)))


def test_well(tmp_path: Path) -> None:
    density = RNG.standard_normal((5, 5, 8, 6), dtype=np.float32)
    velocity = RNG.standard_normal((5, 5, 8, 6, 2), dtype=np.float32)
    file = open_fields(save_well(tmp_path / "f.hdf5", density, velocity))
    assert file.reader == "well"
    assert file.output_names == ("density", "tide", "velocity_0", "velocity_1")
    assert file.input_names == (*file.output_names, "depth", "mask")
    whole = density.shape
    states = np.stack(
        [
            density,
            np.broadcast_to(density[0, :, 0, :][None, :, None, :], whole),
            velocity[..., 0],
            velocity[..., 1],
        ],
        axis=2,
    )
    constants = np.stack(
        [
            np.broadcast_to(density[0, 0, :, 0][None, None, :, None], whole),
            np.broadcast_to(density[:, :1], whole),
        ],
        axis=2,
    )
    inputs = np.concatenate([states, constants], 2)[:, :-1].reshape(20, 6, 8, 6)
    assert_reads(file, inputs, states[:, 1:].reshape(20, 4, 8, 6))


def test_own_store(tmp_path: Path) -> None:
    problem, grid = Poisson(ndim=2, smoothness=2.0, inverse_length=3.0, num_modes=4), Grid((8, 8))
    store = DataStore(tmp_path, problem, grid, seed=1)
    store.ensure({"train": 5, "validation": 2, "test": 3})
    file = open_fields(store.path)
    assert file.reader == "store"
    assert file.layout.centering == "cell"
    parts = [store.open(split, n)[:] for split, n in (("train", 5), ("validation", 2), ("test", 3))]
    inputs, outputs = (
        torch.cat([getattr(part, side) for part in parts]).numpy() for side in ("inputs", "outputs")
    )
    assert_reads(file, inputs, outputs, np.array([9, 0, 4, 5, 6]))
    pools = split_pools(file, {"train": 4, "test": 3})
    assert pools["train"].tolist() == [0, 1, 2, 3, 4]
    assert pools["test"].tolist() == [7, 8, 9]
    assert split_pools(file, {"test": 1})["test"].tolist() == [7, 8, 9]


def test_every_reader_of_the_same_arrays_gives_the_same_bits(tmp_path: Path) -> None:
    everything = [
        open_fields(save(tmp_path / reader, A, U)).read(ORDER)
        for reader, save in SAVERS.items()
        if not (tmp_path / reader).mkdir()
    ]
    for inputs, outputs in everything[1:]:
        assert inputs.tobytes() == everything[0][0].tobytes()
        assert outputs.tobytes() == everything[0][1].tobytes()


# --- layouts ---


@pytest.mark.parametrize(
    ("inputs", "outputs", "ndim", "axes"),
    [
        ((9, 64, 64), (9, 1, 64, 64), None, (None, 1)),
        ((9, 3, 64, 64), (9, 64, 64), None, (1, None)),
        ((9, 64, 64, 3), (9, 64, 64, 1), None, (-1, -1)),
        ((9, 16, 64, 64), (9, 16, 64, 64), None, (1, 1)),
        ((9, 32, 32, 32), (9, 32, 32, 32), None, (None, None)),
        ((9, 32, 32, 32), (9, 32, 32, 32), 2, (1, 1)),
        ((9, 2, 8, 8, 8), (9, 8, 8, 8), None, (1, None)),
    ],
)
def test_layouts(inputs, outputs, ndim, axes) -> None:
    chosen = guess_axes((inputs, outputs), "N", ndim)
    places = {"NC": 1, "C": -1}
    assert tuple(places.get("NC" if a[1] == "C" else a[-1]) for a in chosen) == axes


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ((9, 64, 64), (8, 64, 64), "same number of samples"),
        ((9, 64, 64), (9, 32, 32), "disagree"),
        ((9, 64), (9, 32), "disagree"),
        ((), (9, 64), "same number of samples"),
    ],
)
def test_shapes_that_disagree(inputs, outputs, message, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "f.npz", x=np.zeros(inputs), y=np.zeros(outputs))
    with pytest.raises(UserError, match=message):
        open_fields(path)


# --- splits ---


def hdf5_of(path: Path, count: int) -> FieldFile:
    fields = np.broadcast_to(np.arange(count)[:, None, None], (count, 4, 4))
    return open_fields(save_hdf5(path, x=fields, y=fields))


def test_splits_of_independent_samples(tmp_path: Path) -> None:
    file = hdf5_of(tmp_path / "f.h5", 100)
    pools = split_pools(file, {"train": 10, "validation": 20, "test": 30})
    assert pools["test"].tolist() == list(range(70, 100))
    assert pools["validation"].tolist() == list(range(50, 70))
    assert pools["train"].tolist() == list(range(50))
    assert split_pools(file, {"validation": 5})["validation"].tolist() == list(range(100))
    with pytest.raises(UserError, match=r"51 train samples are wanted.* only 50 are left"):
        split_pools(file, {"train": 51, "validation": 20, "test": 30})


def test_pdebench_tests_on_the_first_tenth(tmp_path: Path) -> None:
    file = open_fields(save_hdf5(tmp_path / "f.hdf5", nu=A, tensor=U[:, None]))
    pools = split_pools(file, {"train": 1, "validation": 3, "test": 1})
    assert pools["test"].tolist() == [0, 1]
    assert pools["validation"].tolist() == [17, 18, 19]
    assert pools["train"].tolist() == list(range(2, 17))
    assert split_pools(file, {"test": 20})["test"].tolist() == list(range(20))
    with pytest.raises(
        UserError, match=r"3 test samples.* only 2 .*PDEBench tests on the first 10%"
    ):
        split_pools(file, {"train": 1, "validation": 3, "test": 3})


@given(st.integers(1, 12), st.integers(2, 6), st.integers(1, 20), st.integers(1, 20), st.booleans())
@settings(max_examples=60, deadline=None)
def test_trajectories_stay_in_one_split(groups, steps, validation, test, pdebench) -> None:
    path = Path(os.environ["PYTEST_SPLITS"]) / f"{groups}_{steps}_{pdebench}.h5"
    tensor = np.zeros((groups, steps, 4, 4), np.float32)
    if not path.exists():
        if pdebench:
            save_hdf5(path, tensor=tensor)
        else:
            save_well(path, tensor, np.zeros((*tensor.shape, 2)))
    file = open_fields(path)
    try:
        one, two = (
            split_pools(file, {"train": n, "validation": validation, "test": test}) for n in (1, 2)
        )
    except UserError:
        return
    for split in one:
        assert one[split].tolist() == two[split].tolist()
    used = [set(pool // (steps - 1)) for pool in one.values()]
    assert sum(map(len, used)) == len(set.union(*used))
    assert all(len(set(pool)) == len(pool) for pool in one.values())


@pytest.fixture(autouse=True, scope="module")
def _splits_folder(tmp_path_factory) -> None:
    os.environ["PYTEST_SPLITS"] = str(tmp_path_factory.mktemp("splits"))


# --- bad files: one sentence each ---


def refused(path: Path, message: str, reader: str = "auto", **options) -> str:
    def read_all() -> None:
        file = open_fields(path, ReaderOptions(reader=reader, **options))
        file.read(range(file.num_samples))

    with pytest.raises(UserError, match=message) as caught:
        read_all()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_missing_files(tmp_path: Path) -> None:
    (tmp_path / "there.h5").touch()
    (tmp_path / "nothing").mkdir()
    refused(tmp_path / "their.h5", "no such file; did you mean 'there.h5'")
    refused(tmp_path / "nowhere" / "f.h5", "nor a folder")
    refused(tmp_path / "nothing", "is a folder without data files")
    refused(tmp_path / "there.h5", "is empty")
    (tmp_path / "notes.txt").touch()
    refused(tmp_path / "*.txt", r"\*.txt: no data file has such a name")
    os.mkfifo(tmp_path / "pipe.h5")
    refused(tmp_path / "pipe.h5", "not a regular file")


def test_groups_nested_too_deep_are_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "deep.h5", "w") as file:
        group: h5py.Group = file
        for _ in range(3000):
            group = group.create_group("g")
        group["x"] = A
    refused(tmp_path / "deep.h5", r"deep.h5: its groups are nested too deep$")


def test_what_no_reader_fits(tmp_path: Path) -> None:
    (tmp_path / "f.h5").write_text("these are no data")
    message = refused(tmp_path / "f.h5", "no reader fits; tried: ")
    assert all(name in message for name in ("pdebench", "well", "cno", "npz", "neuraloperator"))
    path = save_hdf5(tmp_path / "g.h5", p=A, q__r=U)
    refused(path, r"no reader fits, the file holds p \[20, 8, 6\], q/r \[20, 8, 6\]; if two")
    refused(path, "no reader fits.*tried: pdebench", reader="pdebench")
    refused(path, "did you mean 'pdebench'", reader="pdebensh")
    refused(path, "takes no 'input' and 'output'", reader="pdebench", input="p", output="q/r")
    refused(path, r"no dataset 'p0'; the file holds p .*did you mean 'p'", input="p0", output="q/r")
    refused(path, "'q' is a group", input="p", output="q")
    refused(path, "name both", input="p")
    refused(path, "'fields' is for time-dependent", input="p", output="q/r", fields=("p",))


def test_names_that_are_not_there(tmp_path: Path) -> None:
    npz = save_npz(tmp_path / "f.npz", coef=A, sol=U)
    refused(npz, r"name the arrays.*coef \[20, 8, 6\], sol")
    refused(
        npz,
        r"no array 'soll'; the file holds coef .*, sol .*; did you",
        input="coef",
        output="soll",
    )
    pt = save_pt(tmp_path / "f.pt", coef=A)
    refused(pt, "name the arrays.*coef")
    np.save(tmp_path / "lonely.npy", A)
    refused(tmp_path / "lonely.npy", "holds one array")
    refused(tmp_path / "lonely.npy", "no such file", output="gone.npy")
    refused(tmp_path / "lonely.npy", "itself is the input", input="lonely", output="x")


@pytest.mark.parametrize("reader", SAVERS)
def test_nan_and_infinity(reader: str, tmp_path: Path) -> None:
    a, u = A.astype(np.float64), U.astype(np.float64)
    a[4, 1, 1], a[9, 2, 3:5] = np.nan, np.inf
    refused(SAVERS[reader](tmp_path, a, u), "input holds 3 NaN or infinite.*in samples 4 and 9")
    u[:, 0, 0] = 1e300
    path = SAVERS[reader](tmp_path, A, u)
    refused(path, "output holds 20 NaN or .* 0, 1, 2, 3, 4 and 15 more")


@pytest.mark.parametrize("reader", SAVERS)
def test_shapes_and_types_that_do_not_fit(reader: str, tmp_path: Path) -> None:
    refused(SAVERS[reader](tmp_path, A, U[:, :4]), "disagree")
    refused(SAVERS[reader](tmp_path, A.astype(complex), U), "real numbers are needed")
    if reader != "cno":
        refused(SAVERS[reader](tmp_path, A, U[:7]), "same number of samples")
        refused(SAVERS[reader](tmp_path, A[:0], U[:0]), "no samples")


def test_cno_samples_that_differ(tmp_path: Path) -> None:
    path = save_cno(tmp_path / "f.h5", A, U)
    with h5py.File(path, "a") as file:
        del file["sample_3/input"]
        file["sample_3/input"] = A[3, :4]
    refused(path, r"'sample_3/input' \[4, 6\] and 'sample_0/input' \[8, 6\] disagree")
    with h5py.File(path, "a") as file:
        del file["sample_3/input"]
    refused(path, "no dataset 'sample_3/input'")


def test_well_with_wrong_attributes(tmp_path: Path) -> None:
    density = np.ones((3, 4, 8, 6), np.float32)
    path = save_well(tmp_path / "f.hdf5", density, density[..., None].repeat(2, -1))
    with h5py.File(path, "a") as file:
        file.attrs["n_trajectories"] = 4
    refused(path, "disagrees")
    with h5py.File(path, "a") as file:
        file.attrs["n_spatial_dims"] = "two"
    refused(path, "must be 1, 2 or 3, not two, and n_trajectories a whole number")
    with h5py.File(path, "a") as file:
        file.attrs["n_spatial_dims"] = 2**60
    refused(path, "must be 1, 2 or 3, not 1152921504606846976")
    with h5py.File(path, "a") as file:
        file.attrs["n_spatial_dims"] = 3
    refused(path, "must have 3 entries")


def test_one_dimensional_or_single_states(tmp_path: Path) -> None:
    refused(save_hdf5(tmp_path / "f.h5", tensor=A), "dimensions is 1, not 2", ndim=2)
    refused(save_hdf5(tmp_path / "g.h5", tensor=A[:, None]), "1 state, but pairs")
    refused(save_hdf5(tmp_path / "h.h5", tensor=A[:, 0]), "must be")


def test_hdf5_that_leads_outside(tmp_path: Path) -> None:
    other = save_hdf5(tmp_path / "other.h5", x=A, y=U)
    external = tmp_path / "external.h5"
    with h5py.File(external, "w") as file:
        file["x"], file["y"] = h5py.ExternalLink(other.name, "/x"), U
    refused(external, "link to another file, 'other.h5'")
    hidden = tmp_path / "hidden.h5"
    with h5py.File(hidden, "w") as file:
        file["elsewhere"] = h5py.ExternalLink(other.name, "/")
        file["x"], file["y"] = h5py.SoftLink("/elsewhere/x"), U
    refused(hidden, "link to another file")
    circle = tmp_path / "circle.h5"
    with h5py.File(circle, "w") as file:
        file["x"], file["y"] = h5py.SoftLink("/z"), U
        file["z"] = h5py.SoftLink("/x")
    refused(circle, "round in circles")
    virtual = tmp_path / "virtual.h5"
    with h5py.File(virtual, "w") as file:
        layout = h5py.VirtualLayout(A.shape, A.dtype)
        layout[:] = h5py.VirtualSource(str(other), "x", A.shape)
        file.create_virtual_dataset("x", layout)
        file["y"] = U
    refused(virtual, "stored in other files")
    raw = tmp_path / "raw.h5"
    with h5py.File(raw, "w") as file:
        file.create_dataset("x", A.shape, A.dtype, external=[(str(other), 0, A.nbytes)])
        file["y"] = U
    refused(raw, "stored in other files")


def test_soft_links_inside_are_followed(tmp_path: Path) -> None:
    path = save_hdf5(tmp_path / "f.h5", deep__x=A, y=U)
    with h5py.File(path, "a") as file:
        file["x"] = h5py.SoftLink("deep/x")
    assert_reads(open_fields(path), A[:, None], U[:, None])


def test_hdf5_that_was_never_written_in_full(tmp_path: Path) -> None:
    for chunks in (None, (1, 8, 8)):
        path = tmp_path / f"{chunks}.h5"
        with h5py.File(path, "w") as file:
            x = file.create_dataset("x", (N, 8, 8), "f4", chunks=chunks)
            file.create_dataset("y", (N, 8, 8), "f4", data=np.ones((N, 8, 8)))
            if chunks:
                x[: N - 1] = 1
        refused(path, "never written in full")


def test_absurd_shapes(tmp_path: Path) -> None:
    absurd = tmp_path / "absurd.h5"
    with h5py.File(absurd, "w") as file:
        for name in "xy":
            file.create_dataset(name, (10**12, 1024, 1024), "f4", chunks=(1, 1024, 1024))
    refused(absurd, "declares 4,194,304,000,000,000,000 bytes")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 1024, 1024)}
    )
    (tmp_path / "x.npy").write_bytes(header.getvalue() + bytes(64))
    (tmp_path / "y.npy").write_bytes(header.getvalue() + bytes(64))
    refused(tmp_path / "x.npy", "damaged or truncated")
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.write(tmp_path / "x.npy", "x.npy")
        archive.write(tmp_path / "y.npy", "y.npy")
    refused(tmp_path / "f.npz", "declares more data than is there")
    zeros = header.getvalue().replace(b"1000000000000", b"30           ") + bytes(30 * 2**22)
    with zipfile.ZipFile(tmp_path / "g.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", zeros)
        archive.writestr("y.npy", zeros)
    refused(tmp_path / "g.npz", "times the size of the file")
    torch.save({"x": torch.zeros(1).expand(10**9, 64, 64), "y": torch.zeros(1)}, tmp_path / "f.pt")
    refused(tmp_path / "f.pt", "times the size of the file")


@pytest.mark.parametrize("name", ["f.pt", "f.npy", "f.npz", "f.h5", "f"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickles_are_refused(name: str, protocol: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(pickle.dumps({"x": Bomb(), "y": U}, protocol))
    refused(Path(name), "refused" if name == "f.pt" or protocol else "no reader fits")
    assert not Path("exploded").exists()


def test_pickles_within_archives_are_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    bombs = np.array([Bomb()], object)
    np.save("x.npy", bombs)
    np.save("y.npy", bombs)
    refused(Path("x.npy"), "pickled Python objects, which is refused")
    np.savez("f.npz", x=bombs, y=bombs)
    refused(Path("f.npz"), "pickled Python objects, which is refused")
    with zipfile.ZipFile("g.npz", "w") as archive:
        archive.writestr("x.npy", pickle.dumps(Bomb()))
        archive.writestr("y.npy", pickle.dumps(Bomb()))
    refused(Path("g.npz"), "pickles are refused")
    torch.save({"x": Bomb(), "y": torch.zeros(1)}, "f.pt")
    refused(Path("f.pt"), "refused")
    for saved in (torch.zeros(3), [1, 2]):
        torch.save(saved, "h.pt")
        refused(Path("h.pt"), "name the arrays with|is a list")
    torch.save({"x": [1.0], "y": torch.zeros(1)}, "i.pt")
    refused(Path("i.pt"), "'x' is a value of type list, but a dense tensor is needed")
    assert not Path("exploded").exists()


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory) -> dict[str, tuple[Path, list[np.ndarray]]]:
    folder = tmp_path_factory.mktemp("whole")
    paths = {name: save(folder, A, U) for name, save in SAVERS.items() if name != "cno"}
    paths["cno"] = save_cno(folder / "cno.h5", A, U)
    paths["legacy"] = folder / "legacy.pt"
    tensors = {"x": torch.from_numpy(A), "y": torch.from_numpy(U)}
    torch.save(tensors, paths["legacy"], _use_new_zipfile_serialization=False)
    paths["new"] = folder / "new.h5"
    with h5py.File(paths["new"], "w", libver="latest") as file:
        file.create_dataset("x", data=A, chunks=(2, 8, 6), compression="gzip")
        file.create_dataset("y", data=U, chunks=(1, 8, 6), compression="lzf")
    return paths


@pytest.mark.parametrize("name", [*SAVERS, "legacy", "new"])
@given(cut=st.integers(0, 2**20), padding=st.booleans())
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_truncation_never_gives_wrong_data(name, cut, padding, whole_files, tmp_path) -> None:
    """A truncated file, or one whose end is zeros, is refused, or read correctly."""
    source = whole_files[name]
    data = source.read_bytes()
    kept = data[: cut % (len(data) + 1)]
    path = tmp_path / source.name
    path.write_bytes(kept + bytes(padding * (len(data) - len(kept))))
    if name == "npy":
        (tmp_path / "y.npy").write_bytes(source.with_name("y.npy").read_bytes())
    try:
        inputs, outputs = open_fields(path).read(ORDER)
    except UserError:
        return
    if not padding:  # zeros may be data
        np.testing.assert_array_equal(inputs[:, 0], A[ORDER])
        np.testing.assert_array_equal(outputs[:, 0], U[ORDER])


def test_npy_headers_are_checked(tmp_path: Path) -> None:
    save_npy(tmp_path / "f", A, U)
    good = (tmp_path / "x.npy").read_bytes()
    for old, new in ((b"6), }", b"6O, }"), (b"(20", b"\xbe20"), (b"v\x00", b"\xff\xff")):
        assert old in good
        (tmp_path / "x.npy").write_bytes(good.replace(old, new, 1))
        refused(tmp_path / "x.npy", "damaged or truncated")
