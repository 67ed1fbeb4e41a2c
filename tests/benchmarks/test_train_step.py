"""The training step's benchmark on a model of toy size: every column of its tables, all sides and the options."""

import json
from pathlib import Path

import pytest
from support.programs import put_fault, run

PROGRAM = "benchmarks/train_step.py"
OPTIONS = ("--size", "toy", "--words", 50, "--repeats", 1, "--threads", 1)


@pytest.mark.slow
def test_all_sides_are_measured_with_every_option(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    more = ("--kinds", "captions", "joint", "--patch-keep", 0.5, "--waterfall", "--json", path)
    done = run(PROGRAM, *OPTIONS, *more)
    assert done.returncode == 0, done.stderr[-3000:]
    captions, joint = json.loads(path.read_text())["rows"]
    fewer = captions["not_exact"]
    assert fewer["flops"] < captions["flops"] and fewer["kept_bytes"] < captions["kept_bytes"]
    assert "| toy | captions | 4 |" in done.stdout and "patch_keep 0.5" in done.stdout
    assert (joint["kind"], joint["images"]) == ("joint", 4)  # against its kinds one by one
    for padded, trimmed in ((row["official"], row["trimmed"]) for row in (captions, joint)):
        assert padded["flop_ratio"] > trimmed["flop_ratio"] > 1
        assert 0 < padded["memory_ratio"] < trimmed["memory_ratio"] < 1
    steps = captions["waterfall"]
    assert [step["with"] for step in steps[:2]] == ["official", "no padding"]
    assert steps[-1]["kept_bytes"] < steps[0]["kept_bytes"]
    assert all(f"| {step['with']} |" in done.stdout for step in steps)


@pytest.mark.slow
def test_sides_whose_losses_differ_are_not_timed(tree: Path) -> None:
    put_fault(tree / PROGRAM, "losses[name] = float(loss())", "losses[name] = float(loss()) * (1 + len(losses))")
    done = run(PROGRAM, *OPTIONS, "--kinds", "mrc", root=tree)
    assert done.returncode == 1 and "not comparable" in done.stderr
