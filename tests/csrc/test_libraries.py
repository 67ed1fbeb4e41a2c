"""Building the kernels: with a compiler, without one, with one that fails; wheels and source archives."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LISTS = (
    "import torch, relvlm_kernels as r; q = torch.randn(3, 1, 8); cu = torch.tensor([0, 3]).int(); "
    "print(r.varlen_attention(q, q, q, cu, cu).shape, r.chosen().name, r.__file__)"
)
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")


@pytest.fixture
def source(tmp_path):
    """A source tree of its own, with nothing built."""
    for name in ("kernels", "csrc", "relvlm"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "_c*.so", "_c*.txt"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
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


NVCC = r"""#!/bin/sh
[ "$1" = --list-gpu-arch ] && { echo compute_80; echo compute_90; exit; }
while [ $# -gt 0 ]; do [ "$1" = -o ] && echo "$@" > "$2"; shift; done
"""


@pytest.fixture
def toolkit(tmp_path):
    """A stand-in for CUDA: its nvcc writes the files that it is asked for."""
    return program(tmp_path / "cuda" / "bin" / "nvcc", NVCC)


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def libraries(monkeypatch):
    """csrc/libraries.py."""
    monkeypatch.syspath_prepend(ROOT / "csrc")
    return importlib.import_module("libraries")


def cuda_record(source):
    return (source / "kernels" / "relvlm_kernels" / "_cuda.txt").read_text()


def for_cuda(toolkit, **environment):
    """The environment of a machine with this toolkit, and with no compiler that works."""
    return {"CXX": "false", "CUDA_HOME": str(toolkit.parents[1]), "RELVLM_CUDA": ""} | environment


def build_cuda(source, toolkit, **environment):
    return build(source, "build_ext", "--inplace", **for_cuda(toolkit, **environment))


def commands_of(source):
    """What the compilers were last called with."""
    return (source / "build" / "kernels" / "build.ninja").read_text()


def test_cuda_kernels_are_built_at_the_first_install_whatever_the_torch(source, toolkit):
    """As pip installs in place: before torch is there, or beside one without CUDA."""
    stub = source / "stub" / "torch"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("raise ImportError('not at build time')\n")
    (stub / "version.py").write_text("cuda = None\n")
    # else pip would take the package that is being tested out of this environment
    command = ["-m", "pip", "install", "-q", "--ignore-installed", "--no-build-isolation", "--no-deps", "--no-index"]
    done = python(
        source, *command, "--prefix", source / "installed", "--editable", ".",
        **for_cuda(toolkit, PYTHONPATH=str(stub.parent)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert cuda_record(source).startswith(f"built with {toolkit} for sm_80, sm_90")
    assert (source / "kernels" / "relvlm_kernels" / "_cuda.so").exists()


def test_a_library_that_nvcc_made_and_that_does_not_load_is_not_usable(source, toolkit):
    build_cuda(source, toolkit)
    listed = python(source, "-m", "relvlm_kernels")
    assert "cuda       not usable" in listed.stdout and "_cuda.so" in listed.stdout


def test_another_architecture_may_be_asked_for(source, toolkit):
    build_cuda(source, toolkit, RELVLM_CUDA_ARCH="100;90")
    assert "for sm_90, sm_100 and" in cuda_record(source)
    commands = (source / "build" / "kernels" / "build.ninja").read_text()
    assert set(re.findall(r",code=([^ ']+)", commands)) == {"sm_90", "[sm_100,compute_100]"}


@pytest.mark.parametrize(
    ("answer", "built"),
    [
        ("exit 9", "80 90"), ("echo 9.0", "90"), ("echo 9.0; echo 8.0; echo 9.0", "80 90"), ("echo 7.5", "80 90"),
        ("echo 12.0", "80 90"), ("echo '[N/A]'", "80 90"),
    ],
    ids=["no GPU", "one", "two kinds", "too old", "unknown to nvcc", "no answer"],
)  # fmt: skip
def test_cuda_kernels_are_built_for_the_gpus_that_are_here(tmp_path, toolkit, libraries, monkeypatch, answer, built):
    program(tmp_path / "driver" / "nvidia-smi", f"#!/bin/sh\n{answer}\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'driver'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("RELVLM_CUDA_ARCH", raising=False)
    assert libraries.architectures(str(toolkit)) == built.split()


def test_architectures_that_are_no_numbers_are_refused(source, toolkit):
    build_cuda(source, toolkit, RELVLM_CUDA_ARCH="Hopper")
    assert 'RELVLM_CUDA_ARCH=Hopper: expected numbers such as "90" or "80;90"' in cuda_record(source)


def test_cuda_kernels_are_not_built_where_not_wanted(source, toolkit):
    build_cuda(source, toolkit, RELVLM_CUDA="0")
    assert cuda_record(source) == "not built: RELVLM_CUDA=0\n"
    listed = python(source, "-m", "relvlm_kernels").stdout
    assert "cuda       not usable: _cuda.so: not built: RELVLM_CUDA=0" in listed


def test_an_nvcc_that_fails_is_the_reason_and_leaves_no_older_library(source, toolkit):
    library = source / "kernels" / "relvlm_kernels" / "_cuda.so"
    library.write_bytes(b"of other sources")
    toolkit.write_text("#!/bin/sh\necho no such architecture\nexit 1\n")
    assert "the CUDA kernels were not built" in build_cuda(source, toolkit)
    assert "no such architecture" in cuda_record(source) and not library.exists()


def test_cuda_kernels_that_were_asked_for_and_cannot_be_built_fail_the_installation(source, toolkit):
    toolkit.write_text("#!/bin/sh\nexit 1\n")
    done = python(source, "setup.py", "build_ext", "--inplace", **for_cuda(toolkit, RELVLM_CUDA="1"))
    assert done.returncode and "RELVLM_CUDA=1, but the CUDA kernels were not built" in done.stderr
    assert f"{toolkit} -std=c++17" in cuda_record(source)


def test_without_ninja_the_build_succeeds_and_says_why(source):
    folders = os.environ["PATH"].split(os.pathsep)
    path = os.pathsep.join(f for f in folders if not os.path.exists(os.path.join(f, "ninja")))
    build(source, "build_ext", "--inplace", PATH=path, CXX=shutil.which("c++") or "c++")
    record = (source / "kernels" / "relvlm_kernels" / "_cpu.txt").read_text()
    assert record == "not built: no ninja (pip install ninja)\n"


def test_only_what_changed_is_built_again(source, toolkit):
    """And an editor is told how each source is compiled."""
    toolkit.write_text(NVCC.replace("echo", "echo $$", 1) + "echo ran >> ran\n")
    build_cuda(source, toolkit)
    first = (source / "ran").read_text().count("ran")
    build_cuda(source, toolkit)
    assert (source / "ran").read_text().count("ran") == first
    (source / "csrc" / "cuda" / "pair.cu").touch()
    build_cuda(source, toolkit)
    assert (source / "ran").read_text().count("ran") == first + 2  # pair.cu, and the library
    database = json.loads((source / "compile_commands.json").read_text())
    assert {entry["file"] for entry in database} >= {"csrc/cpu/plan.cpp", "csrc/cuda/pair.cu"}


@needs_compiler
def test_a_header_that_changed_builds_what_includes_it(source, libraries, monkeypatch):
    monkeypatch.chdir(source)
    monkeypatch.setattr(libraries, "HERE", source / "csrc")
    libraries.FOLDER.mkdir(parents=True)
    file = libraries.build_file([libraries.cpu_library()])
    library = libraries.FOLDER / "cpu" / "plan.o"

    def ninja(*options):
        return libraries.run([libraries.ninja(), "-f", str(file), *options, str(library)])

    ninja()
    assert "no work to do" in ninja("-n")
    (source / "csrc" / "cpu" / "plan.h").touch()
    assert "plan.cpp" in ninja("-n")


def test_a_wheel_has_the_cuda_kernels_that_were_built(source, toolkit):
    build(source, "-q", "bdist_wheel", **for_cuda(toolkit))
    with zipfile.ZipFile(next((source / "dist").glob("*.whl"))) as archive:
        packed = {Path(name).name for name in archive.namelist() if "relvlm_kernels/" in name}
    assert packed >= {"_cuda.so", "_cuda.txt", "_cpu.txt", "library.py"}


def test_source_archive_has_all_sources(source):
    build(source, "-q", "sdist")
    with tarfile.open(next((source / "dist").glob("*.tar.gz"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert packed >= {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.*") if path.suffix != ".pyc"}
