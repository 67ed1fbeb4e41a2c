"""Packages of the distribution and its compiled parts, the kernels; the metadata lies in pyproject.toml.

`relvlm_kernels` lives under `kernels/` (which is not a package itself: a top-level module named `kernels`
would shadow the Hub's package of that name that transformers looks for). How it is built says csrc/commands.py.
"""

import sys
from pathlib import Path

from setuptools import find_packages, setup

sys.path.insert(0, str(Path(__file__).parent / "csrc"))
from commands import COMMANDS, EXTENSIONS

setup(
    packages=find_packages(include=["relvlm*"]) + find_packages("kernels", include=["relvlm_kernels*"]),
    ext_modules=EXTENSIONS,
    cmdclass=COMMANDS,
)
