"""Checkpoints of 1 and 2 ranks, of every ZeRO stage and dtype, each loaded by each (tests/resume_matrix.py)."""

from pathlib import Path

import pytest
import torch
from resume_matrix import run

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the models stay on the CPU")


@pytest.mark.slow
def test_every_checkpoint_is_loaded_to_the_bit_by_any_ranks_stage_and_dtype(tmp_path: Path) -> None:
    rows = run(tmp_path, everything=False, worlds=(1, 2))
    met = {tuple(row[side].values()) for row in rows for side in ("there", "here")}
    assert len(rows) == 4 * 8 and len(met) == 2 * 4
    assert [row for row in rows if row["fault"]] == []
