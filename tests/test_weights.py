"""Reading and writing state dictionaries."""

import os
import pickle

import pytest
import torch
from safetensors import safe_open
from torch import nn

from multigrid.data.formats import open_fields
from multigrid.errors import UserError
from multigrid.training.checkpoint import (
    check_writable,
    load_weights,
    read_networks,
    save_checkpoint,
    save_weights,
)

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2), "n": torch.tensor(3)}


def assert_same(found, expected=STATE):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_there_and_back(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    layout = {**STATE, "conv": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)}
    save_weights(path, layout, {"grid": [4, 4]})
    assert_same(load_weights(path).tensors, layout)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            assert file.metadata()["multigrid"] == '{"grid": [4, 4]}'


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s},
        lambda s: {**s, "_metadata": {"kind": "FNO"}},
        lambda s: {"model_state_dict": s},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
        lambda s: {"model_state": s, "epoch": 3},
        lambda s: {"epoch": 3, "net": s},
        lambda s: {"ema": {f"_orig_mod.module.{k}": v for k, v in s.items()}},
        lambda s: {f"module._orig_mod.module.{k}": v for k, v in s.items()},
    ],
)
def test_plain_state_dictionaries_however_wrapped(tmp_path, wrap):
    torch.save(wrap(STATE), tmp_path / "w.pt")
    assert_same(load_weights(tmp_path / "w.pt").tensors)


def test_a_checkpoint_of_this_project(tmp_path):
    save_checkpoint(tmp_path / "best.pt", {"network": STATE, "trainer": {"optimizer": {}}})
    assert_same(load_weights(tmp_path / "best.pt").tensors)


def test_bad_files(tmp_path):
    bad = {
        "garbage.pt": b"garbage",
        "garbage.safetensors": b"garbage",
        "empty.pt": b"",
        "pickled.pt": pickle.dumps(nn.Linear(2, 2)),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    sentences = {
        "garbage.pt": "refused|unreadable",
        "garbage.safetensors": "damaged, or no safetensors file",
        "empty.pt": "unreadable",
        "pickled.pt": "refused as a checkpoint, as it is damaged or holds pickled objects",
        "module.pt": r"pickled objects .* save weights alone, as in torch.save\(model.state_dict",
        "none.pt": "no such file: .*none.pt",
        "garbage.pth": "no such file: .*did you mean '.*garbage.pt'",
        "": "is a folder, not a checkpoint$",
    }
    for name, sentence in sentences.items():
        with pytest.raises(UserError, match=sentence):
            load_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["fifo.pt", "fifo.safetensors", "/dev/zero"])
def test_what_is_not_a_regular_file_is_called_so(tmp_path, name):
    path = tmp_path / name
    if not path.exists():
        os.mkfifo(path)
    with pytest.raises(UserError, match=f"^checkpoints.load: {path} is not a regular file$"):
        load_weights(path)
    with pytest.raises(UserError, match=f"^{path}: .*is not a regular file$"):
        read_networks(path)


def test_a_run_folder_names_its_checkpoint(tmp_path):
    (tmp_path / "level_0_8x8").mkdir()
    (tmp_path / "level_0_8x8" / "best.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"did you mean '.*level_0_8x8/best.pt'"):
        load_weights(tmp_path)


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        ([1, 2], "holds no state dictionary, but a value of type list"),
        ({}, "holds no state dictionary, but an empty mapping"),
        ({"b": "text"}, "'b' is a value of type str, not a tensor"),
    ],
)
def test_other_contents(tmp_path, payload, sentence):
    torch.save(payload, tmp_path / "w.pt")
    with pytest.raises(UserError, match=sentence):
        load_weights(tmp_path / "w.pt")


def test_where_weights_may_be_written(tmp_path):
    path = tmp_path / "w.pt"
    check_writable(path, replace=False)
    path.write_bytes(b"old")
    check_writable(path, replace=True)
    for bad, sentence in (
        (path, "exists; use --overwrite"),
        (tmp_path / "no" / "w.pt", "the folder .*no does not exist"),
        (tmp_path, "exists|is a folder"),
    ):
        with pytest.raises(UserError, match=sentence):
            check_writable(bad, replace=False)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damage_to_saved_weights_is_noticed(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    about = {"level": 0, "grid": [4, 4]}
    save_weights(path, {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(())}, about)
    expected, content = load_weights(path).tensors, path.read_bytes()
    for bit in range(0, 8 * len(content), 61):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            weights = load_weights(path).tensors
        except UserError:
            continue
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in weights)


@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        (torch.ones(2).to("meta"), "a tensor without values, on the device 'meta'"),
        (torch.ones(2).to_sparse(), "a sparse tensor"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "a nested tensor"),
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "a quantized tensor"),
    ],
)
def test_odd_tensors_are_refused(tmp_path, odd, kind):
    torch.save({"a": odd, 3: torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=f"'a' is {kind}, but a dense tensor is needed"):
        load_weights(tmp_path / "w.pt")
    torch.save({"x": torch.ones(2), "y": odd}, tmp_path / "f.pt")
    with pytest.raises(UserError, match=f"'y' is {kind}, but a dense tensor is needed"):
        open_fields(tmp_path / "f.pt")
    torch.save({3: torch.ones(2)}, tmp_path / "w.pt")
    assert list(load_weights(tmp_path / "w.pt").tensors) == ["3"]


def test_a_checkpoint_without_a_mapping_of_tensors(tmp_path):
    about = {"level": 0, "grid": [4], "config": {}, "fields": {}, "scaling": {}}
    for network in (torch.ones(3), [], None):
        save_checkpoint(tmp_path / "a.pt", {**about, "network": network})
        with pytest.raises(UserError, match="lacks the network"):
            read_networks(tmp_path / "a.pt")
