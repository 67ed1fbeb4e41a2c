"""What Triton compiles to, by the static checks of benchmarks/aot_check.py: no GPU is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AOT = ROOT / "benchmarks" / "aot_check.py"
pytest.importorskip("triton", reason="triton is not installed")


def python(*arguments, **environment):
    plain = {k: v for k, v in os.environ.items() if k not in ("RELVLM_KERNELS", "TRITON_INTERPRET")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
        env=plain | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


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
