"""Device, number format, and what the machine is."""

import math
import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from multigrid.errors import UserError

PrecisionName = Literal["float32", "bfloat16"]


def choose_device(name: str, rank: int = 0, num_processes: int = 1) -> torch.device:
    """Returns the device for ``auto``, ``cpu`` or ``cuda``.

    Args:
        name: What is wanted.
        rank: Number of this process among those on the machine.
        num_processes: Number of processes on the machine, each of which has a GPU of its own.

    Raises:
        UserError: If CUDA is asked for and there is none, or there are too few.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("compute.device: 'cuda' was asked for, but this machine offers none")
    if name == "cpu" or not available:
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if max(rank + 1, num_processes) > count:
        raise UserError(
            f"compute.device: {max(rank + 1, num_processes)} processes on this machine need a GPU "
            f"each, but there are {count}; start at most {count} here, or set compute.device=cpu"
        )
    return torch.device("cuda", rank) if rank else torch.device("cuda")


def choose_precision(name: str, device: torch.device) -> PrecisionName:
    """Returns the precision for ``auto``, ``float32`` or ``bfloat16``.

    ``auto`` takes bfloat16 where the hardware multiplies it natively, as it is slow elsewhere.
    """
    if name == "float32":
        return "float32"
    return "bfloat16" if name == "bfloat16" or has_native_bfloat16(device) else "float32"


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies matrices in bfloat16 by itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def autocast(device: torch.device, precision: PrecisionName) -> AbstractContextManager[None]:
    """Returns the context in which a network runs in the given precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def working_dtype(x: torch.Tensor) -> torch.dtype:
    """Returns the number format in which convolutions of a tensor are computed: autocast's."""
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return x.dtype
    return torch.get_autocast_dtype(kind)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context in which autocast is off; it does not know the meta device."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def machine(device: torch.device) -> str:
    """Returns what computes: the model of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor()
    return f"{name}, {platform.machine()}"


def total_memory(device: torch.device) -> float:
    """Returns the memory in bytes of the machine, or of the GPU if that has less.

    Infinite where the system does not tell, as on Windows.
    """
    here = math.inf
    if hasattr(os, "sysconf"):
        here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if device.type == "cuda":
        here = min(here, torch.cuda.get_device_properties(device).total_memory)
    return here


def peak_memory(device: torch.device) -> int:
    """Returns the most memory in bytes held so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not there on Windows, where runs work but for this number

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
