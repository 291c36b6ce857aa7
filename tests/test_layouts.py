"""Files laid out as other projects lay them out, read against what was written."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from multigrid.config.data import TimeConfig
from multigrid.data.files import FileSource
from multigrid.data.formats import Layout, ReaderOptions, make_field, open_container, open_fields
from multigrid.data.inspect import inspect_path
from multigrid.data.splits import DataFile
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.registry import READERS

RNG = np.random.default_rng(0)
N, T, X, Y = 12, 5, 8, 6
U = RNG.standard_normal((N, T, X, Y), dtype=np.float32)
V = RNG.standard_normal((N, T, X, Y, 2), dtype=np.float32)
A = RNG.standard_normal((N, X, Y), dtype=np.float32)
SAMPLES = np.array([7, 0, 4, 3, 46])
COUNTS = {"train": 8, "validation": 4, "test": 4}


def save(path: Path, arrays: dict[str, np.ndarray], **attributes) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        for name, array in arrays.items():
            file[name] = array
    return path


def assert_steps(file, states: np.ndarray, constants: np.ndarray | None = None) -> None:
    """Compares samples with states ``[N, T, C, *grid]`` and constants ``[N, C, *grid]``."""
    size = states.shape[1] - 1
    assert file.num_samples == len(states) * size
    samples = SAMPLES % file.num_samples
    inputs, outputs = file.read(samples)
    for row, sample in enumerate(samples):
        k, t = divmod(int(sample), size)
        expected = states[k, t]
        if constants is not None:
            expected = np.concatenate([expected, constants[k]])
        np.testing.assert_array_equal(inputs[row], expected.astype(np.float32))
        np.testing.assert_array_equal(outputs[row], states[k, t + 1].astype(np.float32))


def assert_pairs(file, inputs: np.ndarray, outputs: np.ndarray) -> None:
    order = np.array([3, 0, 1, len(inputs) - 1])
    got = file.read(order)
    np.testing.assert_array_equal(got[0], inputs[order].astype(np.float32))
    np.testing.assert_array_equal(got[1], outputs[order].astype(np.float32))
    assert file.num_samples == len(inputs)


# ---------------------------------------------------------------- PDEBench


def test_pdebench_one_dimension(tmp_path: Path) -> None:
    arrays = {"tensor": U[..., 0], "x-coordinate": np.arange(X), "t-coordinate": np.arange(T) / 4}
    file = open_fields(save(tmp_path / "1D_Burgers.hdf5", arrays))
    assert file.reader == "pdebench"
    assert_steps(file, U[:, :, None, :, 0])
    assert file.ignored == ()
    assert file.layout.time_step == 0.25
    fluid = {name: U[..., k] for k, name in enumerate(("Vx", "density", "pressure"))}
    file = open_fields(save(tmp_path / "1D_CFD_periodic.hdf5", fluid))
    assert file.output_names == ("density", "pressure", "Vx")
    assert_steps(file, np.moveaxis(U[..., [1, 2, 0]], -1, 2))
    assert file.layout.boundaries["x"].startswith("periodic")


@pytest.mark.parametrize("ndim", [1, 2])
def test_pdebench_groups(ndim: int, tmp_path: Path) -> None:
    states = V if ndim == 2 else V[..., 0, :]
    arrays = {f"{k:04d}/data": states[k] for k in range(N)}
    arrays |= {f"{k:04d}/grid/{name}": np.arange(5) * 0.5 for k in range(N) for name in "txy"}
    file = open_fields(save(tmp_path / "2D_diff-react_NA_NA.h5", arrays))
    assert file.reader == "pdebench"
    assert_steps(file, np.moveaxis(states, -1, 2))
    assert file.ignored == ()
    assert file.layout.time_step == 0.5


def test_pdebench_incompressible(tmp_path: Path) -> None:
    particles, force = U[..., None], V[:, 0]
    arrays = {"velocity": V, "particles": particles, "force": force, "t": np.zeros((N, T))}
    file = open_fields(save(tmp_path / "ns_incom_inhom_2d_512-0.h5", arrays))
    states = np.moveaxis(np.concatenate([V, particles], -1), -1, 2)
    assert file.input_names[-2:] == ("force_0", "force_1")
    assert_steps(file, states, np.moveaxis(force, -1, 1))


def test_fewer_than_ten_trajectories_of_pdebench_can_be_tested(tmp_path: Path) -> None:
    path = save(tmp_path / "f.hdf5", {"tensor": U[:8]})
    counts = {"train": 8, "validation": 4, "test": 4}
    source = FileSource([DataFile(path)], counts, "cell")
    assert {int(k) // 4 for k in source.files[0].pools["test"]} == {7}


# ---------------------------------------------------------------- MATLAB


def save_v73(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A file as MATLAB v7.3 writes it: a block of text before HDF5, axes in reverse order."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = array.T
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b" "))
    return path


def save_copied(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """The same after a program has copied it, as ``h5repack`` does, without the block of text."""
    with h5py.File(save_v73(path, arrays)) as file, h5py.File(path.with_suffix(".h5"), "w") as copy:
        for name in arrays:
            file.copy(name, copy)
    return path.with_suffix(".h5").rename(path)


@pytest.mark.parametrize("save_mat", [scipy.io.savemat, save_v73, save_copied])
def test_matlab(save_mat, tmp_path: Path) -> None:
    pairs = {"coeff": A.astype(float), "sol": U[:, 0].astype(float)}
    save_mat(tmp_path / "darcy.mat", pairs)
    assert_pairs(open_fields(tmp_path / "darcy.mat"), A[:, None], U[:, :1])
    save_mat(tmp_path / "burgers.mat", {"a": A[..., 0], "u": U[:, 0, :, 0], "v": np.eye(1)})
    file = open_fields(tmp_path / "burgers.mat", options=ReaderOptions(ndim=1))
    assert_pairs(file, A[:, None, :, 0], U[:, :1, :, 0])
    assert file.ignored == ("v",)
    trajectories = np.moveaxis(U, 1, -1)
    save_mat(tmp_path / "ns.mat", {"a": A, "u": trajectories, "t": np.arange(T)[None] * 1.0})
    file = open_fields(tmp_path / "ns.mat")
    assert file.reader == "fno"
    assert_steps(file, U[:, :, None])
    assert "a" in file.ignored


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_v5_is_read_as_scipy_reads_it(compressed: bool, tmp_path: Path) -> None:
    numbers = {
        f"of_{code}": (100 * RNG.standard_normal((3, 4, 5))).astype(code)
        for code in ("f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "bool")
    }
    others = {"text": "abc", "cells": np.array([1, "a"], object), "fields": {"a": 1.0}, "z": [1j]}
    path = tmp_path / "f.mat"
    scipy.io.savemat(path, {**numbers, **others, "x": 1.5}, do_compression=compressed)
    container = open_container(path, ReaderOptions())
    assert container.names == (*numbers, *others, "x")
    expected = scipy.io.loadmat(path)
    with container.open() as arrays:
        for name in (*numbers, "x"):
            info, array = container.info(name), arrays(name)
            kind = bool if name == "of_bool" else expected[name].dtype
            assert (info.shape, info.dtype) == (expected[name].shape, kind)
            assert array.dtype == kind
            assert np.array_equal(array[:], expected[name])
        for name in others:
            with pytest.raises(UserError, match=f"'{name}' holds .*but real numbers are needed"):
                arrays(name)


def test_matlab_doubles_stored_as_bytes_are_doubles(tmp_path: Path) -> None:
    """As MATLAB saves whole numbers; here of the other byte order too."""
    path, order = tmp_path / "f.mat", ">"
    flags, shape = np.array([6, 8, 6, 0, 5, 8, 2, 3], f"{order}u4"), np.array([2, 3], f"{order}i4")
    name = np.array([1 << 16 | 1], f"{order}u4").tobytes() + b"a\0\0\0"
    values = np.array([2, 6], f"{order}u4").tobytes() + bytes(range(6)) + b"\0\0"
    body = flags[:6].tobytes() + shape.tobytes() + name + values
    tag = np.array([14, len(body)], f"{order}u4").tobytes()
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0MI" + tag + body)
    with open_container(path, ReaderOptions()).open() as arrays:
        assert arrays("a").dtype == np.float64
        assert np.array_equal(arrays("a")[:], [[0, 2, 4], [1, 3, 5]])


def test_matlab_files_that_are_damaged_or_too_old(tmp_path: Path) -> None:
    path = tmp_path / "f.mat"
    scipy.io.savemat(path, {"coeff": A.astype(float)})
    content = bytearray(path.read_bytes())
    start = content.index(b"coeff") + 8
    for at, value, message in (
        (start + 4, 255, "an element is longer than what it is in"),
        (start, 7, r"coeff has \d+ bytes for the shape"),
        (start, 30, "coeff has numbers of the unknown type 30"),
        (136, 9, "the beginning of an array is damaged"),
    ):
        path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
        told = pytest.raises(UserError, match=f"damaged or truncated .*{message}")
        with told, open_container(path, ReaderOptions()).open() as arrays:
            arrays("coeff")
    scipy.io.savemat(path, {"coeff": A[0, :, :].astype(float)}, format="4")
    with pytest.raises(UserError, match=r"no file of MATLAB v5 to v7\.3; save it again with save"):
        open_container(path, ReaderOptions())


# ---------------------------------------------------------------- CNO and Poseidon


@pytest.mark.parametrize("name", ["sample", "Sample"])
@pytest.mark.parametrize("flat", [False, True])
def test_cno(name: str, flat: bool, tmp_path: Path) -> None:
    a, u = RNG.standard_normal((2, N, 8, 8), dtype=np.float32)
    shape = (64,) if flat else (8, 8)
    arrays = {}
    for k in range(N):
        arrays |= {f"{name}_{k}/input": a[k].reshape(shape), f"{name}_{k}/output": u[k]}
    assert_pairs(open_fields(save(tmp_path / "f.h5", arrays)), a[:, None], u[:, None])


def test_cno_wave_pairs_of_one_sample_stay_together(tmp_path: Path) -> None:
    arrays = {}
    for k in range(N):
        for t in range(4):
            arrays |= {f"Sample_{k}_{t}/input": U[k, t], f"Sample_{k}_{t}/output": U[k, t + 1]}
    file = open_fields(save(tmp_path / "f.h5", arrays))
    assert (file.num_groups, file.group_size) == (N, 4)
    flat = U[:, :-1].reshape(-1, 1, X, Y), U[:, 1:].reshape(-1, 1, X, Y)
    assert_pairs(file, *flat)


def test_cno_temporal(tmp_path: Path) -> None:
    states = np.moveaxis(V, -1, 2)
    path = save(tmp_path / "f.h5", {f"sample_{k}": states[k] for k in range(N)})
    assert_steps(open_fields(path, options=ReaderOptions(ndim=2)), states)


@pytest.mark.parametrize("name", ["velocity", "solution", "data"])
def test_poseidon(name: str, tmp_path: Path) -> None:
    states = np.moveaxis(V, -1, 2)
    file = open_fields(save(tmp_path / "f.nc", {name: states, "c": A}))
    assert file.reader == "poseidon"
    assert file.input_names == (f"{name}_0", f"{name}_1", "c")
    assert_steps(file, states, A[:, None])
    assert_steps(open_fields(save(tmp_path / "g.nc", {name: U})), U[:, :, None])


# ---------------------------------------------------------------- The Well and PDEArena


def save_well(path: Path, states: np.ndarray, alpha: float, bc: str = "PERIODIC", **more) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs.update(
            {"dataset_name": "made_up", "grid_type": "cartesian", "n_spatial_dims": 2}
        )
        file.attrs.update({"n_trajectories": len(states), **more})
        file["t0_fields/density"] = states
        file["t1_fields/velocity"] = np.stack([states, 2 * states], -1)
        file["scalars/alpha"] = alpha
        file["scalars/alpha"].attrs.update({"sample_varying": False, "time_varying": False})
        file["dimensions/time"] = np.arange(states.shape[1]) * 0.1
        for axis in "xy":
            group = file.create_group(f"boundary_conditions/{axis}_periodic")
            group.attrs["bc_type"], group.attrs["associated_dims"] = bc, [axis]
            group["mask"] = np.ones(8, bool)
    return path


def test_a_folder_of_the_well(tmp_path: Path) -> None:
    for split, parts in (("train", 3), ("valid", 1), ("test", 1)):
        (tmp_path / "set/data" / split).mkdir(parents=True)
        for part in range(parts):
            path = tmp_path / "set/data" / split / f"made_up_{part}.hdf5"
            save_well(path, U[4 * part : 4 * part + 4], alpha=part + 1.0)
    options = ReaderOptions(parameters=("alpha",))
    files = [DataFile(tmp_path / "set")]
    source = FileSource(files, {"train": 48, "validation": 4, "test": 4}, "cell", options=options)
    file, pool, *_ = source.locate("train", Grid((X, Y)))
    assert len(file.parts) == 3
    states = np.stack([U, U, 2 * U], axis=2)
    alphas = np.repeat([1.0, 2.0, 3.0], 4)[:, None, None, None] * np.ones((1, 1, X, Y))
    assert_steps(file, states, alphas)
    assert sorted(pool.tolist()) == list(range(48))
    assert file.input_names == ("density", "velocity_0", "velocity_1", "alpha")
    assert file.layout.boundaries == {"x": "periodic", "y": "periodic"}
    assert file.layout.time_step == pytest.approx(0.1)
    report = inspect_path(tmp_path / "set", options=options)
    assert report["suggestion"]["problem"]["file"] == str(tmp_path / "set")
    assert report["suggestion"]["model"] == {"padding": "periodic"}
    assert (report["suggestion"]["data"]["train"], report["suggestion"]["data"]["test"]) == (48, 4)


def test_boundaries_by_axis_become_padding(tmp_path: Path) -> None:
    path = save_well(tmp_path / "f.hdf5", U, 0.5)
    with h5py.File(path, "a") as file:
        file["boundary_conditions/y_periodic"].attrs["bc_type"] = "WALL"
    model = inspect_path(path)["suggestion"]["model"]
    assert model["padding"] == {"x": "periodic", "y": "zeros"}


def test_scalars_of_the_well_are_named(tmp_path: Path) -> None:
    file = open_fields(save_well(tmp_path / "f.hdf5", U, 0.5))
    assert file.ignored == ("scalars/alpha",)
    assert file.parameters == ("scalars/alpha",)


def test_spherical_grids_are_refused_or_asked_for(tmp_path: Path) -> None:
    path = save_well(tmp_path / "f.hdf5", U, 0.5, grid_type="spherical")
    with pytest.raises(UserError, match="the grid is spherical, not Cartesian"):
        open_fields(path)
    assert open_fields(path, options=ReaderOptions(noncartesian=True)).num_samples


def test_pdearena(tmp_path: Path) -> None:
    arrays = {f"train/{n}": (k + 1.0) * U for k, n in enumerate(("u", "vx", "vy"))}
    arrays |= {"train/buo_y": np.linspace(0.2, 0.5, N), "train/t": np.arange(T) * 1.5}
    arrays["train/dt"] = np.full(N, 1.5)
    train = save(tmp_path / "NavierStokes2D_train_1.h5", arrays)
    valid = {name.replace("train", "valid"): array for name, array in arrays.items()}
    valid = save(tmp_path / "NavierStokes2D_valid_1.h5", valid)
    file = open_fields(train, options=ReaderOptions(parameters=("buo_y", "dt")))
    assert file.reader == "pdearena"
    states = np.stack([U, 2 * U, 3 * U], axis=2)
    buo = np.linspace(0.2, 0.5, N)[:, None, None, None] * np.ones((1, 1, X, Y))
    assert_steps(file, states, np.concatenate([buo, np.full_like(buo, 1.5)], axis=1))
    assert file.ignored == ()
    assert file.named_splits == {"train": range(N)}
    assert open_fields(valid).named_splits == {"validation": range(N)}
    files = [DataFile(train), DataFile(valid), DataFile(valid, "test")]
    counts = {"train": 40, "validation": 40, "test": 40}
    source = FileSource(files, counts, "cell")
    assert [list(item.pools) for item in source.files] == [["train"], ["validation"], ["test"]]
    alone = FileSource([DataFile(train)], COUNTS, "cell").files[0].pools
    assert set(alone) == {"train", "validation", "test"}


# ---------------------------------------------------------------- netCDF


def save_netcdf(path: Path, packed: bool) -> np.ndarray:
    """A file as xarray writes it by h5netcdf: dimension scales, packing and gaps."""
    with h5py.File(path, "w") as file:
        names = ("sample", "time", "lat", "lon") if packed else ("sample", "time", "y", "x")
        for name, size in zip(names, U.shape, strict=True):
            file[name] = np.arange(size) * 1.0
            file[name].make_scale(name)
        stored = np.round(U * 1000).astype("int16") if packed else U
        file["temperature"] = stored
        for axis, name in enumerate(names):
            file["temperature"].dims[axis].attach_scale(file[name])
        file["orography"] = A[0]
        for axis, name in enumerate(names[2:]):
            file["orography"].dims[axis].attach_scale(file[name])
        if packed:
            attributes = {
                "scale_factor": 0.001,
                "add_offset": 270.0,
                "_FillValue": np.int16(-32767),
            }
            file["temperature"].attrs.update(attributes)
            return (stored.astype(np.float32) * np.float32(0.001) + np.float32(270.0))[:, :, None]
    return U[:, :, None]


def test_netcdf(tmp_path: Path) -> None:
    states = save_netcdf(tmp_path / "f.nc", packed=False)
    file = open_fields(tmp_path / "f.nc")
    assert_steps(file, states, np.broadcast_to(A[0], (N, 1, X, Y)))
    assert file.ignored == ()
    states = save_netcdf(tmp_path / "g.nc", packed=True)
    with pytest.raises(UserError, match="latitude-longitude, not Cartesian"):
        open_fields(tmp_path / "g.nc")
    file = open_fields(tmp_path / "g.nc", options=ReaderOptions(noncartesian=True))
    got = file.read([0])[0][0, 0]
    np.testing.assert_allclose(got, states[0, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("name", ["f.zarr", "f.nc"])
def test_zarr_and_netcdf_3(name: str, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    dims = ("b", "time", "lat", "lon")
    arrays = {
        "u": (dims, U),
        "pres": (dims, 2 * U),
        "v": (("b", "time", "lev", *dims[2:]), U[:, :, None]),
    }
    data = xarray.Dataset(arrays, coords={"time": np.arange(T) * 6.0})
    if name == "f.nc":
        data.to_netcdf(tmp_path / name, format="NETCDF3_64BIT", engine="scipy")
    else:
        pytest.importorskip("zarr")
        data.attrs["huge"] = 10**400  # JSON has such numbers
        data.to_zarr(tmp_path / name, consolidated=False)
    file = open_fields(tmp_path / name, options=ReaderOptions(noncartesian=True))
    assert file.output_names == ("pres", "u", "v")
    assert_steps(file, np.stack([2 * U, U, U], axis=2))
    assert file.ignored == ()


def test_two_axes_of_samples_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.nc", "w") as file:
        file["u"] = np.stack([U, U], axis=1)
        for axis, (name, size) in enumerate(zip(("sample", "ensemble", "time", "y", "x"),
                                                file["u"].shape, strict=True)):  # fmt: skip
            file[name] = np.arange(size)
            file[name].make_scale(name)
            file["u"].dims[axis].attach_scale(file[name])
    with pytest.raises(UserError, match=r"'u' .* is read as \[N, N, T, X, Y\], .* only C may"):
        open_fields(tmp_path / "f.nc")
    options = ReaderOptions(input="u", output="u", axes="N C T X Y")
    assert_steps(open_fields(tmp_path / "f.nc", options), np.stack([U, U], axis=2))


def test_channels_of_pairs_are_no_time_steps(tmp_path: Path) -> None:
    """What another format has as steps in time is a pair's last axis here."""
    np.savez(tmp_path / "f.npz", a=A, u=V[:, 0])
    assert_pairs(open_fields(tmp_path / "f.npz"), A[:, None], np.moveaxis(V[:, 0], -1, 1))
    arrays = {"train/x": U[:, :1], "train/y": U[:, 1:2]}
    with pytest.raises(UserError, match="no reader fits"):
        open_fields(save(tmp_path / "f.h5", arrays))


