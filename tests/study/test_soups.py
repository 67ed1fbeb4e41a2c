"""Averages of a run's checkpoints, from the run to its result."""

import json
import shutil
from pathlib import Path

import pytest

from relvlm.evals.checkpoints import soup
from relvlm.study.plan import Arm, Budget, Plan
from relvlm.study.runs import runs_of, train
from relvlm.study.soups import add_soups

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plan(tiny: list[str], relworld: Path, tmp_path: Path) -> Plan:
    """One arm of three steps, each evaluated on a few examples."""
    small = ["eval.tasks=[coco, svo]", "eval.limit=4", "optim.warmup_steps=1", "checkpoint.keep=0"]
    return Plan(
        "real", str(tmp_path / "runs"), str(tmp_path / "results"), str(relworld / "benchmarks"),
        arms=[Arm("X-VLM", str(ROOT / "configs/mini/xvlm.yaml"))],
        budgets=[Budget("steps", steps=3)], seeds=[0], evaluations=3, set=[*tiny[2:-1], *small],
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_that_ended_gets_its_averages_once_and_of_too_few_checkpoints_none(plan):
    runs = runs_of(plan)
    assert add_soups(runs, 1) == []  # nothing is done yet
    assert train(runs, 1) == [] and add_soups(runs, 1) == []
    (run,) = runs
    result = json.loads(run.result.read_text())
    assert list(result["soups"]) == ["uniform", "exponential", "greedy"]
    assert all({"SVO", "COCO dev TR@1"} <= figures.keys() for figures in result["soups"].values())
    assert run.is_done()
    made = {name: soup.read_weights(run.folder / "soups" / name) for name in ("uniform", "exponential")}
    parts = [soup.read_weights(run.folder / f"checkpoints/step_{step:07d}") for step in (1, 2, 3)]
    name = next(name for name, x in parts[0].items() if not x.equal(parts[2][name]))
    for kind, shares in (("uniform", (1 / 3, 1 / 3, 1 / 3)), ("exponential", (0.25, 0.25, 0.5))):
        wanted = sum(share * part[name].double() for share, part in zip(shares, parts, strict=True))
        assert made[kind][name].double().allclose(wanted, rtol=1e-6)
    before = run.result.stat().st_mtime_ns
    assert add_soups(runs, 1) == [] and run.result.stat().st_mtime_ns == before

    shutil.rmtree(run.folder / "checkpoints/step_0000001")
    run.result.write_text(json.dumps(result | {"soups": {"uniform": result["soups"]["uniform"]}}))
    (fault,) = add_soups(runs, 1)
    assert fault.startswith("steps, X-VLM, seed 0: ") and "evaluations: at least 3" in fault
