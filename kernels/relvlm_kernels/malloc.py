"""Memory of CPU tensors between their lives."""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
LARGEST = 32 << 20  # that the threshold can be; what is larger goes back to the kernel all the same


def keep_freed_memory() -> bool:
    """Lets this process use the memory of freed CPU tensors again. False where the C library is not glibc.

    Else glibc gives what is freed back to the kernel now and then, and new tensors begin in fresh pages, which the
    kernel has to zero. Holds for tensors of up to 32 MiB; the process stays as large as these ever made it.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGEST) and mallopt(TRIM_THRESHOLD, -1))
