"""Packages of the distribution; the metadata lies in pyproject.toml.

`relvlm_kernels` lives under `kernels/` (which is not a package itself: a top-level module named `kernels`
would shadow the Hub's package of that name that transformers looks for).
"""

from setuptools import find_packages, setup

setup(packages=find_packages(include=["relvlm*"]) + find_packages("kernels"))
