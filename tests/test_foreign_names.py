"""Text from files cannot pass for the program's own, on the screen or in the log."""

import json

import numpy as np
import torch
from tiny import run, write_experiment

from multigrid.__main__ import main
from multigrid.config import load_config

GENERATED = {"problem": {"kind": "poisson", "num_modes": 4}, "levels": [8]}
EVIL = "\nerror: forged \x1b[31m\r"


def test_names_from_files_pass_for_nothing_of_ours(tmp_path, capsys):
    x, y = np.random.default_rng(0).standard_normal((2, 24, 8, 8), dtype=np.float32)
    names = {"input": f"x{EVIL}", "output": f"y{EVIL}"}
    np.savez(tmp_path / "evil.npz", **{names["input"]: x, names["output"]: y})
    torch.save({f"scales.0{EVIL}": torch.ones(2)}, tmp_path / "weights.pt")
    experiment = write_experiment(
        tmp_path / "tiny.yaml",
        problem={"kind": "file", "file": str(tmp_path / "evil.npz"), **names},
        levels=[8],
        data={"train": 8},
    )
    given = [text for side, name in names.items() for text in (f"--{side}", name)]
    written = ["--write", str(tmp_path / "written.yaml")]
    assert main(["inspect", str(tmp_path / "evil.npz"), *given, *written]) == 0
    assert load_config(tmp_path / "written.yaml").problem.input == [names["input"]]
    assert run(experiment, tmp_path) == 0
    assert run(experiment, tmp_path, f"checkpoints.load={tmp_path / 'weights.pt'}", "name=b") == 2
    bad = [
        f"data.folder={json.dumps(EVIL)}",
        f"data.extra_tests={json.dumps({EVIL: {'num_modes': 2}})}",
    ]
    for override in bad:
        assert run(write_experiment(tmp_path / "p.yaml", **GENERATED), tmp_path, override) == 2
    shown = "".join(capsys.readouterr()) + (tmp_path / "results/tiny/run.log").read_text()
    assert "forged" in shown
    assert not [line for line in shown.split("\n") if line.startswith("error: forged")]
    assert "\x1b" not in shown
    assert "\r" not in shown
