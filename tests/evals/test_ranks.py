"""Two processes share the images: the scores, ranks and files of one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def evaluate(checkpoint: Path, suite: Path, out: Path, *launcher: str) -> None:
    options = ["--checkpoint", str(checkpoint), "--suite", str(suite), "--out", str(out), "--k", "3"]
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCHER} | {"OMP_NUM_THREADS": "1"}
    command = [*launcher, "-m", "relvlm.cli", "eval", *options]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
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
        assert json.loads(two.read_text()) == json.loads(one.read_text())
        lines = [json.loads(line) for line in (one.parent / "scores.jsonl").read_text().splitlines()]
        others = [json.loads(line) for line in (two.parent / "scores.jsonl").read_text().splitlines()]
        assert lines
        assert [row.pop("score") for row in others] == pytest.approx(
            [row.pop("score") for row in lines], abs=1e-6
        )
        assert others == lines
