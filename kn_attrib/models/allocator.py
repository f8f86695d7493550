"""Keeping freed memory: large tensors come and go with every chunk, and fresh pages cost more than arithmetic."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT = 2**31 - 1  # the most that the interface takes
LARGEST_MAPPED = 2**30


def keep_freed_memory() -> bool:
    """Let this process keep blocks that it frees, up to 1 GiB each, instead of handing them back to the system.

    By default glibc maps every large tensor anew and unmaps it when it is freed, and the system zeroes each page again:
    a third of the time of a wave on a CPU. It is a setting of the whole process, so the command line and the training
    of the shipped models use it, and a library's user decides.

    Returns
    -------
    Whether the C library has taken the setting; others than glibc are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(M_MMAP_THRESHOLD, LARGEST_MAPPED) and library.mallopt(M_TRIM_THRESHOLD, KEPT))
