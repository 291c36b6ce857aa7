"""Keeps large buffers in the process instead of returning them, and in large pages.

Call it before torch is imported.
"""

import ctypes
import os
import platform

# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_large_buffers() -> bool:
    """Makes freed memory stay with the process instead of going back to the system.

    By default glibc maps every large buffer afresh and the system clears it page by page, which
    made a training step on a 128x128 grid take half as long again. The price is that the process
    holds on to the most memory it ever used. Also makes torch ask for huge pages (another 10 %).

    Returns:
        Whether it could be done: only with glibc.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 2**26))
    return all(libc.mallopt(name, value) for name, value in settings)
