"""The kernels as a distribution of their own, relvlm-kernels; its metadata lies in pyproject.toml beside this file."""

import sys
from pathlib import Path

from setuptools import find_packages, setup

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "csrc"))  # of a checkout
sys.path.insert(0, str(Path(__file__).resolve().parent / "csrc"))  # of a source archive
from commands import COMMANDS, EXTENSIONS

setup(packages=find_packages(include=["relvlm_kernels*"]), ext_modules=EXTENSIONS, cmdclass=COMMANDS)