def test_gaps_are_not_numbers(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.nc", "w") as file:
        file["x"], file["y"] = A, U[:, 0]
        file["x"][3, 0, 0] = 9.96921e36
        file["x"].attrs["_FillValue"] = np.float32(9.96921e36)
    with pytest.raises(UserError, match="1 NaN or infinite values as float32, in sample 3"):
        open_fields(tmp_path / "f.nc").read(range(N))


# ---------------------------------------------------------------- arrays of NumPy and torch


@pytest.mark.parametrize(
    "saved",
    [
        (torch.from_numpy(A), torch.from_numpy(U[:, 0])),
        [torch.from_numpy(A), torch.from_numpy(U[:, 0])],
        {"x": A, "y": U[:, 0]},
        torch.utils.data.TensorDataset(torch.from_numpy(A), torch.from_numpy(U[:, 0])),
    ],
    ids=["tuple", "list", "numpy", "TensorDataset"],
)
def test_pairs_saved_by_torch(saved, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "f.pt")
    assert_pairs(open_fields(tmp_path / "f.pt"), A[:, None], U[:, :1])


def test_trajectories_saved_by_torch_and_numpy(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(U), tmp_path / "f.pt")
    np.save(tmp_path / "f.npy", U)
    np.savez(tmp_path / "f.npz", data=U)
    for name in ("f.pt", "f.npy", "f.npz"):
        file = open_fields(tmp_path / name)
        assert_steps(file, U[:, :, None])
        assert any("N, T, X, Y], a guess" in line for line in file.remarks())
    np.save(tmp_path / "g.npy", np.moveaxis(V, -1, 2))
    assert_steps(open_fields(tmp_path / "g.npy"), np.moveaxis(V, -1, 2))


def test_one_sample_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    for k in range(N):
        np.savez(folder / f"{k:04d}.npz", x=A[k], y=U[k, 0])
    options = ReaderOptions(axes="X Y")
    for path in (folder, folder / "*.npz"):
        assert_pairs(open_fields(path, options=options), A[:, None], U[:, :1])
    other = tmp_path / "npy"
    other.mkdir()
    for k in range(N):
        np.save(other / f"input_{k:04d}.npy", A[k])
        np.save(other / f"output_{k:04d}.npy", U[k, 0])
    assert_pairs(open_fields(other, options=options), A[:, None], U[:, :1])


def test_several_files_of_trajectories(tmp_path: Path) -> None:
    for part in range(3):
        np.savez(tmp_path / f"{part}.npz", u=U[4 * part : 4 * part + 4], nu=np.full(4, part))
    options = ReaderOptions(parameters=("nu",))
    file = open_fields(tmp_path / "*.npz", options=options)
    suggestion = inspect_path(tmp_path / "*.npz")["suggestion"]
    assert suggestion["problem"]["file"] == str(tmp_path / "*.npz")
    assert suggestion["problem"]["parameters"] == ["nu"]
    nu = np.repeat([0.0, 1.0, 2.0], 4)[:, None, None, None] * np.ones((1, 1, X, Y))
    assert_steps(file, U[:, :, None], nu)
    np.savez(tmp_path / "3.npz", u=U[:, :, :4], nu=np.full(N, 3))
    with pytest.raises(UserError, match="the grid differs from that of"):
        open_fields(tmp_path / "*.npz", options=options)


# ---------------------------------------------------------------- further projects, by description

STATES = np.moveaxis(V, -1, 2)
BY_NAME = {"input": "u", "output": "u"}


def save_further(project: str, path: Path) -> tuple[dict, np.ndarray, np.ndarray | None]:
    """Writes files as a project has them; returns options, states and constants."""
    line = U[:, :, None, :, 0]
    if project == "BubbleML":  # a simulation a file, a field an array
        path.mkdir()
        names = ["temperature", "velx"]
        for k in range(3):
            arrays = dict(zip(names, STATES[k].swapaxes(0, 1), strict=True))
            save(path / f"Twall-{k}.hdf5", {**arrays, "real-runtime-params": np.zeros(9)})
        return {"input": names, "output": names, "axes": "T X Y"}, STATES[:3], None
    if project == "FourCastNet":  # a year a file, all fields in one array
        path.mkdir()
        for k in range(3):
            save(path / f"{2000 + k}.h5", {"u": STATES[k]})
        return {**BY_NAME, "axes": "T C X Y"}, STATES[:3], None
    if project == "MP-PDE":
        alpha = np.linspace(0, 1, N)
        save(path, {"train/pde_5-8": U[..., 0], "train/x": np.arange(X), "train/alpha": alpha})
        name = "train/pde_5-8"
        options = {"input": name, "output": name, "ndim": 1, "parameters": ["alpha"]}
        return options, line, alpha[:, None, None] * np.ones((1, 1, X))
    if project == "Raissi":  # one solution [x, t]
        times = {"x": np.arange(X)[:, None], "t": np.arange(T)[:, None]}
        scipy.io.savemat(path, {"u": line[0, :, 0].T, **times})
        return {**BY_NAME, "axes": "X T"}, line[:1], None
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    dims = ("time", "level", "latitude", "longitude")
    xarray.Dataset({"z": (dims, STATES[0])}).to_zarr(path, consolidated=False)
    return {"noncartesian": True}, STATES[:1], None


@pytest.mark.parametrize(
    ("project", "name"),
    [
        ("BubbleML", "pool"),
        ("FourCastNet", "era5"),
        ("MP-PDE", "CE_train_E1.h5"),
        ("Raissi", "burgers_shock.mat"),
        ("WeatherBench", "era5.zarr"),
    ],
)
def test_further_projects(project: str, name: str, tmp_path: Path) -> None:
    options, states, constants = save_further(project, tmp_path / name)
    assert_steps(open_fields(tmp_path / name, ReaderOptions(**options)), states, constants)


def test_the_well_itself_reads_the_same(tmp_path: Path) -> None:
    well = pytest.importorskip("the_well.data")
    dummy = pytest.importorskip("the_well.utils.dummy_data")
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    dummy.write_dummy_data(str(folder / "dummy.hdf5"))
    options = {"n_steps_input": 2, "n_steps_output": 1, "return_grid": False}
    other = well.WellDataset(path=str(tmp_path), well_split_name="train", **options)
    file = open_fields(folder / "dummy.hdf5", time=TimeConfig(history=2))
    assert len(other) == file.num_samples
    for k in range(len(other)):
        sample = other[k]
        past, output = (sample[f"{side}_fields"].movedim(-1, 1) for side in ("input", "output"))
        constant = sample["constant_fields"].movedim(-1, 0)
        inputs, outputs = file.read([k])
        np.testing.assert_array_equal(inputs[0], torch.cat([past.flatten(0, 1), constant]).numpy())
        np.testing.assert_array_equal(outputs, output.numpy())


# ---------------------------------------------------------------- a reader of the user's


def test_a_reader_of_the_users(tmp_path: Path) -> None:
    @READERS.register("raw")
    def read_raw(container, options):
        """Raw float32 numbers, described by a JSON file beside them."""
        if container.path.suffix != ".raw":
            return None
        shape = json.loads(container.path.with_suffix(".json").read_text())
        array = np.memmap(container.path, np.float32, "r", shape=tuple(shape))
        return Layout(states=(make_field(container, array, "NTXY", "u"),))

    try:
        (tmp_path / "f.raw").write_bytes(U.tobytes())
        (tmp_path / "f.json").write_text(json.dumps(U.shape))
        file = open_fields(tmp_path / "f.raw")
        assert file.reader == "raw"
        assert_steps(file, U[:, :, None])
    finally:
        del READERS._items["raw"]


# ---------------------------------------------------------------- files that cannot be read now


def test_a_file_that_is_being_written(tmp_path: Path) -> None:
    code = (
        "import h5py, sys; file = h5py.File('f.h5', 'w'); file['x'] = 1.0; file.flush()\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(UserError, match="locked by another program, which may be writing it"):
            open_fields(tmp_path / "f.h5")


def test_a_filter_that_is_not_there(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=A, compression="gzip")
        file.create_dataset("y", data=U[:, 0])
    monkeypatch.setattr("h5py.h5z.filter_avail", lambda code: False)
    with pytest.raises(
        UserError, match=r"'/x' is compressed with filter 1 \(deflate\).*hdf5plugin"
    ):
        open_fields(path)
