import os
import pickle
import random

import pytest
import torch

from multigrid.errors import UserError
from multigrid.training.checkpoint import load_checkpoint, read_networks, save_checkpoint

PAYLOAD = {
    "network": {"a.weight": torch.arange(6.0).reshape(2, 3)},
    "epoch": 3,
    "names": ["x", "y"],
    "best": None,
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, PAYLOAD)
    return path


def assert_intact(path):
    loaded = load_checkpoint(path)
    assert torch.equal(loaded["network"]["a.weight"], PAYLOAD["network"]["a.weight"])
    assert (loaded["epoch"], loaded["names"], loaded["best"]) == (3, ["x", "y"], None)


def test_round_trip(path):
    assert_intact(path)
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]


def test_saving_replaces(path):
    save_checkpoint(path, {**PAYLOAD, "epoch": 4})
    assert load_checkpoint(path)["epoch"] == 4


def test_full_disk_leaves_the_old_file_and_says_so(path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"last\.pt: .*not be written: No space left on device"):
        save_checkpoint(path, {**PAYLOAD, "epoch": 4})
    assert_intact(path)
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_real_full_device_ends_in_one_sentence(path):
    path.with_name("last.pt.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match="cannot be written"):
        save_checkpoint(path, PAYLOAD)
    assert_intact(path)


def test_missing_folder_is_told(tmp_path):
    with pytest.raises(UserError, match="No such file or directory"):
        save_checkpoint(tmp_path / "nowhere" / "last.pt", PAYLOAD)


def test_what_cannot_be_saved_leaves_the_old_file(path):
    with pytest.raises(Exception, match=r"lambda|pickle"):
        save_checkpoint(path, {"network": lambda: None})
    assert_intact(path)


def test_what_cannot_be_saved_leaves_no_debris(path):
    with pytest.raises(Exception, match=r"lambda|pickle"):
        save_checkpoint(path, {"network": lambda: None})
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("plain", [False, True])
def test_pickled_payload_is_refused_and_never_executed(tmp_path, plain):
    path, target = tmp_path / "evil.pt", tmp_path / "executed"
    payload = {"format": 1, "network": Bomb(target)}
    if plain:
        path.write_bytes(pickle.dumps(payload, protocol=2))
    else:
        torch.save(payload, path)
    with pytest.raises(UserError, match=r"evil\.pt: refused"):
        load_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_truncated_file(path, fraction):
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(UserError, match=r"last\.pt: (unreadable|refused|damaged)"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        random.Random(0).randbytes(500),
        b"\x80\x02.",
    ],
)
def test_something_else_entirely(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pt: "):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [{"a": 1}, [1, 2], torch.zeros(2), {"format": 99}])
def test_foreign_checkpoint(tmp_path, value):
    path = tmp_path / "x.pt"
    torch.save(value, path)
    with pytest.raises(UserError, match="not a checkpoint of this project"):
        load_checkpoint(path)


def test_missing_file_and_folder_in_its_place(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "x.pt")
    with pytest.raises(UserError, match="unreadable"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("fields", [[1.0], [{"size": "1"}], [{"width": 1.0}], [{}, {}], "size"])
def test_scales_of_fields_that_are_none_are_named(tmp_path, fields):
    numbers = {
        f"{side}_{part}": [1.0] for side in ("input", "output") for part in ("shift", "scale")
    }
    about = {
        "level": 0,
        "grid": [4, 4],
        "config": {},
        "fields": {"input": ["f"], "output": ["u"]},
        "scaling": {"kind": "gaussian", **numbers, "fields": [{"size": 1.0}]},
    }
    path = tmp_path / "best.pt"
    save_checkpoint(path, {"network": {"weight": torch.ones(1)}, **about})
    assert read_networks(path)[0].about["level"] == 0
    about["scaling"]["fields"] = fields
    save_checkpoint(path, {"network": {"weight": torch.ones(1)}, **about})
    with pytest.raises(UserError, match="scaling"):
        read_networks(path)
