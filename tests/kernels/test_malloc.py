"""Freed memory is used again: in a process of its own, since the setting stays."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from relvlm_kernels.malloc import keep_freed_memory

C = ctypes.CDLL(None)
C.malloc.restype, C.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
C.memset.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [C.malloc(24 << 20) for _ in range(4)]
    for block in blocks:
        C.memset(block, 1, 24 << 20)
    for block in blocks:
        C.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert sys.argv[1] == "plain" or keep_freed_memory()
print([faults() for _ in range(3)][2])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_memory_comes_back_without_fresh_pages():
    def faults(how):
        command = [sys.executable, "-c", PROGRAM, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    plain = faults("plain")
    if plain == 0:
        pytest.skip("no page faults are counted here")
    assert faults("kept") < plain / 10
