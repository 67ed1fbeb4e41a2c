"""Packages of the distribution and its compiled parts, the kernels; the metadata lies in pyproject.toml.

`relvlm_kernels` lives under `kernels/` (which is not a package itself: a top-level module named `kernels`
would shadow the Hub's package of that name that transformers looks for).

The kernels are what csrc/libraries.py says, built by ninja from `build/kernels/build.ninja`: what is up to date stays,
and `compile_commands.json` is for editors. Where a build fails the installation goes on, and `python -m relvlm_kernels`
says why kernels are missing (it reads `_cpu.txt` and `_cuda.txt`); but RELVLM_CUDA=1 asks for the CUDA kernels, so that
their failure is one.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

sys.path.insert(0, str(Path(__file__).parent / "csrc"))
from libraries import build_all

NO_CUDA = "not built: no nvcc", "not built: RELVLM_CUDA=0"  # nothing to warn of


class BuildKernels(build_ext):
    """Builds the libraries without Python's own flags and headers."""

    def run(self) -> None:
        in_place = self.inplace or self.editable_mode
        package = Path("kernels" if in_place else self.build_lib) / "relvlm_kernels"
        cpu, cuda = build_all(package, for_editors=in_place)
        if cpu.startswith("not"):
            self.warn(f"the CPU kernels were {cpu}\nPlain PyTorch runs instead, slower.")
        if cuda.startswith("not") and os.environ.get("RELVLM_CUDA") == "1":
            raise CompileError(f"RELVLM_CUDA=1, but the CUDA kernels were {cuda}")
        if cuda.startswith("not") and not cuda.startswith(NO_CUDA):
            self.warn(f"the CUDA kernels were {cuda}\nTriton runs instead.")

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
    ext_modules=[Extension("relvlm_kernels._cpu", [str(path) for path in sorted(Path("csrc/cpu").glob("*.cpp"))])],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)
