"""The plan of a study: what it may say, and what is refused at once."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from relvlm.config.load import to_tree
from relvlm.config.recipe import other_key, recipe_of
from relvlm.errors import UserError
from relvlm.study.plan import read_plan, slug, smoke
from relvlm.study.runs import runs_of
from relvlm.study.worlds import wanted


def test_every_plan_that_is_shipped_can_be_read(pytestconfig):
    found = sorted((pytestconfig.rootpath / "configs/study").glob("*.yaml"))
    assert found
    for path in found:
        plan = read_plan(path)
        assert len(plan.seeds) >= 3 and all((pytestconfig.rootpath / arm.config).is_file() for arm in plan.arms)
        wanted(plan)


def test_plans_that_share_results_mean_the_same_by_a_name(pytestconfig):
    """Else a plan would stop at another one's result, or train an arm that is there."""
    by_name = {}
    for path in sorted((pytestconfig.rootpath / "configs/study").glob("*.yaml")):
        plan = read_plan(path)
        for budget, arm in product(plan.budgets, plan.arms):
            trained = (arm, budget, plan.out, plan.suite, plan.set, plan.evaluations)
            assert by_name.setdefault((plan.results, budget.name, arm.name), trained) == trained, (path, arm.name)
    assert len(by_name) > 15


def test_results_that_are_shipped_are_of_the_configs_as_they_are(pytestconfig, monkeypatch):
    monkeypatch.chdir(pytestconfig.rootpath)
    plans = [read_plan(path) for path in sorted(Path("configs/study").glob("*.yaml"))]
    found = [run for plan in plans for run in runs_of(plan) if run.result.is_file()]
    for run in found:
        there = json.loads(run.result.read_text())["recipe"]
        assert not (other := other_key(there, recipe_of(to_tree(run.config)))), (run.result, other)
    assert len(found) > 30


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps: 10", "steps: 10, images: 5", r"budgets\[0\]: give one of steps, images, tflop"),
        ("steps: 10", "steps: 0", r"budgets\[0\]: give one of"),
        ("seeds: [3, 5]", f"seeds: [{2**31}]", r"seeds\[0\]: 2147483648: must be at least 0 and at most 2,147,483,647"),
        ("name: X-VLM,", "name: rex vlm,", r"arms: rex vlm, ReX-VLM: each needs a folder of its own"),
        ("seeds: [3, 5]", "seeds: [3, 3]", r"seeds: \[3, 3\]: each once"),
        ("[[X-VLM, ReX-VLM]]", "[[X-VLM, ALBEF]]", r"compare\[0\]: .* not two of X-VLM, ReX-VLM"),
        ("[[X-VLM, ReX-VLM]]", "[[X-VLM, X-VLM]]", r"compare\[0\]: .* not two of"),
        ("budgets: [{name: steps, steps: 10}]", "budgets: []", "budgets: empty"),
        ("name: X-VLM, config", "name: X-VLM, after: ReX, config", r"X-VLM: after: 'ReX': not an arm .* \(ReX-VLM\)"),
        (
            "name: X-VLM, config",
            "name: X-VLM, after: X-VLM, config",
            r"after: 'X-VLM': not an arm that is trained",
        ),
        ("name: X-VLM, config", "name: X-VLM, share: 0, config", r"arms\[0\].share: 0.0?: must be above 0"),
        ("evaluations: 3", "evaluation: 3", r"evaluation: unknown key \(did you mean 'evaluations'"),
    ],
)
def test_what_cannot_be_meant_is_refused(old, new, message, plan_file):
    text = plan_file.read_text()
    assert old in text
    plan_file.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        read_plan(plan_file)


def test_a_smoke_run_is_of_the_same_arms_and_leaves_the_results_alone(plan):
    small = smoke(plan)
    assert small.arms == plan.arms and len(small.seeds) == 2 and small.budgets[0].steps < 20
    assert small.results != plan.results and small.out != plan.out
    phased = replace(
        plan, arms=[replace(plan.arms[0], set=["low_resolution.steps=800", "low_resolution.image_size=16"])]
    )
    assert smoke(phased).arms[0].set == ["low_resolution.steps=6", "low_resolution.image_size=16"]


def test_names_become_folders():
    assert [slug(name) for name in ("X-VLM + VSG", "ReX", "  ")] == ["x-vlm-vsg", "rex", ""]
