"""setuptools' commands for the kernels, of both distributions that hold them: relvlm (setup.py), relvlm-kernels alone
(kernels/setup.py).

The kernels are what libraries.py says, built by ninja from `build/kernels/build.ninja`: what is up to date stays, and
`compile_commands.json` is for editors. Where a build fails the installation goes on, and `python -m relvlm_kernels`
says why kernels are missing (it reads `_cpu.txt` and `_cuda.txt`); but RELVLM_CUDA=1 asks for the CUDA kernels, so that
their failure is one.
"""

import os
import shutil
from pathlib import Path

from libraries import HERE, build_all
from setuptools import Extension
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist
from setuptools.errors import CompileError

PACKAGE = "relvlm_kernels"
NO_CUDA = "not built: no nvcc", "not built: RELVLM_CUDA=0"  # nothing to warn of
EXTENSIONS = [Extension(f"{PACKAGE}._cpu", [])]  # so that a wheel is known to be of a platform


class BuildKernels(build_ext):
    """Builds the libraries without Python's own flags and headers."""

    def run(self) -> None:
        in_place = self.inplace or self.editable_mode
        folder = self.get_finalized_command("build_py").get_package_dir(PACKAGE) if in_place else None
        cpu, cuda = build_all(Path(folder or f"{self.build_lib}/{PACKAGE}"), for_editors=in_place)
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


class KernelWheel(bdist_wheel):
    """Any Python 3 of this platform, for the libraries know nothing of Python; of any platform where none was built."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def run(self) -> None:
        self.run_command("build")
        self.skip_build = True
        built = Path(self.get_finalized_command("build").build_lib) / PACKAGE
        self.root_is_pure = not any(built.glob("_*.so"))
        if self.root_is_pure:
            self.distribution.ext_modules = None
            self.warn("no kernel was built: a pure wheel, in which plain PyTorch runs, slower")
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", "any" if self.root_is_pure else super().get_tag()[2]


class WithSources(sdist):
    """A source archive that has these sources at its root, wherever they lie in the checkout."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        to = Path(base_dir) / "csrc"
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(HERE, to, ignore=shutil.ignore_patterns("__pycache__"))


COMMANDS = {"build_ext": BuildKernels, "bdist_wheel": KernelWheel, "sdist": WithSources}
