"""Several processes that train one network: the same result, and the same end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from alike import assert_same_training, augment
from tiny import run, train, write_experiment
from together import finish, run_together, start

from experiments.benchmarks.group import free_port, rank_variables
from multigrid.data.samples import Samples
from multigrid.data.store import GeneratedSource
from multigrid.distributed import Processes, joined
from multigrid.distributed import process_group as parallel
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.ladder import recorder as recorder_module
from multigrid.ladder.recorder import Recorder
from multigrid.problems.base import Symmetries
from multigrid.records.history import read_history
from multigrid.training.batches import Batches
from multigrid.training.checkpoint import load_checkpoint
from multigrid.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
ALL_OF_IT = Symmetries(reflections=True, rotations=True, shifts=True, linear=True, mode_shifts=True)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Batches of 3, 3, 3 and 1 samples: shares of two processes are uneven, and one is empty."""
    return write_experiment(
        tmp_path_factory.mktemp("experiment") / "tiny.yaml",
        problem={"kind": "poisson", "num_modes": 4},
        levels=[4, 8],
        data={"train": 10, "validation": 5, "test": 4, "mode_shifts": 0.5},
        schedule={"epochs": 2, "batch_size": 3},
        model={"width": 8},
    )


@pytest.fixture(scope="module")
def expected(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    train(experiment, folder)
    return folder / "results" / "tiny"


def error_of(folder, rank=0):
    return (folder / f"{rank}.stderr").read_text()


class Part(Processes):
    def __init__(self, rank, size):
        self.rank, self.size = rank, size


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_cover_a_batch(size):
    for count in range(1, 9):
        places = np.arange(count)
        shares = [places[Part(rank, size).share(count)] for rank in range(size)]
        np.testing.assert_array_equal(np.concatenate(shares), places)
        assert max(map(len, shares)) == Part(0, size).largest_share(count)


@pytest.mark.parametrize(
    ("symmetries", "mode_shifts"),
    [(ALL_OF_IT, 0), (ALL_OF_IT, 1), (Symmetries(shifts=True), 0), (None, 0)],
)
def test_the_parts_of_a_batch_make_up_the_whole(generator, symmetries, mode_shifts):
    grid = Grid((4, 4))
    fields = torch.randn(11, 3, 4, 4, generator=generator)
    samples = Samples(fields[:, :2], fields[:, 2:], grid)

    def made(rank, size):
        part = Part(rank, size)
        batches = Batches(11, grid, 4, (3, 1), symmetries, part, mode_shifts).epoch(2)
        made = [samples[b.sources] for b in batches]
        if symmetries is not None:
            made = [b.augmentation.apply(x, b.places) for b, x in zip(batches, made, strict=True)]
        return [(x, b.share) for b, x in zip(batches, made, strict=True)]

    (whole,), parts = [made(0, 1)], [made(rank, 3) for rank in range(3)]
    for step, (batch, _) in enumerate(whole):
        found = [part[step][0] for part in parts if part[step][1]]
        for name in ("inputs", "outputs"):
            parts_of_it = torch.cat([getattr(f, name) for f in found])
            if mode_shifts:  # matrix products of other shapes are rounded otherwise
                torch.testing.assert_close(parts_of_it, getattr(batch, name))
            else:
                assert torch.equal(parts_of_it, getattr(batch, name))
        assert sum(part[step][1] for part in parts) == pytest.approx(1)
    if symmetries is not None:
        rng = np.random.default_rng(np.random.SeedSequence(3, spawn_key=(1, 2, 0)))
        indices = Batches(11, grid, 4, (3, 1), symmetries).epoch(2)[0].indices
        augmented = augment(samples[indices], symmetries, rng, mode_shifts)
        assert torch.equal(augmented.inputs, whole[0][0].inputs)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["parallel.accumulate=2", "parallel.checkpoint_activations=true"],
    ],
    ids=["plain", "in parts, checkpointed"],
)
def test_two_processes_train_as_one(experiment, expected, tmp_path, overrides):
    assert run_together([experiment, *overrides], tmp_path) == [0, 0], error_of(tmp_path)
    assert_same_training(tmp_path / "results" / "tiny", expected)
    flops = [
        read_history(f / "metrics.csv")[-1].flops for f in (tmp_path / "results" / "tiny", expected)
    ]
    assert flops[0] == flops[1]  # what is computed anew is not counted
    assert error_of(tmp_path, 1) == ""
    summary = json.loads((tmp_path / "results" / "tiny" / "summary.json").read_text())
    assert summary["processes"] == 2
    assert summary["test"]["rel_l2"] == pytest.approx(
        json.loads((expected / "summary.json").read_text())["test"]["rel_l2"], rel=1e-4
    )


