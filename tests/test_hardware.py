"""What the machine has, and what stays as the caller had it."""

import os
import subprocess
import sys

import pytest
import torch

import multigrid
from multigrid import hardware, run

CPU = torch.device("cpu")
TINY = {
    "name": "tiny",
    "problem": {"kind": "poisson", "num_modes": 4},
    "levels": [8],
    "schedule": {"epochs": 1},
    "data": {"train": 16, "validation": 4, "test": 4},
    "model": {"width": 4},
}


def group(folder, name, limit):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{limit}\n")


@pytest.mark.parametrize(
    ("lines", "limits"),
    [
        ("0::/slice/job", [10**9, 2 * 10**9]),
        ("12:cpu:/slice/job\n4:cpuset,memory:/docker/of_the_host\n", [10**8]),
        ("4:cpu:/slice/job", []),
    ],
)
def test_memory_limits_of_containers(tmp_path, lines, limits):
    mount = tmp_path / "cgroup"
    group(mount / "slice" / "job", "memory.max", "max")
    group(mount / "slice", "memory.max", 10**9)
    group(mount, "memory.max", 2 * 10**9)
    group(mount / "memory", "memory.limit_in_bytes", 10**8)
    (tmp_path / "self").write_text(lines)
    assert list(hardware._cgroup_limits(tmp_path / "self", mount)) == limits


def test_the_limit_is_the_memory_there_is(monkeypatch):
    assert list(hardware._cgroup_limits(hardware.Path("/nowhere"))) == []
    whole = hardware.total_memory(CPU)
    monkeypatch.setattr(hardware, "_cgroup_limits", lambda: [10**6])
    assert hardware.total_memory(CPU) == 10**6 < whole


def test_memory_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert str(hardware.peak_memory(CPU)) == "nan"


def test_training_from_python_leaves_the_process_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "keep_large_buffers", lambda: pytest.fail("changes the process"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    before = dict(os.environ), torch.get_rng_state().tolist(), torch.get_num_threads()
    multigrid.train(TINY)
    os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)  # torch sets it when it is imported in full
    assert (dict(os.environ), torch.get_rng_state().tolist(), torch.get_num_threads()) == before


def test_the_default_number_format_makes_no_difference(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = torch.ones(1, 1, 8, 8)
    expected = multigrid.train(TINY).predict(x)
    torch.set_default_dtype(torch.float64)
    try:
        again = multigrid.train({**TINY, "name": "again"}).predict(x)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(again, expected, rtol=0, atol=0)


def test_samples_are_generated_without_torch():
    script = "import sys, multigrid.data.generation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
