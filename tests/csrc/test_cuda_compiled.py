"""What nvcc makes of the CUDA kernels, where there is one: no GPU is needed."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NVCC = shutil.which("nvcc") or shutil.which(os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin", "nvcc"))


@pytest.fixture
def library(monkeypatch):
    """What setup.py would build for one GPU: `objects` with their sources and flags."""
    if not NVCC:
        pytest.skip("no nvcc")
    monkeypatch.syspath_prepend(ROOT / "csrc")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("RELVLM_CUDA_ARCH", "80")
    monkeypatch.delenv("RELVLM_CUDA", raising=False)
    monkeypatch.setenv("PATH", f"{Path(NVCC).parent}{os.pathsep}{os.environ['PATH']}")
    libraries = importlib.import_module("libraries")
    yield libraries.cuda_library()
    sys.modules.pop("libraries")


def test_nvcc_takes_every_source(library, tmp_path):
    """Of the objects of one source, which differ in element and width, the last: it is the quickest."""
    of_source = {source: flags for source, flags in library.objects.values()}
    assert {source.name for source in of_source} == {path.name for path in (ROOT / "csrc" / "cuda").glob("*.cu")}
    for source, flags in of_source.items():
        flags = ["-arch=sm_80", *(flag for flag in flags if not flag.startswith("-gencode"))]
        command = [*library.compiler, *flags, "-ptx", source, "-o", tmp_path / f"{source.stem}.ptx"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert ".target sm_80" in (tmp_path / f"{source.stem}.ptx").read_text()


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
