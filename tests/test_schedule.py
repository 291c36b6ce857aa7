from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.schedule import (
    Outcome,
    build_schedule,
    choose,
    last_kept,
    learning_rate_curve,
    level_sequence,
    schedule_table,
    spread_budget,
)


@pytest.mark.parametrize(
    ("cycle", "num_levels", "levels"),
    [
        ("half-v", 4, [0, 1, 2, 3]),
        ("single", 4, [3]),
        ("v", 4, [3, 2, 1, 0, 1, 2, 3]),
        ("w", 2, [1, 0, 1]),
        ("w", 3, [2, 1, 0, 1, 0, 1, 2]),
        ("w", 4, [3, 2, 1, 0, 1, 0, 1, 2, 1, 0, 1, 0, 1, 2, 3]),
        ("f", 2, [1, 0, 1]),
        ("f", 3, [2, 1, 0, 1, 0, 1, 2]),
        ("f", 4, [3, 2, 1, 0, 1, 0, 1, 2, 1, 0, 1, 2, 3]),
    ],
)
def test_level_sequences(cycle, num_levels, levels):
    assert level_sequence(cycle, num_levels) == levels


@pytest.mark.parametrize("cycle", ["half-v", "single", "v", "w", "f"])
@pytest.mark.parametrize("num_levels", [1, 2, 3, 4, 5])
def test_every_cycle_ends_at_the_finest_level_in_single_steps(cycle, num_levels):
    levels = level_sequence(cycle, num_levels)
    assert levels[-1] == num_levels - 1
    assert all(abs(b - a) == 1 for a, b in pairwise(levels))
    if num_levels == 1:
        assert levels == [0]


def test_stages_take_the_values_of_their_level():
    values = [[5, 3], [8, 4], [0.1, 0.2], [1.0, 0.5], [0.05, 0.1], [1, 4], [False, True]]
    stages = build_schedule("v", *values)
    assert [(s.accumulate, s.checkpoint_activations) for s in stages] == [
        (4, True),
        (1, False),
        (4, True),
    ]
    assert [(s.index, s.level, s.epochs, s.batch_size) for s in stages] == [
        (0, 1, 3, 4),
        (1, 0, 5, 8),
        (2, 1, 3, 4),
    ]
    assert [(s.learning_rate, s.transferred_ratio) for s in stages] == [
        (0.2, 0.5),
        (0.1, 1.0),
        (0.2, 0.5),
    ]
    assert [stage.warmup for stage in stages] == [0.1, 0.05, 0.1]


def test_table_has_a_line_for_each_stage():
    values = [[5, 3], [8, 4], [0.1, 0.2], [1.0, 0.5], [0.05, 0.1], [1, 1], [False, False]]
    stages = build_schedule("half-v", *values)
    lines = schedule_table(stages, [Grid((8, 8)), Grid((16, 16))], [1.25, 3.0]).splitlines()
    assert lines[2].split() == ["0", "0", "8x8", "5", "8", "1.0e-01", "1", "1.25"]
    assert lines[3].split() == ["1", "1", "16x16", "3", "4", "2.0e-01", "0.5", "3.00"]


@pytest.mark.parametrize(("warmup", "peak"), [(0.1, 10), (0.0, 1)])
def test_curve_rises_to_one_and_falls_to_its_final_value(warmup, peak):
    curve = learning_rate_curve(100, warmup, 0.01)
    values = [curve(step) for step in range(100)]
    assert values[peak - 1] == pytest.approx(1.0)
    assert values[-1] == pytest.approx(0.01)
    assert all(a < b for a, b in pairwise(values[:peak]))
    assert all(a > b for a, b in pairwise(values[peak - 1 :]))
    assert min(values) > 0