@pytest.mark.parametrize(
    ("strategy", "optimizer", "checkpointed", "fields"),
    [
        ("fsdp", "adamw", "false", "restricted"),
        ("fsdp", "muon", "true", "folded"),
        ("ddp", "muon", "false", "folded"),
    ],
)
def test_spread_and_folded_networks_train_as_in_one_process(
    experiment, tmp_path, strategy, optimizer, checkpointed, fields
):
    own = [f"optimizer.name={optimizer}", f"model.fields={fields}"]
    train(experiment, tmp_path / "one", *own)
    more = [f"parallel.strategy={strategy}", f"parallel.checkpoint_activations={checkpointed}"]
    assert run_together([experiment, *own, *more], tmp_path) == [0, 0], error_of(tmp_path)
    assert_same_training(tmp_path / "results" / "tiny", tmp_path / "one" / "results" / "tiny")


def signal_after_a_while(rank):
    """Process 1 alone gets a signal within level 1."""
    original = Recorder.on_step

    def on_step(recorder, trainer):
        if rank == 1 and trainer.stage.level == 1 and trainer.progress.step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        original(recorder, trainer)

    Recorder.on_step = on_step


def test_a_signal_to_one_stops_all_and_one_alone_goes_on(experiment, expected, tmp_path):
    assert run_together([experiment], tmp_path, prepare=signal_after_a_while) == [75, 75]
    assert "stopped by SIGUSR1" in error_of(tmp_path)
    last = load_checkpoint(tmp_path / "results" / "tiny" / "level_1_8x8" / "last.pt")
    assert len(last["trainer"]["progress"]["losses"]) == 2
    assert run(experiment, tmp_path, "--resume") == 0
    assert_same_training(tmp_path / "results" / "tiny", expected)


