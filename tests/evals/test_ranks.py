"""Two processes share the images: the scores, ranks and files of one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def evaluate(checkpoint: Path, suite: Path, out: Path, *launcher: str) -> None:
    options = ["--checkpoint", str(checkpoint), "--suite", str(suite), "--out", str(out), "--k", "3"]
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCHER} | {"OMP_NUM_THREADS": "1"}
    command = [*launcher, "-m", "relvlm.cli", "eval", *options]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("**step_0000010**") == 1  # one process prints


def test_two_processes_give_the_ranks_and_scores_of_one(
    suite: Path, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "checkpoints", 10)
    evaluate(folder, suite, tmp_path / "one", sys.executable)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    evaluate(folder, suite, tmp_path / "two", *torchrun)
    results = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("metrics.json"))
    assert {path.parent.name for path in results} == {
        "vsr",
        "valse",
        "svo",
        "sugarcrepe",
        "paragraphs",
        "coco",
    }
    for path in results:
        one, two = tmp_path / "one" / path, tmp_path / "two" / path
        assert near(json.loads(two.read_text()), json.loads(one.read_text()))
        found, expected = ((x.parent / "scores.jsonl").read_text().splitlines() for x in (two, one))
        assert expected
        assert near([json.loads(line) for line in found], [json.loads(line) for line in expected])


def near(found: Any, expected: Any) -> bool:
    """The same but for the rounding of numbers, which is of 1e-6; another pair's score is off by 1e-2."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(near(found[key], x) for key, x in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(near, found, expected))
    return found == (pytest.approx(expected, abs=1e-4) if isinstance(expected, float) else expected)
