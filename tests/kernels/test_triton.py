"""The Triton backend: `triton_checks.py` in a process of its own, and the static checks of what it compiles to."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from relvlm_kernels import backends

ROOT = Path(__file__).parents[2]
CHECKS = Path(__file__).with_name("triton_checks.py")
AOT = ROOT / "benchmarks" / "aot_check.py"
pytest.importorskip("triton", reason="triton is not installed")


def python(*arguments, **environment):
    plain = {k: v for k, v in os.environ.items() if k not in ("RELVLM_KERNELS", "TRITON_INTERPRET")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
        env=plain | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


def run_checks(**environment):
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", CHECKS, **environment)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_kernels_in_the_interpreter():
    run_checks(TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernels_on_the_gpu():
    run_checks()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_without_a_gpu_it_is_missing_and_says_why():
    assert backends.BACKENDS["triton"].missing == "no CUDA device"


@pytest.mark.slow
def test_compiled_kernels_are_no_worse_than_the_committed_table():
    done = python(AOT, "--only", "region D=64 bfloat16 sm_")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "attention_backward_kv region D=64 bfloat16 sm_90" in done.stdout


@pytest.mark.slow
def test_a_kernel_that_got_worse_fails_the_check(tmp_path):
    table, case = tmp_path / "table.json", "pool D=768 bfloat16 sm_90"
    made = python(AOT, "--only", case, "--table", table, "--update")
    assert made.returncode == 0, made.stdout + made.stderr
    tables = json.loads(table.read_text())
    rows = next(rows for version, rows in tables.items() if version.startswith("triton "))
    rows[f"box_mean {case}"] |= {"tensor_core": 4, "registers": 1}
    table.write_text(json.dumps(tables))
    done = python(AOT, "--only", case, "--table", table)
    assert done.returncode == 1
    assert f"box_mean {case}: no tensor-core instructions any more" in done.stdout
    assert f"box_mean {case}: registers 1 -> " in done.stdout
    assert f"mrc_pool {case}:" not in done.stdout


def test_a_compiler_that_is_not_in_the_table_is_said(tmp_path):
    done = python(AOT, "--only", "no such kernel", "--table", tmp_path / "none.json")
    assert done.returncode == 0 and "is not in the table" in done.stdout
