"""The CUDA kernels on the CPU (cuda_shim), under sanitizers: against the reference in fp64, and with faults put in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIM = ROOT / "tests" / "kernels" / "cuda_shim"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("g++"), reason="no g++"),
]

CASES = [  # op:dtype:width:dropout; copies late or at once, threads in either order by turns
    ["region_attention:float32:32:0", "region_attention:float32:96:0.3", "varlen_attention:float32:80:0.2"],
    ["region_attention:bfloat16:64:0", "region_attention:bfloat16:80:0.1", "varlen_attention:bfloat16:128:0"],
    ["varlen_attention:float16:32:0.5", "region_attention:float16:64:0", "region_attention:float16:20:0.2"],
    ["pooling:float32", "pooling:bfloat16", "pooling:float16", "absent", "absent", "limits"],
]
WAIT, BARRIER = "wait_for_copies<1>();\n", "__syncthreads();\n"
FAULTS = {  # file, right, wrong, what shows
    "keys read before they are there": ("queries.cuh", f"{WAIT}      {BARRIER}", WAIT, "AssertionError"),
    "copies not waited for": ("backward_keys.cuh", WAIT, "", "AssertionError"),
    "a row beyond the tile": (
        "backward_keys.cuh", "warp_k = k + own * S::stride,", "warp_k = k + (own + 300) * S::stride,",
        "heap-buffer-overflow",
    ),
    "a barrier that some threads skip": (
        "backward_keys.cuh", f"{BARRIER}  const int64_t first", f"if (own) {BARRIER}  const int64_t first",
        "a barrier that not all threads reach",
    ),
}  # fmt: skip


def python(path, code_or_file, *arguments):
    """Runs a program with the sanitizer's library first: it must come before the Python that loads what it checks."""
    runtime = [
        subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    environment = os.environ | {
        "LD_PRELOAD": " ".join(runtime), "PYTHONPATH": os.pathsep.join([str(ROOT / "kernels"), *sys.path]),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, code_or_file, str(path), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def build(folder, *arguments, **options):
    sys.path.insert(0, str(SHIM))
    try:
        from build import build as build_library

        return build_library(folder, *arguments, **options)
    except subprocess.CalledProcessError as error:
        if "sanitize" in (error.stderr or ""):
            pytest.skip(f"no sanitizers: {error.stderr}")
        raise AssertionError(error.stderr) from error
    finally:
        sys.path.remove(str(SHIM))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("emulated"))


@pytest.mark.parametrize("cases", CASES, ids=lambda cases: cases[0])
def test_equals_fp64_reference(library, cases):
    done = python(library, SHIM / "emulated.py", *cases)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(tmp_path, fault):
    """What a GPU might let pass: one barrier less, a copy not waited for, a pointer out of bounds."""
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    sources = tmp_path / "csrc" / "cuda"
    name, right, wrong, symptom = FAULTS[fault]
    text = (sources / name).read_text()
    assert text.count(right) == 1
    (sources / name).write_text(text.replace(right, wrong))
    faulty = build(tmp_path, sources, small=True)
    cases = ["region_attention:float32:32:0"] * 4
    done = python(faulty, SHIM / "emulated.py", *cases)
    assert done.returncode != 0 and symptom in done.stderr
