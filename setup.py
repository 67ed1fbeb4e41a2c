"""Packages of the distribution and its compiled parts, the kernels; the metadata lies in pyproject.toml.

`relvlm_kernels` lives under `kernels/` (which is not a package itself: a top-level module named `kernels`
would shadow the Hub's package of that name that transformers looks for).

The CPU kernels are plain C++17 with a C interface: whatever compiler is there builds them ($CXX, else c++, g++ or
clang++), once per instruction set, and one library serves every version of Python and torch. So do the CUDA kernels,
which nvcc builds ($CUDA_HOME, else on PATH or in /usr/local/cuda) where the Python that installs has a torch for CUDA;
RELVLM_CUDA=1 builds them without that, RELVLM_CUDA=0 never. Where a build fails the installation goes on, and
`python -m relvlm_kernels` says why kernels are missing (it reads `_cpu.txt` and `_cuda.txt`).
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = Path("csrc/cpu")
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-ffp-contract=fast", "-Wall"]
X86_INSTRUCTIONS = {  # name: (flags, bytes of a vector)
    "avx512": (["-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512vl"], 64),
    "avx2": (["-mavx2", "-mfma"], 32),
}

CUDA_SOURCES = Path("csrc/cuda")
NVCC_FLAGS = [
    "-std=c++17", "-O3", "-Xcompiler=-fPIC", "-cudart=static", "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90,code=[sm_90,compute_90]",
]  # fmt: skip
# Elements of the attention kernels. ptxas -O3 interleaves so many of fp32's products that registers spill.
ELEMENTS = {"float": ["-Xptxas=-O1"], "Bfloat16": [], "Half": []}
# The CUDA version of the torch that the installing Python has; isolated builds hide it from this process.
TORCH_CUDA = """
import importlib.util, pathlib
found = importlib.util.find_spec("torch")
version = {}
if found: exec((pathlib.Path(found.origin).parent / "version.py").read_text(), version)
print(version.get("cuda") or "")
"""


class BuildFailed(Exception):
    pass


def compiler() -> list[str]:
    """Command of the C++ compiler; raises BuildFailed where there is none."""
    named = shlex.split(os.environ.get("CXX", ""))
    candidates = [named] if named else [["c++"], ["g++"], ["clang++"]]
    for command in candidates:
        if shutil.which(command[0]):
            return command
    raise BuildFailed(f"no C++ compiler: {', '.join(c[0] for c in candidates)} not found")


def run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise BuildFailed(f"{shlex.join(command)}\n{done.stdout}")
    print(done.stdout, end="")


def compiles(command: list[str], folder: Path) -> bool:
    """Whether the compiler takes these flags and links."""
    probe = folder / "probe.cpp"
    probe.write_text("int probe() { return 0; }\n")
    try:
        run([*command, "-shared", "-fPIC", str(probe), "-o", str(folder / "probe.so")])
    except BuildFailed:
        return False
    return True


def jobs(cxx: list[str], folder: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Compiler command of each object file, and the instruction sets among them."""
    usable = {"baseline": ([], 16)}
    if platform.machine().lower() in ("x86_64", "amd64"):
        usable |= {n: (f, b) for n, (f, b) in X86_INSTRUCTIONS.items() if compiles([*cxx, *f], folder)}
    commands = {
        str(folder / f"{name}.o"): [
            *cxx, *flags, f"-DRELVLM_ISA={name}", f"-DRELVLM_VECTOR={size}", str(SOURCES / "kernels.cpp"),
        ] for name, (flags, size) in usable.items()
    }  # fmt: skip
    has = [f"-DRELVLM_HAS_{name.upper()}" for name in usable]
    for name in ("api", "layout", "plan"):
        commands[str(folder / f"{name}.o")] = [*cxx, *has, str(SOURCES / f"{name}.cpp")]
    return commands, list(usable)