def test_what_one_has_begun_two_finish(experiment, expected, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_step", Recorder.on_step)
        signal_after_a_while(1)
        assert run(experiment, tmp_path) == 75
    assert run_together([experiment, "--resume"], tmp_path) == [0, 0], error_of(tmp_path)
    assert_same_training(tmp_path / "results" / "tiny", expected)


def nan_once(rank):
    """A part of a batch of process 1 has no number for a loss, once."""
    original, calls = Trainer.backward, []

    def backward(trainer, microbatches):
        calls.append(1)
        if rank == 1 and len(calls) == 3:
            microbatches[0][0].outputs.fill_(float("nan"))
        return original(trainer, microbatches)

    Trainer.backward = backward


def test_a_fault_in_one_sends_all_back(experiment, tmp_path):
    assert run_together([experiment], tmp_path, prepare=nan_once) == [0, 0], error_of(tmp_path)
    summary = json.loads((tmp_path / "results" / "tiny" / "summary.json").read_text())
    (fault,) = summary["levels"][0]["went_back"]
    assert "became nan" in fault["reason"]
    assert len(fault["samples"]) == 3  # of the whole batch


def die(rank):
    parallel.SUSPICION = 2
    original = Recorder.on_step

    def on_step(recorder, trainer):
        if rank == 1 and trainer.stage.level == 1 and trainer.progress.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        original(recorder, trainer)

    Recorder.on_step = on_step


def test_a_process_that_dies_is_named_and_nothing_is_lost(experiment, expected, tmp_path):
    assert run_together([experiment], tmp_path, prepare=die) == [2, -signal.SIGKILL]
    assert "error: process 1 of 2 (on " in error_of(tmp_path)
    assert "has died" in error_of(tmp_path)
    assert run(experiment, tmp_path, "--resume") == 0
    assert_same_training(tmp_path / "results" / "tiny", expected)


def fail(rank):
    """Process 1 fails in its second epoch, and process 0 takes its time to save what there is."""
    parallel.GRACE_SECONDS, parallel.SUSPICION = 4.0, 1
    original, save = Recorder.on_step, recorder_module.save_checkpoint

    def on_step(recorder, trainer):
        if rank == 1 and trainer.progress.epoch == 1:
            raise UserError("the file is gone")
        original(recorder, trainer)

    def save_slowly(*arguments):
        time.sleep(5)
        save(*arguments)

    Recorder.on_step = on_step
    recorder_module.save_checkpoint = save_slowly


def hang(rank):
    parallel.PATIENCE, parallel.GRACE_SECONDS = 3, 2.0
    original = Recorder.on_step

    def on_step(recorder, trainer):
        if rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        original(recorder, trainer)

    Recorder.on_step = on_step


def test_the_failure_of_one_is_told_once_and_what_there_is_is_saved(experiment, expected, tmp_path):
    assert run_together([experiment], tmp_path, prepare=fail) == [2, 2]
    assert "error: process 1 of 2: the file is gone\n" in error_of(tmp_path)
    assert "error" not in error_of(tmp_path, 1)
    (last,) = (tmp_path / "results" / "tiny").glob("level_0_*/last.pt")
    assert load_checkpoint(last)["trainer"]["progress"]["epoch"] == 1
    assert run(experiment, tmp_path, "--resume") == 0
    assert_same_training(tmp_path / "results" / "tiny", expected)


def test_a_process_that_hangs_is_missed(experiment, tmp_path):
    processes = start([experiment], tmp_path, prepare=hang)
    processes[0].join(30)
    processes[1].kill()
    assert finish(processes) == [2, -signal.SIGKILL]
    assert "process 1 of 2" in error_of(tmp_path)
    assert "no longer answers" in error_of(tmp_path)


def test_processes_with_other_settings_are_told_apart(experiment, tmp_path):
    commands = [[experiment], [experiment, "seed=1", "schedule.learning_rate=0.5"]]
    assert finish(start(commands, tmp_path)) == [2, 2]
    assert "process 1 of 2 was started otherwise than process 0: seed (1 instead of 0), " in (
        error_of(tmp_path)
    )
    assert "schedule.learning_rate (0.5 instead of 0.0" in error_of(tmp_path)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_setting_that_is_wrong_in_one_process_is_told_by_all(experiment, tmp_path, rank):
    commands = [[experiment], [experiment]]
    commands[rank].append("model.width=-1")
    assert finish(start(commands, tmp_path), 60) == [2, 2]
    process = "process 1 of 2: " if rank else ""
    assert error_of(tmp_path).startswith(f"error: {process}{experiment}: model.width: -1 is not")
    assert error_of(tmp_path).count("\n") == 1


def other_data(rank):
    if rank == 1:  # one that what is set later does not change
        GeneratedSource.fingerprint = property(lambda source: "other", lambda source, value: None)


def test_processes_with_other_data_are_told_apart(experiment, tmp_path):
    assert run_together([experiment], tmp_path, prepare=other_data) == [2, 2]
    assert "otherwise than process 0: data (other instead of " in error_of(tmp_path)


def hurry(rank):
    parallel.TO_START = timedelta(seconds=3)


def test_a_process_that_never_comes(experiment, tmp_path):
    processes = start([experiment], tmp_path, prepare=hurry, started=1)
    assert finish(processes, 30) == [2]
    assert "the 2 processes did not find each other at 127.0.0.1:" in error_of(tmp_path)
    assert " within 3 s" in error_of(tmp_path)


WITHOUT_PARTNER = """
import sys
from datetime import timedelta

import multigrid.distributed as distributed
from multigrid.run import main

import_module = distributed.import_module


def import_hurried(name):
    module = import_module(name)
    module.TO_START = timedelta(seconds=2)
    return module


distributed.import_module = import_hurried
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("local_rank", ["0", "1"])
def test_a_process_whose_first_partner_never_comes(experiment, tmp_path, local_rank):
    port = free_port()
    variables = {**rank_variables(1, 2, port), "LOCAL_RANK": local_rank, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WITHOUT_PARTNER, experiment, f"data.folder={tmp_path}"]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 2
    sentence = f"error: the 2 processes did not find each other at 127.0.0.1:{port} within 2 s ("
    assert done.stderr.startswith(sentence)
    assert done.stderr.endswith(
        "; all must be started, with the MASTER_ADDR of process 0 (RANK=0)\n"
    )
    assert done.stderr.count("\n") == 1


def test_a_busy_port(experiment, tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        processes = start([experiment], tmp_path, prepare=hurry, port=port)
        assert finish(processes, 60) == [2, 2]
    assert f"did not find each other at 127.0.0.1:{port}" in error_of(tmp_path)


def lack_memory(rank):
    original = Trainer.backward

    def backward(trainer, microbatches):
        if rank == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(trainer, microbatches)

    Trainer.backward = backward


def test_memory_that_one_lacks_is_told_by_all(experiment, tmp_path):
    assert run_together([experiment], tmp_path, prepare=lack_memory) == [2, 2]
    assert "process 1 of 2: out of memory; a larger parallel.accumulate" in error_of(tmp_path)


def test_more_processes_than_samples_in_a_batch(experiment, tmp_path):
    command = [experiment, "schedule.batch_size=[3,1]"]
    assert run_together(command, tmp_path) == [2, 2]
    assert error_of(tmp_path) == (
        "error: schedule.batch_size: 1 on level 1 is less than the number of processes that share "
        "it; it must be at least 2\n"
    )
    assert error_of(tmp_path, 1) == ""


def test_torchrun_starts_it(experiment, expected, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    port = ["--master-port", str(free_port()), "-m"]
    folders = [f"output.folder={tmp_path / 'results'}", f"data.folder={tmp_path / 'data'}"]
    result = subprocess.run(
        [*command, *port, "multigrid", "run", experiment, *folders],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("on entering") == 2  # one process tells
    assert "2 processes (ddp) of 1 thread each" in result.stdout
    assert_same_training(tmp_path / "results" / "tiny", expected)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR, MASTER_PORT must be set too"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: 'two' is not a number"),
    ],
)
def test_an_environment_that_is_not_whole(
    experiment, tmp_path, capsys, monkeypatch, variables, sentence
):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run(experiment, tmp_path) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_backend_that_is_missing(monkeypatch):
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "is_backend_available", lambda backend: False)
    with pytest.raises(UserError, match="backend 'gloo', which this build"), joined("cpu", "ddp"):
        pass


def test_one_gpu_for_each_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="3 processes on this machine need a GPU each, but there"):
        parallel.choose_device("auto", 0, 3)
    assert parallel.choose_device("auto", 1, 2) == torch.device("cuda", 1)
    assert parallel.choose_device("cpu", 2, 3) == torch.device("cpu")


class FakeStore(dict):
    """A store within this process."""

    def set(self, key, value):
        self[key] = value.encode()

    def get(self, key):
        return self[key]

    def check(self, keys):
        return all(key in self for key in keys)


@pytest.fixture
def silent_heart(monkeypatch):
    """The first of two processes, without its threads."""
    monkeypatch.setattr(parallel.threading.Thread, "start", lambda thread: None)
    return parallel.Heartbeat(0, 2, FakeStore())


def test_silence_is_death(silent_heart):
    silent_heart._latest[1] = "alive 7 (on a machine, process id 8)"
    silent_heart._silent[1] = parallel.PATIENCE
    assert silent_heart._judge(1) is None
    silent_heart._silent[1] += 1
    gone = silent_heart._judge(1)
    assert str(gone).startswith("process 1 of 2 (on a machine, process id 8) has died")


@pytest.mark.parametrize(
    ("end", "gone"),
    [
        ("done ", None),
        ("stopped SIGTERM", parallel.Interrupted("SIGTERM")),
        ("failed no such file", UserError("process 1 of 2: no such file")),
    ],
)
def test_how_another_one_ends_is_known(silent_heart, end, gone):
    silent_heart._latest[1], silent_heart._silent[1] = end, 1000
    assert repr(silent_heart._judge(1)) == repr(gone)
