"""Files become the samples of a split on a level's grid."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from multigrid.data.files import FilePart, FileSource, nested_centering
from multigrid.data.formats import ReaderOptions, open_fields
from multigrid.data.samples import Samples
from multigrid.data.splits import DataFile
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.measurement import file_samples

COUNTS = {"train": 6, "validation": 2, "test": 2}
RNG = np.random.default_rng(0)
FINE = RNG.standard_normal((2, 12, 1, 16, 16), dtype=np.float32)


def average(fields: np.ndarray) -> np.ndarray:
    *rest, n, m = fields.shape
    return fields.reshape(*rest, n // 2, 2, m // 2, 2).mean((-3, -1))


def save(path: Path, fields: np.ndarray) -> DataFile:
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = fields
    return DataFile(path)


def source(*files: DataFile, counts=COUNTS, centering="cell", **options) -> FileSource:
    return FileSource(files, counts, centering, options=ReaderOptions(**options))


def test_one_file_serves_all_splits_and_levels(tmp_path: Path) -> None:
    data = source(save(tmp_path / "f.h5", FINE))
    assert (data.input_names, data.output_names) == (("x",), ("y",))
    for split, numbers in (("train", range(6)), ("validation", (8, 9)), ("test", (10, 11))):
        samples = data.read(split, Grid((16, 16)))
        expected = Samples(*torch.from_numpy(FINE[:, list(numbers)]), Grid((16, 16)))
        assert torch.equal(samples.inputs, expected.inputs)
        assert torch.equal(samples.outputs, expected.outputs)
        coarse, direct = data.read(split, Grid((4, 4))), expected.restrict_to(Grid((4, 4)))
        assert torch.equal(coarse.inputs, direct.inputs)
        assert torch.equal(coarse.outputs, direct.outputs)
        assert coarse.grid == direct.grid == Grid((4, 4))
    assert len(data.read("train", Grid((16, 16)), 8)) == 8
    with pytest.raises(
        UserError, match=r"9 train samples on 16x16 are wanted \(data.train\), but there are 8"
    ):
        data.read("train", Grid((16, 16)), 9)
    with pytest.raises(UserError, match="no train samples on 6x6: the files have 16x16"):
        data.read("train", Grid((6, 6)))


def test_blocks_do_not_change_the_samples(tmp_path: Path, monkeypatch) -> None:
    data = source(save(tmp_path / "f.h5", FINE))
    whole = data.read("train", Grid((8, 8)))
    monkeypatch.setattr("multigrid.data.arrays.BLOCK_BYTES", 1)
    assert len(list(data.files[0].file.blocks(np.arange(6)))) == 6
    assert torch.equal(data.read("train", Grid((8, 8))).inputs, whole.inputs)


def test_files_for_splits(tmp_path: Path) -> None:
    train = save(tmp_path / "train.h5", FINE)
    test = DataFile(save(tmp_path / "test.h5", FINE + 1).path, "test")
    data = source(train, test, counts={"train": 10, "validation": 2, "test": 12})
    assert np.array_equal(data.read("test", Grid((16, 16))).inputs, FINE[0] + 1)
    assert np.array_equal(data.read("validation", Grid((16, 16))).inputs, FINE[0, 10:])
    assert np.array_equal(data.read("train", Grid((16, 16))).inputs, FINE[0, :10])
    with pytest.raises(UserError, match="no file has train samples"):
        source(test)
    with pytest.raises(UserError, match="both are for the same split"):
        source(train, save(tmp_path / "more.h5", FINE))


def test_a_level_uses_the_file_of_its_own_grid(tmp_path: Path) -> None:
    coarse = average(FINE)
    coarse[0] += 1
    files = save(tmp_path / "8.h5", coarse), save(tmp_path / "16.h5", FINE)
    data = source(*files)
    assert data.nesting() == "cell"
    assert np.array_equal(data.read("train", Grid((8, 8))).inputs, coarse[0, :6])
    assert np.allclose(data.read("train", Grid((4, 4))).inputs, average(coarse[0, :6]))
    assert np.array_equal(data.read("train", Grid((16, 16))).inputs, FINE[0, :6])
    with pytest.raises(UserError, match=r"nest by averaging, so .* cell-centred, not node-centred"):
        source(*files, centering="node")


def test_strided_files_are_node_centred(tmp_path: Path) -> None:
    fine = RNG.standard_normal((2, 12, 17, 17), dtype=np.float32)
    files = save(tmp_path / "9.h5", fine[..., ::2, ::2]), save(tmp_path / "17.h5", fine)
    assert source(*files, centering="node").nesting() == "node"
    even = FINE[..., ::2, ::2]
    files = save(tmp_path / "8.h5", even), save(tmp_path / "16.h5", FINE)
    with pytest.raises(UserError, match=r"nest by striding, so .* node-centred"):
        source(*files)


def test_centering_is_found_out(tmp_path: Path) -> None:
    fine = save(tmp_path / "16.h5", FINE)
    odd = save(tmp_path / "17.h5", RNG.standard_normal((2, 12, 1, 17, 17), dtype=np.float32))
    averaged, strided = (
        save(tmp_path / f"{name}.h5", fields)
        for name, fields in (("averaged", average(FINE)), ("strided", FINE[..., ::2, ::2]))
    )
    foreign = save(tmp_path / "8.h5", average(FINE) + 1)
    for files, centering in (
        ([averaged, fine], "cell"),
        ([strided, fine], "node"),  # however even the sizes are
        ([foreign, fine], "cell"),
        ([fine], "cell"),
        ([odd], "node"),
    ):
        data = source(*files, centering="auto")
        assert data.centering == data.files[0].grid.centering == centering
    assert torch.equal(
        source(strided, fine, centering="auto").read("train", Grid((4, 4), "node")).inputs,
        torch.from_numpy(FINE[0, :6, :, ::4, ::4].copy()),
    )


def test_what_a_file_says_of_its_centering_counts(tmp_path: Path) -> None:
    for centering in ("node", "closed", "open"):
        path = tmp_path / f"{centering}.h5"
        with h5py.File(path, "w") as file:
            file.attrs["fingerprint"], file.attrs["centering"] = "made up", centering
            for split, count in (("train", 6), ("validation", 2), ("test", 2)):
                file[f"{split}/input"] = file[f"{split}/output"] = RNG.random((count, 1, 8, 8))
                file[split].attrs["num_complete"] = count
        assert source(DataFile(path), centering="auto").centering == centering


def test_more_coarse_samples_leak_nothing(tmp_path: Path) -> None:
    """The coarse file has all samples, the fine one the first eight of the same."""
    files = save(tmp_path / "8.h5", average(FINE)), save(tmp_path / "16.h5", FINE[:, :8])
    data = source(*files, counts={"train": 4, "validation": 2, "test": 2})
    held_out = {4, 5, 6, 7}
    _, pool, grid, _ = data.locate("train", Grid((8, 8)))
    assert grid == Grid((8, 8))
    assert pool.tolist() == [0, 1, 2, 3]
    assert not held_out & set(pool.tolist())


def test_own_files_keep_their_splits(tmp_path: Path) -> None:
    files = []
    for size, train in ((8, 8), (16, 6)):
        path = tmp_path / f"{size}.h5"
        with h5py.File(path, "w") as file:
            file.attrs["fingerprint"], file.attrs["centering"] = "made up", "cell"
            for split, count in (("train", train), ("validation", 2), ("test", 2)):
                file[f"{split}/input"] = RNG.random((count, 1, size, size))
                file[f"{split}/output"] = RNG.random((count, 1, size, size))
                file[split].attrs["num_complete"] = count
        files.append(DataFile(path))
    data = source(*files)
    assert data.locate("train", Grid((8, 8)))[1].tolist() == list(range(8))
    assert data.locate("test", Grid((16, 16)))[1].tolist() == [8, 9]
    with pytest.raises(UserError, match="is cell-centred, not node-centred"):
        source(*files, centering="node")


def test_a_coarse_file_for_training_alone_is_used_whole(tmp_path: Path) -> None:
    coarse = DataFile(save(tmp_path / "8.h5", average(FINE)).path, "train")
    data = source(coarse, save(tmp_path / "16.h5", FINE))
    assert len(data.read("train", Grid((8, 8)), 12)) == 12
    assert torch.allclose(
        data.read("test", Grid((8, 8))).inputs, torch.from_numpy(average(FINE[0, 10:]))
    )


def test_files_that_disagree(tmp_path: Path) -> None:
    two = np.concatenate([FINE, FINE], axis=2)
    files = save(tmp_path / "8.h5", average(two)), save(tmp_path / "16.h5", FINE)
    with pytest.raises(UserError, match=r"has 1 input channels, but .*8.h5 has 2"):
        source(*files)


@pytest.mark.parametrize("side", [0, 1])
def test_values_are_checked(side: int, tmp_path: Path) -> None:
    fields = FINE.copy()
    fields[side, 9, 0, 0, 0] = np.nan
    data = source(save(tmp_path / "f.h5", fields))
    data.read("train", Grid((8, 8)))
    with pytest.raises(UserError, match="1 NaN or infinite values as float32, in sample 9"):
        data.read("validation", Grid((8, 8)))
    fields[side] = 3
    data = source(save(tmp_path / "g.h5", fields))
    with pytest.raises(UserError, match="is constant, 3 in all training samples"):
        data.read("train", Grid((8, 8)))


def test_steps_of_trajectories_come_in_the_order_of_the_pool(tmp_path: Path) -> None:
    tensor = RNG.standard_normal((6, 5, 8, 8), dtype=np.float32)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["tensor"] = tensor
    data = source(DataFile(tmp_path / "f.h5"), counts={"train": 9, "validation": 3, "test": 0})
    _, pool, grid, _ = data.locate("train", Grid((8, 8)))
    samples = data.read("train", grid)
    for sample, number in enumerate(pool[:9]):
        trajectory, step = divmod(int(number), 4)
        assert np.array_equal(samples.inputs[sample, 0], tensor[trajectory, step])
        assert np.array_equal(samples.outputs[sample, 0], tensor[trajectory, step + 1])
    fewer = data.read("train", grid, 4)
    assert torch.equal(fewer.inputs, samples.inputs[:4])


def test_reduced_resolution(tmp_path: Path) -> None:
    data = source(save(tmp_path / "f.h5", FINE), reduced_resolution=2)
    assert data.files[0].grid == Grid((8, 8))
    assert np.array_equal(data.read("train", Grid((8, 8))).inputs, FINE[0, :6, :, ::2, ::2])


def test_the_centering_by_which_files_nest() -> None:
    fine = torch.from_numpy(RNG.standard_normal((3, 2, 12, 24, 8), dtype=np.float32))
    averaged = fine.reshape(3, 2, 3, 4, 6, 4, 2, 4).mean((3, 5, 7))
    assert nested_centering(averaged, fine) == "cell"
    assert nested_centering(fine[..., ::2, ::2, ::2], fine) == "node"
    assert nested_centering(fine[..., 1::2, ::2, ::2], fine) is None
    assert nested_centering(fine[..., 0:6, 0:12, 0:4], fine) is None
    assert nested_centering(fine, fine) is None
    odd = torch.from_numpy(RNG.standard_normal((1, 1, 85, 43)))
    assert nested_centering(odd[..., ::2, ::2], odd) == "node"
    ones = torch.ones(1, 1, 8, 8)
    assert nested_centering(ones[..., ::2, ::2], ones) is None


def test_what_is_held_in_memory_is_read_once(tmp_path: Path, monkeypatch) -> None:
    data, seen = source(save(tmp_path / "f.h5", FINE)), []
    load = FilePart.load
    monkeypatch.setattr(FilePart, "load", lambda p, i: seen.extend(i) or load(p, i))
    for size in (16, 8, 4):
        data.read("train", Grid((size, size)))
    assert sorted(seen) == list(range(6))


@pytest.mark.parametrize(("size", "same"), [(9, True), (8, False)])
def test_nodes_are_compared_by_their_points(tmp_path: Path, size: int, same: bool) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.attrs["fingerprint"], file.attrs["centering"] = "made up", "closed"
        for split in ("train", "validation", "test"):
            file[f"{split}/input"] = file[f"{split}/output"] = RNG.random((2, 1, size, size))
            file[split].attrs["num_complete"] = 2
    file = open_fields(tmp_path / "f.h5")
    names = file.input_names, file.output_names
    if same:  # closed, as every odd number of nodes
        assert file_samples(file, names, "node").samples.grid == Grid((size, size), "node")
    else:
        with pytest.raises(UserError, match=r"is closed-centred, but .* on node-centred samples"):
            file_samples(file, names, "node")
