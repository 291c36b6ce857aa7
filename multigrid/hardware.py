"""The machine: device, number format, memory, versions.

Imports torch only where it is used, so that processes that generate samples start without.
"""

import hashlib
import math
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from multigrid.errors import UserError

if TYPE_CHECKING:
    import torch

PrecisionName = Literal["float32", "bfloat16"]


def choose_device(name: str, rank: int = 0, num_processes: int = 1) -> "torch.device":
    """Returns the device for ``auto``, ``cpu`` or ``cuda``."""
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("compute.device: 'cuda' was asked for, but this machine offers none")
    if name == "cpu" or not available:
        return torch.device("cpu")
    count, needed = torch.cuda.device_count(), max(rank + 1, num_processes)
    if needed > count:
        raise UserError(
            f"compute.device: {needed} processes on this machine need a GPU each, but there are "
            f"{count}; start at most {count} here, or set compute.device=cpu"
        )
    return torch.device("cuda", rank) if rank else torch.device("cuda")


def choose_precision(name: str, device: "torch.device") -> PrecisionName:
    """Returns the precision for a name; ``auto`` is bfloat16 where that is faster."""
    if name == "float32":
        return "float32"
    return "bfloat16" if name == "bfloat16" or has_fast_bfloat16(device) else "float32"


def has_fast_bfloat16(device: "torch.device") -> bool:
    """Whether a device multiplies matrices in bfloat16 faster than in float32.

    CPUs need AMX for that: with AVX-512 alone, steps on 64x64 take 1.3 to 1.5 times as long.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def autocast(device: "torch.device", precision: PrecisionName) -> AbstractContextManager[None]:
    """Returns the context in which a network runs in the given precision."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def full_precision(device: "torch.device") -> AbstractContextManager[None]:
    """Returns a context without autocast, which does not know the meta device."""
    import torch

    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


@contextmanager
def default_float32() -> Iterator[None]:
    """Makes new tensors float32 in the context, whatever ``torch.set_default_dtype`` says."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def machine(device: "torch.device") -> str:
    """Returns what computes: the model of the GPU, or of the processor."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor()
    return f"{name}, {platform.machine()}"


def total_memory(device: "torch.device") -> float:
    """Returns the memory in bytes that this process may have, or the GPU's if that is less.

    That is the machine's memory or the limit of a container (cgroup); infinite where the system
    does not tell, as on Windows.
    """
    limits = [math.inf, *_cgroup_limits()]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if device.type == "cuda":
        import torch

        limits.append(torch.cuda.get_device_properties(device).total_memory)
    return min(limits)


def _cgroup_limits(
    membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Yields the memory limits in bytes of all control groups, v1 and v2, that hold a process.

    A line of the first file reads ``number:controllers:path``; v2 names no controllers. In a
    container the path may be the host's: what is not there is passed over.
    """
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return  # not Linux
    for _, controllers, path in lines:
        if controllers and "memory" not in controllers.split(","):
            continue
        root = mount / "memory" if controllers else mount
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                with suppress(OSError, ValueError):  # not there, or "max"
                    yield int((folder / name).read_text())


def peak_memory(device: "torch.device") -> float:
    """Returns the most memory in bytes of the GPU or this process so far; NaN on Windows."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return math.nan
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_large_buffers() -> None:
    """Makes freed memory stay with the process instead of going back to the system, with glibc.

    By default glibc maps every large buffer afresh and the system clears it page by page, which
    made a training step on a 128x128 grid half as slow again. The price is that the process holds
    on to the most memory it ever used. Also has torch ask for huge pages (another 10 %), if it
    has not allocated anything yet. For processes of this project only, never a caller's.
    """
    import ctypes

    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 2**26)):
            libc.mallopt(name, value)


def environment(device: "torch.device", num_processes: int = 1) -> dict[str, str]:
    """Returns what a result depends on besides its settings: versions and the machine."""
    import numpy as np
    import torch

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
    digest, package = hashlib.sha256(), Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]
