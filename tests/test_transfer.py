import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from multigrid.errors import UserError
from multigrid.models.transfer import COPIED, IN_TARGET, Status, partition, transfer_weights

NAMES = st.sampled_from(["a.weight", "a.bias", "b.weight", "b.bias", "scales.0.c", "d"])
SHAPES = st.lists(st.integers(1, 4), max_size=3).map(tuple)
STATES = st.dictionaries(NAMES, SHAPES.map(torch.zeros), max_size=6)


def num_elements(tensors):
    return sum(tensor.numel() for tensor in tensors)


@given(STATES, STATES)
def test_partition_adds_up_on_both_sides(source, target):
    report = partition(source, target)
    tensors, parameters = report.count(Status.TRANSFERRED, Status.NEW, Status.MISMATCHED)
    assert tensors == len(target)
    assert parameters == num_elements(target.values())
    matched = [*report.keys(Status.TRANSFERRED), *report.keys(Status.MISMATCHED)]
    unused, unused_parameters = report.count(Status.UNUSED)
    assert len(matched) + unused == len(source)
    assert num_elements(source[key] for key in matched) + unused_parameters == num_elements(
        source.values()
    )
    assert len({entry.key for entry in report.entries}) == len(report.entries)


@given(STATES, STATES)
def test_every_status_means_what_it_says(source, target):
    report = partition(source, target)
    for key in report.keys(Status.TRANSFERRED):
        assert source[key].shape == target[key].shape
    for key in report.keys(Status.MISMATCHED):
        assert source[key].shape != target[key].shape
    assert set(report.keys(Status.NEW)) == target.keys() - source.keys()
    assert set(report.keys(Status.UNUSED)) == source.keys() - target.keys()


def test_complex_weights_do_not_become_real_ones() -> None:
    module, spectral = nn.Linear(2, 3), nn.Linear(2, 3, dtype=torch.complex64)
    before = module.weight.clone()
    with pytest.raises(
        UserError,
        match=r"^'weight' is complex in the checkpoint \(complex64\), but real in the network "
        r"\(float32\), which would lose its imaginary part$",
    ):
        transfer_weights({"weight": before.cfloat() * (1 + 5j)}, module)
    assert torch.equal(module.weight, before)
    weights = {"weight": before.cfloat() * (1 + 5j)}
    assert transfer_weights(weights, spectral).keys(Status.TRANSFERRED) == ["weight"]
    assert torch.equal(spectral.weight, weights["weight"])


BLOCKS = st.lists(
    st.tuples(
        st.sampled_from(["conv", "linear", "norm", "own", "more"]),
        st.sampled_from([nn.Linear, nn.Conv2d, nn.BatchNorm2d]),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=5,
)


def build_module(blocks, depth=2):
    """Returns a module of layers with buffers and without, some within others."""
    module = nn.Module()
    for name, layer, size in blocks:
        made = nn.BatchNorm2d(size) if layer is nn.BatchNorm2d else None
        made = made or (layer(size, 2) if layer is nn.Linear else layer(size, 2, 1))
        module.add_module(name, made)
    if depth > 1:
        module.add_module("inner", build_module(blocks[1:], depth - 1))
    return module


@given(BLOCKS, BLOCKS, st.sets(st.integers(0, 40)))
def test_reports_of_random_modules_add_up_on_both_sides(source, target, chosen):
    source, target = build_module(source), build_module(target)
    known, own = source.state_dict(), target.state_dict()
    before = {key: tensor.clone() for key, tensor in own.items()}
    names = [key for number, key in enumerate(own) if number in chosen]
    if not partition(known, own).keys(Status.TRANSFERRED):
        with pytest.raises(UserError, match="nothing could be transferred"):
            transfer_weights(known, target)
        assert all(torch.equal(t, before[k]) for k, t in target.state_dict().items())
        return
    report = transfer_weights(known, target).frozen(names)
    assert report.count(*IN_TARGET) == (len(own), num_elements(own.values()))
    used = [known[e.key] for e in report.entries if e.status in (*COPIED, Status.MISMATCHED)]
    unused = report.count(Status.UNUSED)
    assert len(used) + unused[0] == len(known)
    assert num_elements(used) + unused[1] == num_elements(known.values())
    assert set(report.keys(Status.FROZEN)) <= set(names)
    for key, tensor in target.state_dict().items():
        assert torch.equal(tensor, (known if key in report.keys(*COPIED) else before)[key])


class Net(nn.Module):
    def __init__(self, hidden, num_layers):
        super().__init__()
        self.first = nn.Linear(3, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(num_layers))


@pytest.fixture
def source():
    torch.manual_seed(0)
    return Net(4, 3).state_dict()


@pytest.fixture
def target():
    torch.manual_seed(1)
    return Net(6, 1)


def test_what_fits_is_copied_and_the_rest_stays(source, target):
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    report = transfer_weights(source, target)
    after = target.state_dict()
    transferred = {"layers.0.weight", "layers.0.bias", "norm.num_batches_tracked"}
    assert set(report.keys(Status.TRANSFERRED)) == transferred
    for key in after:
        assert torch.equal(after[key], source[key] if key in transferred else before[key])
    assert "first.weight" in report.keys(Status.MISMATCHED)
    assert "layers.2.bias" in report.keys(Status.UNUSED)


def test_a_copy_shares_no_memory_with_its_source(source):
    target = Net(4, 3)
    transfer_weights(source, target)
    source["first.weight"].zero_()
    assert target.first.weight.abs().min() > 0


def test_nothing_transferred_is_an_error_and_leaves_the_target_untouched():
    target = nn.Linear(2, 2)
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    source = {"weight": torch.zeros(3, 3), "other": torch.zeros(2)}
    with pytest.raises(UserError, match="nothing could be transferred: none of the 2 tensors"):
        transfer_weights(source, target)
    assert all(torch.equal(t, before[k]) for k, t in target.state_dict().items())
    with pytest.raises(UserError, match="nothing could be transferred"):
        transfer_weights({}, target)


def test_tensors_of_another_shape_are_told(caplog):
    source = {"weight": torch.zeros(3, 3), "bias": torch.zeros(2)}
    transfer_weights(source, nn.Linear(2, 2), mismatch="warn")
    assert "weight, 3x3 -> 2x2; they were reinitialised" in caplog.text
    caplog.clear()
    transfer_weights(source, nn.Linear(2, 2), mismatch="allow")
    assert not caplog.text


def test_totals(source, target):
    report = transfer_weights(source, target)
    # target: first 24, norm 4 * 6 + 1, layers 30; source: first 16, norm 4 * 4 + 1, layers 90
    assert report.totals() == (
        "transferred 3/9 tensors, 31/79 parameters; mismatched 6 (48); unused 4 (60)"
    )


def test_json_names_every_tensor_once(source, target):
    report = transfer_weights(source, target)
    record = json.loads(json.dumps(report.to_json()))
    keys = [tensor["key"] for tensor in record["tensors"]]
    assert sorted(keys) == sorted(source.keys() | target.state_dict().keys())
    assert record["totals"]["transferred"] == {"tensors": 3, "parameters": 31}
    assert record["totals"]["new"] == {"tensors": 0, "parameters": 0}
    first = next(tensor for tensor in record["tensors"] if tensor["key"] == "first.weight")
    assert first["status"] == "MISMATCHED"
    assert (first["shape"], first["source_shape"]) == ([6, 3], [4, 3])
