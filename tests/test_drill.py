"""A short drill (tests/drill.py): a few faults of two ranks, and the run that is the same at the end."""

from pathlib import Path

import pytest
import torch
from drill import run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(torch.cuda.is_available(), reason="ranks of a CPU")]


def test_a_run_that_is_broken_a_few_times_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    found = run(tmp_path, faults=2, seed=1, ranks=2)
    assert found["wrong"] == [] and found["most_steps_lost"] == 0 and sum(found["faults"].values()) == 2
