"""The training step's benchmark on a model of toy size: every column of its tables, both sides and the options."""

import json
from pathlib import Path

import pytest
from support.programs import put_fault, run

PROGRAM = "benchmarks/train_step.py"
OPTIONS = ("--size", "toy", "--words", 50, "--repeats", 1, "--threads", 1)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict], str]:
    """The rows by kind, and what was printed."""
    path = tmp_path_factory.mktemp("step") / "out.json"
    more = ("--kinds", "captions", "joint", "--patch-keep", 0.5, "--waterfall", "--json", path)
    done = run(PROGRAM, *OPTIONS, *more)
    assert done.returncode == 0, done.stderr[-3000:]
    return {row["kind"]: row for row in json.loads(path.read_text())["rows"]}, done.stdout


@pytest.mark.slow
def test_a_step_with_dropped_patches_stands_beside_the_exact_one(measured) -> None:
    rows, printed = measured
    row = rows["captions"]
    assert row["not_exact"]["flops"] < row["flops"] and row["not_exact"]["kept_bytes"] < row["kept_bytes"]
    assert "| toy | captions | 4 |" in printed and "patch_keep 0.5" in printed


@pytest.mark.slow
def test_a_joint_step_is_measured_against_its_kinds_one_by_one(measured) -> None:
    row = measured[0]["joint"]
    assert row["images"] == 4 and row["flop_ratio"] > 1 and 0 < row["memory_ratio"] < 1


@pytest.mark.slow
def test_the_waterfall_begins_with_the_official_way_and_ends_with_all_savings(measured) -> None:
    rows, printed = measured
    steps = rows["captions"]["waterfall"]
    assert [step["with"] for step in steps[:3]] == ["official", "fused AdamW", "no padding"]
    assert steps[-1]["kept_bytes"] < steps[0]["kept_bytes"]
    assert all(f"| {step['with']} |" in printed for step in steps)


@pytest.mark.slow
def test_sides_whose_losses_differ_are_not_timed(tree: Path) -> None:
    put_fault(
        tree / PROGRAM, "losses.append(float(loss()))", "losses.append(float(loss()) * (1 + len(losses)))"
    )
    done = run(PROGRAM, *OPTIONS, "--kinds", "mrc", root=tree)
    assert done.returncode == 1 and "not comparable" in done.stderr
