"""Building the kernels: with a compiler, without one, with one that fails; wheels and source archives."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
LISTS = (
    "import torch, relvlm_kernels as r; q = torch.randn(3, 1, 8); cu = torch.tensor([0, 3]).int(); "
    "print(r.varlen_attention(q, q, q, cu, cu).shape, r.chosen().name, r.__file__)"
)
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler"
)


@pytest.fixture
def source(tmp_path):
    """A source tree of its own, with nothing built."""
    for name in ("kernels", "csrc", "relvlm"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "_c*.so", "_c*.txt")
        )
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def python(folder, *arguments, **environment):
    """Runs Python in `folder` with its kernels first on the path."""
    plain = {k: v for k, v in os.environ.items() if k not in ("CXX", "RELVLM_KERNELS", "PYTHONPATH")}
    plain["RELVLM_CUDA"] = "0"  # takes a minute where it can be built
    path = os.pathsep.join([str(folder / "kernels"), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True,
        env=plain | {"PYTHONPATH": path} | environment,
    )  # fmt: skip


def build(folder, *command, **environment):
    done = python(folder, "setup.py", *command, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("no-such-compiler", "no C++ compiler: no-such-compiler not found"), ("false", "false -std=c++17")],
)
def test_without_a_working_compiler_the_build_succeeds_and_says_why(source, compiler, reason):
    assert reason in build(source, "build_ext", "--inplace", CXX=compiler)
    listed = python(source, "-m", "relvlm_kernels")
    assert "cpu        not usable" in listed.stdout and reason in listed.stdout
    assert "float32   -> reference" in listed.stdout
    used = python(source, "-c", LISTS)
    assert "torch.Size([3, 1, 8]) reference" in used.stdout and str(source) in used.stdout
    assert used.stderr.count("RuntimeWarning") == 1 and reason in used.stderr
    refused = python(source, "-c", "import relvlm_kernels", RELVLM_KERNELS="cpu")
    assert refused.returncode and "RELVLM_KERNELS=cpu: no such backend here" in refused.stderr
    assert f"(_cpu.so: not built: {reason}" in refused.stderr


def test_a_failed_build_leaves_no_older_library(source):
    library = source / "kernels" / "relvlm_kernels" / "_cpu.so"
    library.write_bytes(b"of other sources")
    build(source, "build_ext", "--inplace", CXX="no-such-compiler")
    assert not library.exists()


def test_a_library_that_does_not_load_is_the_reason(source):
    (source / "kernels" / "relvlm_kernels" / "_cpu.so").write_bytes(b"no library")
    listed = python(source, "-m", "relvlm_kernels")
    assert "cpu        not usable" in listed.stdout and "_cpu.so" in listed.stdout


@needs_compiler
@pytest.mark.slow
def test_in_place_build_runs(source):
    build(source, "build_ext", "--inplace")
    used = python(source, "-W", "error", "-c", LISTS)
    assert "torch.Size([3, 1, 8]) cpu" in used.stdout and str(source) in used.stdout, used.stderr


@needs_compiler
@pytest.mark.slow
def test_wheel_serves_any_python_3_of_this_platform(source):
    build(source, "-q", "bdist_wheel")
    wheel = next((source / "dist").glob("*.whl"))
    assert "-py3-none-" in wheel.name and not wheel.name.endswith("any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(source / "installed")
    installed = source / "installed"
    assert (installed / "relvlm_kernels" / "_cpu.txt").read_text().startswith("built with")
    path = os.pathsep.join([str(installed), *filter(None, sys.path)])
    used = python(installed, "-c", LISTS, PYTHONPATH=path)
    assert f"cpu {installed}" in used.stdout, used.stderr


@pytest.fixture
def toolkit(tmp_path):
    """A stand-in for CUDA: its nvcc writes the files that it is asked for."""
    nvcc = tmp_path / "cuda" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text('#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && echo "$@" > "$2"; shift; done\n')
    nvcc.chmod(0o755)
    return nvcc


def cuda_record(source):
    return (source / "kernels" / "relvlm_kernels" / "_cuda.txt").read_text()


def build_cuda(source, toolkit, wanted, *command):
    home = str(toolkit.parents[1])
    return build(
        source, *(command or ("build_ext", "--inplace")), CXX="false", CUDA_HOME=home, RELVLM_CUDA=wanted
    )


def test_cuda_kernels_are_built_where_asked_for(source, toolkit):
    build_cuda(source, toolkit, "1")
    assert cuda_record(source).startswith(f"built with {toolkit} for sm_80, sm_90")
    listed = python(source, "-m", "relvlm_kernels")
    assert "cuda       not usable" in listed.stdout and "_cuda.so" in listed.stdout  # it is no library


def test_cuda_kernels_are_built_only_for_a_torch_that_has_cuda(source, toolkit):
    build_cuda(source, toolkit, "")
    expected = (
        "built with" if torch.version.cuda else "not built: this Python has no torch for CUDA (RELVLM_CUDA=1"
    )
    assert cuda_record(source).startswith(expected)


def test_cuda_kernels_are_not_built_where_not_wanted(source, toolkit):
    build_cuda(source, toolkit, "0")
    assert cuda_record(source) == "not built: RELVLM_CUDA=0\n"
    assert (
        "cuda       not usable: _cuda.so: not built: RELVLM_CUDA=0"
        in python(source, "-m", "relvlm_kernels").stdout
    )


def test_an_nvcc_that_fails_is_the_reason_and_leaves_no_older_library(source, toolkit):
    library = source / "kernels" / "relvlm_kernels" / "_cuda.so"
    library.write_bytes(b"of other sources")
    toolkit.write_text("#!/bin/sh\necho no such architecture\nexit 1\n")
    assert "the CUDA kernels were not built" in build_cuda(source, toolkit, "1")
    assert "no such architecture" in cuda_record(source) and not library.exists()


def test_a_wheel_has_the_cuda_kernels_that_were_built(source, toolkit):
    build_cuda(source, toolkit, "1", "-q", "bdist_wheel")
    with zipfile.ZipFile(next((source / "dist").glob("*.whl"))) as archive:
        packed = {Path(name).name for name in archive.namelist() if "relvlm_kernels/" in name}
    assert packed >= {"_cuda.so", "_cuda.txt", "_cpu.txt", "library.py"}


def test_source_archive_has_all_sources(source):
    build(source, "-q", "sdist")
    with tarfile.open(next((source / "dist").glob("*.tar.gz"))) as archive:
        packed = {Path(name).name for name in archive.getnames() if "/csrc/" in name}
    assert packed >= {path.name for path in (ROOT / "csrc").glob("*/*")}
