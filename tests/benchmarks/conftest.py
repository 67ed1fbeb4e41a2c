"""Benchmarks are programs: they are run at toy size, and judged by what they write."""

import shutil
from pathlib import Path

import pytest
from support.programs import ROOT


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with benchmarks of its own, to put faults into; all else is a link."""
    root = tmp_path / "tree"
    root.mkdir()
    for path in ROOT.iterdir():
        if path.name != "benchmarks" and not path.name.startswith("."):
            (root / path.name).symlink_to(path)
    left_out = shutil.ignore_patterns("results", "__pycache__")
    shutil.copytree(ROOT / "benchmarks", root / "benchmarks", ignore=left_out)
    return root
