"""The memory of a process."""

import subprocess
import sys

import pytest
import torch

from relvlm.engine import memory
from relvlm.engine.memory import memory_bytes

CPU = torch.device("cpu")
GROWTH = """
import numpy, torch
from relvlm.engine.memory import memory_bytes
before = memory_bytes(torch.device("cpu"))
held = numpy.ones(1 << 26, dtype=numpy.uint8)
print((memory_bytes(torch.device("cpu")) - before) / held.nbytes)
"""


def test_it_grows_by_what_is_written_to():
    """In a process of its own: one that has run other tests may have room, or give some back meanwhile."""
    printed = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True).stdout
    assert float(printed) == pytest.approx(1, abs=0.3)


def test_without_proc_it_is_the_most_so_far(monkeypatch, tmp_path):
    resident = memory_bytes(CPU)
    monkeypatch.setattr(memory, "_STATM", tmp_path / "none")
    assert memory_bytes(CPU) > 0.5 * resident