def test_warmup_is_linear_and_starts_above_zero():
    curve = learning_rate_curve(100, 0.05, 0.01)
    assert [curve(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_half_way_down_is_the_mean():
    curve = learning_rate_curve(110, 10 / 110, 0.2)
    assert curve(59) == pytest.approx(0.6)


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_very_short_curves_stay_within_bounds(num_steps, warmup):
    curve = learning_rate_curve(num_steps, warmup, 0.0)
    assert all(0 <= curve(step) <= 1 for step in range(num_steps + 1))


def test_after_the_end_the_rate_stays_low():
    assert learning_rate_curve(10, 0.1, 0.01)(1000) == pytest.approx(0.01)


COSTS = [1 / 64, 1 / 16, 1 / 4, 1.0]


@pytest.mark.parametrize(
    ("budget", "visits", "epochs"),
    [
        (10, [1, 1, 1, 1], [128, 32, 8, 4]),
        (4, [1, 1, 1, 1], [52, 15, 5, 1]),
        (20, [1, 2, 2, 2], [256, 32, 8, 4]),
        (60, [0, 0, 0, 1], [0, 0, 0, 60]),
    ],
)
def test_a_budget_is_spread_evenly_with_twice_the_share_for_the_finest(budget, visits, epochs):
    assert spread_budget(budget, COSTS, visits) == epochs


@given(st.floats(5.0, 1e3), st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5))
def test_a_budget_is_spent_but_for_less_than_one_cheap_epoch(budget, costs):
    epochs = spread_budget(budget, costs, [1] * len(costs))
    spent = sum(cost * count for cost, count in zip(costs, epochs, strict=True))
    assert min(epochs) >= 1
    assert budget - min(costs) - 1e-6 <= spent <= budget + 1e-6


def test_a_budget_that_is_too_small_is_refused():
    with pytest.raises(UserError, match=r"schedule\.budget: 1\.2 is too little, .* needs 1\.33"):
        spread_budget(1.2, COSTS, [1, 1, 1, 1])


@given(st.sampled_from(["half-v", "v", "w", "f"]), st.integers(1, 6))
def test_every_cycle_moves_by_one_level_and_ends_on_the_finest(cycle, num_levels):
    levels = level_sequence(cycle, num_levels)
    assert set(levels) == set(range(num_levels))
    assert levels[-1] == num_levels - 1
    assert all(abs(a - b) == 1 for a, b in pairwise(levels))


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0, 1))
def test_rates_stay_between_nought_and_one(num_steps, warmup, final):
    rate = learning_rate_curve(num_steps, warmup, final)
    assert all(0 <= rate(step) <= 1 + 1e-12 for step in range(num_steps))


def chosen(outcomes, budget=16.0, costs=(1 / 16, 1 / 4, 1.0), target=0.0):
    return choose([Outcome(*outcome) for outcome in outcomes], budget, costs, target)


def test_a_schedule_by_measurement_doubles_the_work_while_the_error_falls_fast():
    assert chosen([])[:3] == (0, 32, None)
    assert chosen([(0, 2.0, 0.4)])[:3] == (0, 32, 0)
    assert chosen([(0, 2.0, 0.4), (0, 2.0, 0.2)])[:3] == (0, 64, 1)
    assert chosen([(0, 2.0, 0.4), (0, 2.0, 0.2), (0, 4.0, 0.1)])[:3] == (0, 128, 2)
    assert chosen([(0, 2.0, 0.4), (0, 2.0, 0.2), (0, 4.0, 0.1), (0, 8.0, 0.05)]) is None


def test_a_level_whose_error_falls_slowly_is_left_if_a_trial_of_the_next_one_pays():
    slow = [(0, 2.0, 0.40), (0, 2.0, 0.36)]  # error ~ cost^-0.15
    assert chosen(slow)[:3] == (1, 12, 1)  # a quarter of the twelve that are left
    assert "error ~ cost^-0.15: a trial" in chosen(slow).reason
    paid = chosen([*slow, (1, 3.0, 0.35)])
    assert (paid.level, paid.source) == (2, 2)  # still slow: the next trial
    assert "growth pays (0.36 to 0.35); error ~ cost^-0.05: a trial" in paid.reason
    back = chosen([*slow, (1, 3.0, 0.37)])
    assert (back.level, back.source, back.epochs) == (0, 1, 144)  # all that is left
    assert "growth does not pay (0.36 to 0.37); error ~ cost^-0.15: staying" in back.reason
    assert last_kept([Outcome(*o) for o in [*slow, (1, 3.0, 0.37)]]) == 1


def test_a_stage_that_does_not_lower_the_error_is_a_loss_wherever_it_is():
    lost = [(0, 2.0, 0.40), (0, 2.0, 0.41)]
    assert chosen(lost)[:3] == (1, 12, 0)  # from the first stage on
    assert "staying does not pay (0.4 to 0.41); error ~ cost^-0.00: a trial" in chosen(lost).reason
    assert last_kept([Outcome(*o) for o in lost]) == 0
    both = [*lost, (1, 3.0, 0.42)]
    assert chosen(both)[:3] == (0, 144, 0)


def test_a_schedule_by_measurement_ends_at_its_target_and_refuses_less_than_an_epoch():
    assert chosen([(0, 2.0, 0.4)], target=0.4) is None
    with pytest.raises(UserError, match=r"schedule\.budget: 0\.05 is too little"):
        chosen([], budget=0.05)


@given(
    st.lists(st.floats(1e-6, 1.0), min_size=40, max_size=40),
    st.floats(0.1, 100.0),
)
def test_a_schedule_by_measurement_never_spends_more_than_its_budget(errors, budget):
    costs, outcomes, spent = (1 / 16, 1 / 4, 1.0), [], 0.0
    for error in errors:
        choice = choose(outcomes, budget, costs)
        if choice is None:
            break
        assert choice.epochs >= 1
        cost = choice.epochs * costs[choice.level]
        spent += cost
        assert spent <= budget * (1 + 1e-9)
        outcomes.append(Outcome(choice.level, cost, error))
    else:
        pytest.fail("it does not end")
    assert budget - spent < 1.0
