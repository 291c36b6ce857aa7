import pytest
import torch

from multigrid.errors import UserError
from multigrid.models.transfer import matches, rename, require_match

NAMES = ["encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "head.weight"]
WEIGHTS = dict.fromkeys(NAMES, torch.zeros(1))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("encoder.0", {"encoder.0.weight", "encoder.0.bias"}),
        ("*.weight", {"encoder.0.weight", "encoder.1.weight", "head.weight"}),
        ("encoder.*", {"encoder.0.weight", "encoder.0.bias", "encoder.1.weight"}),
        ("enc", set()),
        ("*", set(NAMES)),
        ("head.weigh?", set()),
    ],
)
def test_patterns(pattern, found):
    assert {name for name in NAMES if matches(name, [pattern])} == found


def test_a_pattern_that_matches_nothing_names_the_nearest():
    with pytest.raises(UserError, match=r"did you mean 'encoder.1'"):
        require_match("encodr.1", NAMES, "here")
    with pytest.raises(UserError, match="'xyz' matches no tensor; there are encoder"):
        require_match("xyz", NAMES, "here")


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"encoder": "down"}, ["down.0.weight", "down.0.bias", "down.1.weight", "head.weight"]),
        (
            {"encoder.*.weight": "w.*"},
            ["w.0", "encoder.0.bias", "w.1", "head.weight"],
        ),
        (
            {"encoder.0": "first", "encoder.*": "rest.*"},
            ["first.weight", "first.bias", "rest.1.weight", "head.weight"],
        ),
        ({"*.*.bias": "*/*"}, ["encoder.0.weight", "encoder/0", "encoder.1.weight", "head.weight"]),
    ],
)
def test_renaming(rules, expected):
    assert list(rename(WEIGHTS, rules, "rules")) == expected


def test_two_names_must_not_become_one():
    with pytest.raises(UserError, match=r"'encoder.0.weight' and 'encoder.0.bias' would both"):
        rename(WEIGHTS, {"encoder.0.weight": "same", "encoder.0.bias": "same"}, "rules")
    with pytest.raises(UserError, match="'tail' matches no tensor"):
        rename(WEIGHTS, {"tail": "head"}, "rules")