def build_cpu(library: Path) -> str:
    """Builds the library and says how; raises BuildFailed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cxx = [*compiler(), *FLAGS]
        openmp = compiles([*cxx, "-fopenmp"], folder)
        cxx += ["-fopenmp"] if openmp else ["-Wno-unknown-pragmas"]
        commands, instructions = jobs(cxx, folder)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda out: run([*commands[out], "-c", "-o", out]), commands))
        run([*cxx, "-shared", *commands, "-o", str(folder / "_cpu.so")])
        replace(library, (folder / "_cpu.so").read_bytes())
    threads = "OpenMP" if openmp else "no OpenMP (the compiler has no -fopenmp)"
    return f"built with {cxx[0]} for {', '.join(instructions)}; {threads}"


def nvcc() -> str:
    """Path of the CUDA compiler; raises BuildFailed where it is not there or not wanted."""
    wanted = os.environ.get("RELVLM_CUDA", "")
    if wanted == "0":
        raise BuildFailed("RELVLM_CUDA=0")
    homes = filter(None, (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")))
    paths = [*(f"{home}/bin/nvcc" for home in homes), "nvcc", "/usr/local/cuda/bin/nvcc"]
    found = next(filter(None, map(shutil.which, paths)), None)
    if not found:
        raise BuildFailed("no nvcc in $CUDA_HOME, on PATH or in /usr/local/cuda")
    if wanted != "1" and not torch_cuda():
        raise BuildFailed(
            f"this Python has no torch for CUDA (RELVLM_CUDA=1 builds with {found} all the same)"
        )
    return found


def torch_cuda() -> str:
    command = [sys.executable, "-I", "-c", TORCH_CUDA]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def build_cuda(library: Path) -> str:
    """Builds the CUDA library and says how; raises BuildFailed."""
    compiler = nvcc()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = {  # the longest first
            str(folder / f"attention_{element}.o"): [*flags, f"-DRELVLM_ELEMENT={element}", "attention.cu"]
            for element, flags in ELEMENTS.items()
        } | {str(folder / f"{name}.o"): [f"{name}.cu"] for name in ("pair", "pool", "plan", "layout", "api")}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda out: run(nvcc_command(compiler, commands[out], out)), commands))
        run([compiler, *NVCC_FLAGS, "-shared", *commands, "-o", str(folder / "_cuda.so")])
        replace(library, (folder / "_cuda.so").read_bytes())
    return f"built with {compiler} for sm_80, sm_90 and, compiled at first use, what is newer"


def nvcc_command(compiler: str, arguments: list[str], out: str) -> list[str]:
    *flags, source = arguments
    return [compiler, *NVCC_FLAGS, *flags, "-c", str(CUDA_SOURCES / source), "-o", out]


def replace(path: Path, content: bytes) -> None:
    """Writes under another name first: a process may have the old library mapped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


class BuildKernels(build_ext):
    """Builds the libraries without Python's own flags and headers, and never fails the installation."""

    def run(self) -> None:
        package = Path("kernels" if self.inplace or self.editable_mode else self.build_lib) / "relvlm_kernels"
        found = self.build(build_cpu, package / "_cpu.so")
        if found.startswith("not"):
            self.warn(f"relvlm_kernels: the CPU kernels were {found}\nPlain PyTorch runs instead, slower.")
        found = self.build(build_cuda, package / "_cuda.so")
        if found.startswith("not") and os.environ.get("RELVLM_CUDA") == "1":
            self.warn(f"relvlm_kernels: the CUDA kernels were {found}")

    def build(self, how: Callable[[Path], str], library: Path) -> str:
        """Builds, and writes beside the library how, or why not."""
        try:
            found = how(library)
        except (BuildFailed, OSError) as error:
            library.unlink(missing_ok=True)  # one from other sources would be worse than none
            found = f"not built: {error}"
        replace(library.with_suffix(".txt"), f"{found}\n".encode())
        return found

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class PlatformWheel(bdist_wheel):
    """Any Python 3 of this platform: the library knows nothing of Python."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    packages=find_packages(include=["relvlm*"]) + find_packages("kernels"),
    ext_modules=[Extension("relvlm_kernels._cpu", [str(path) for path in sorted(SOURCES.glob("*.cpp"))])],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)
