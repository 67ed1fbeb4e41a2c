"""What nvcc makes of the CUDA kernels, where there is one: no GPU is needed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NVCC = shutil.which("nvcc") or shutil.which(os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin", "nvcc"))


@pytest.mark.slow
@pytest.mark.skipif(not NVCC, reason="no nvcc")
def test_kernels_spill_nothing_and_use_tensor_cores(tmp_path):
    table = tmp_path / "table.json"
    command = [sys.executable, "benchmarks/aot_check.py", "--update", "--table", str(table), "--only"]
    done = subprocess.run(
        [*command, "cuda backward_of_queries D=64 bfloat16"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ((compiler, rows),) = json.loads(table.read_text()).items()
    assert compiler.startswith("nvcc") and len(rows) == 2
    for name, row in rows.items():
        assert row["tensor_core"] and not row["spills"] and row["warps_per_sm"] >= 4, name
