"""What a result depends on besides its configuration: code, libraries and machine."""

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch

from multigrid.hardware import machine

PACKAGE = Path(__file__).parents[1]


def environment(device: torch.device, num_processes: int = 1) -> dict[str, str]:
    """Returns the versions of code and libraries, and the machine, as texts."""
    return {
        "code": code_version(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "machine": machine(device),
        "processes": str(num_processes),
        "threads": str(torch.get_num_threads()),
    }


@cache
def code_version() -> str:
    """Returns a short hash of this package's source files."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns what differs between two environments, as ``{key: [before, now]}``."""
    return {
        key: [before.get(key, "unknown"), now[key]] for key in now if before.get(key) != now[key]
    }
