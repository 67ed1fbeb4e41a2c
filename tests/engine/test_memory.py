"""The memory of a process."""

import numpy as np
import torch

from relvlm.engine import memory
from relvlm.engine.memory import memory_bytes

CPU = torch.device("cpu")


def test_it_grows_by_what_is_written_to():
    before = memory_bytes(CPU)
    held = np.ones(1 << 26, dtype=np.uint8)
    grown = memory_bytes(CPU) - before
    assert 0.9 * held.nbytes < grown < 2 * held.nbytes


def test_without_proc_it_is_the_most_so_far(monkeypatch, tmp_path):
    resident = memory_bytes(CPU)
    monkeypatch.setattr(memory, "_STATM", tmp_path / "none")
    assert 0.5 * resident < memory_bytes(CPU) < 100 * resident
