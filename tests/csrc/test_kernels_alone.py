"""The distribution of the kernels alone: its source archive, and wheels that are made of it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USES = (
    "import sys; sys.modules.update(dict.fromkeys(('relvlm', 'einops', 'numpy.testing'), None)); "
    "import torch, relvlm_kernels as r; q = torch.randn(3, 1, 8); cu = torch.tensor([0, 3]).int(); "
    "print(r.varlen_attention(q, q, q, cu, cu).shape, r.chosen().name, r.__file__)"
)
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The source archive, unpacked where no checkout is about."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("kernels", "csrc"):
        shutil.copytree(
            ROOT / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "_c*", "build")
        )
    shutil.copy(ROOT / "LICENSE", checkout)
    run(checkout / "kernels", "setup.py", "-q", "sdist")
    unpacked = tmp_path_factory.mktemp("archive")
    shutil.unpack_archive(next((checkout / "kernels/dist").glob("*.tar.gz")), unpacked)
    return next(unpacked.iterdir())


def run(folder: Path, *arguments: str, **environment: str) -> str:
    """What Python prints in `folder`, with what lies there first on its path."""
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    plain = os.environ | {"RELVLM_CUDA": "0", "PYTHONPATH": path} | environment
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def wheel_of(archive: Path, tmp_path: Path, **environment: str) -> tuple[str, str, Path]:
    """A wheel that is built of a copy of the archive: its name, what was said, and its content."""
    copy = shutil.copytree(archive, tmp_path / "copy")
    said = run(copy, "setup.py", "bdist_wheel", **environment)
    wheel = next((copy / "dist").glob("*.whl"))
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "installed")
    return wheel.name, said, tmp_path / "installed"


def test_the_archive_has_all_sources_and_no_more_of_the_checkout(archive):
    named = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.*") if path.suffix != ".pyc"}
    packed = {str(path.relative_to(archive)) for path in archive.rglob("*") if path.is_file()}
    assert named <= packed
    assert {"VERSION", "LICENSE", "README.md", "setup.py", "relvlm_kernels/py.typed"} <= packed
    assert archive.name == f"relvlm_kernels-{(ROOT / 'kernels/VERSION').read_text().strip()}"
    assert not [path for path in packed if path.startswith("relvlm/")] and not (archive / "LICENSE").is_symlink()


def test_without_a_compiler_its_wheel_is_pure_and_says_so(archive, tmp_path):
    name, said, installed = wheel_of(archive, tmp_path, CXX="no-such-compiler")
    assert name.endswith("-py3-none-any.whl")
    assert "no kernel was built: a pure wheel" in said and "no C++ compiler: no-such-compiler not found" in said
    assert {path.name for path in installed.iterdir()} == {"relvlm_kernels", f"{name.split('-py3')[0]}.dist-info"}
    listed = run(installed, "-m", "relvlm_kernels")
    assert "cpu        not usable: _cpu.so: not built: no C++ compiler" in listed and "float32   -> reference" in listed
    assert f"reference {installed}" in run(installed, "-W", "ignore", "-c", USES)


@needs_compiler
@pytest.mark.slow
def test_with_one_its_wheel_holds_the_library_and_needs_torch_alone(archive, tmp_path):
    name, _, installed = wheel_of(archive, tmp_path)
    assert "-py3-none-" in name and not name.endswith("any.whl")
    assert f"torch.Size([3, 1, 8]) cpu {installed}" in run(installed, "-W", "error", "-c", USES)
    metadata = next(installed.glob("*.dist-info")) / "METADATA"
    required = [line for line in metadata.read_text().splitlines() if line.startswith("Requires-Dist")]
    assert required == ["Requires-Dist: torch>=2.11"]
    assert len(list(metadata.parent.rglob("LICENSE"))) == 1
