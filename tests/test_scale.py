"""The simulation of epochs on several GPUs."""

import pytest

from experiments.benchmarks.scale import BATCH, DATA_BYTES, LEVELS, NUM_STEPS, Level


def level(fields="folded", size=LEVELS[-1], flops=1e14, activations=1e9):
    return Level(fields, size, flops, activations, parameters=10**6)


def test_an_epoch_takes_as_long_as_reading_or_computing_whichever_is_longer():
    cheap, dear = level(flops=1e9), level(flops=1e15)
    assert cheap.epoch(storage=5e9) == pytest.approx(DATA_BYTES / 5e9, rel=0.01)
    fast = dear.gpus(storage=1e15)
    assert dear.epoch(storage=1e15) == pytest.approx(NUM_STEPS * dear.step(fast), rel=0.15)


def test_gpus_are_used_where_they_help():
    assert level(flops=1e9).gpus(storage=5e9) == 1  # it waits for data anyway
    assert level(flops=1e15).gpus(storage=1e15) == BATCH


def test_what_memory_holds_is_not_read_again():
    assert level("restricted", 64).reading(1, storage=5e9) == 0
    assert level("folded", 64).reading(1, storage=5e9) > 0


def test_activations_that_do_not_fit_are_recomputed():
    plain, checkpointed = level(activations=1e9), level(activations=1e11)
    assert checkpointed.step(1) == pytest.approx(plain.step(1) * 4 / 3)
