"""What the benchmark of chunks compares is the same step, and chunks keep less."""

import re
from pathlib import Path

import pytest
from support.programs import put_fault, run

from relvlm.kinds import KINDS

PROGRAM = "benchmarks/accumulate.py"
OPTIONS = ("--size", "toy", "--images", 5, "--chunks", 2, "--repeats", 1, "--threads", 1)
LINE = re.compile(r"\| 2 \| [\d.]+ \| (\d+)% \|")


@pytest.mark.slow
def test_chunks_keep_less_of_the_same_step() -> None:
    done = run(PROGRAM, *OPTIONS, "--kind", *KINDS)
    assert done.returncode == 0, done.stderr[-3000:]
    kept = [int(share) for share in LINE.findall(done.stdout)]
    assert len(kept) == len(KINDS) and max(kept) <= 80


@pytest.mark.slow
def test_another_step_is_not_timed(tree: Path) -> None:
    right = "image_key=batch.image_key[first:last]"
    put_fault(tree / PROGRAM, right, f"{right} * 0")  # all count as the same photo
    done = run(PROGRAM, *OPTIONS, root=tree)
    assert done.returncode == 1 and "not comparable" in done.stderr and "| chunks |" not in done.stdout
