"""The example for clusters, with commands that stand in for Slurm's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import write_experiment

from multigrid.__main__ import main

SCRIPT = Path(__file__).parents[1] / "experiments" / "slurm.sh"
SRUN = """#!/usr/bin/env bash
[ "$1" = --kill-on-bad-exit=0 ] || exit 99
shift
for rank in 0 1; do
  SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" &
done
wait -n || exit $?
wait -n
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def submit(folder, arguments, srun=SRUN, **variables):
    """Runs the script as Slurm would; returns the result and what scontrol was asked for."""
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    asked = folder / "asked"
    asked.unlink(missing_ok=True)
    scontrol = f'#!/usr/bin/env bash\necho "$@" >> {asked}\n[ "$1" != show ] || echo 127.0.0.1\n'
    for name, text in (("srun", srun), ("scontrol", scontrol)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    result = subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)],
        cwd=SCRIPT.parents[1],
        env={
            **os.environ,
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NODELIST": "node[1-1]",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_NTASKS": "2",
            "SLURM_CPUS_PER_TASK": "1",
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return result, asked.read_text().splitlines()


def test_a_task_of_an_array_trains_its_seed_on_all_processes(tmp_path):
    problem = {"kind": "poisson", "num_modes": 8}
    experiment = write_experiment(tmp_path / "tiny.yaml", problem=problem, levels=[8])
    folders = [f"output.folder={tmp_path / 'results'}", f"data.folder={tmp_path / 'data'}"]
    call = [experiment, *folders, "--seeds", "4"]
    result, asked = submit(tmp_path, call, SLURM_ARRAY_TASK_ID="3")
    assert result.returncode == 0, result.stderr
    assert "2 processes (ddp)" in result.stdout
    assert asked == ["show hostnames node[1-1]"]
    folder = tmp_path / "results" / "tiny-sweep" / "tiny_seed-3"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["seed"] == 3


def test_what_was_preempted_goes_back_into_the_queue(tmp_path):
    result, asked = submit(
        tmp_path, ["x.yaml"], srun="#!/usr/bin/env bash\nexit 75\n", SLURM_JOB_ID="42"
    )
    assert result.returncode == 75
    assert asked[-1] == "requeue 42"
    result, asked = submit(tmp_path, ["x.yaml"], srun="#!/usr/bin/env bash\nexit 2\n")
    assert result.returncode == 2
    assert len(asked) == 1


def test_its_commands_are_known(capsys):
    text = SCRIPT.read_text()
    assert "multigrid generate experiments/poisson.yaml" in text
    assert "-m multigrid sweep" in text
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    assert "--task" in capsys.readouterr().out
