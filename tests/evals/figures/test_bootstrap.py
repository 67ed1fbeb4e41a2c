"""Outcomes give the metrics again; intervals, paired tests and rank correlations against other ways to them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from relvlm.errors import UserError
from relvlm.evals.figures.bootstrap import intervals, mcnemar, paired, spearman
from relvlm.evals.figures.outcomes import Outcomes, outcomes
from relvlm.evals.figures.shares import wilson
from relvlm.evals.files import read_jsonl
from relvlm.evals.run import evaluate_suite, rescore

REFERENCE = ("vsr_albef_4m_test", "valse_x-vlm_4m", "winoground_albef_4m")


def flat(figures: dict, prefix: str = "") -> dict[str, float]:
    """All figures of a metrics object, nested ones as a/b."""
    found = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            found |= flat(value, "" if name == "by_split" else f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            found[prefix + name] = value
    return {name.removeprefix("by_split/"): value for name, value in found.items()}


def read(path: Path) -> Outcomes:
    return outcomes(path.stem.partition("_")[0], list(read_jsonl(path)), str(path))


@pytest.mark.parametrize("name", REFERENCE)
def test_outcomes_of_published_scores_give_their_metrics(shared: Path, name: str) -> None:
    path = shared / f"reference/outputs/{name}.jsonl"
    wanted, found = flat(rescore(name.partition("_")[0], path)), read(path).figures()
    assert {n: v[0] for n, v in found.items()} == pytest.approx({n: wanted[n] for n in found})


def test_outcomes_of_every_task_give_its_metrics(suite: Path, tmp_path: Path, model) -> None:
    for task, figures in evaluate_suite(model, model.tokenizer, suite, tmp_path).items():
        rows = [json.loads(line) for line in (tmp_path / task / "scores.jsonl").read_text().splitlines()]
        found = outcomes(task, rows, task).figures()
        by_split = {f"{s}/{n}": v for s, part in figures.get("by_split", {}).items() for n, v in part.items()}
        wanted = flat(figures) | by_split
        assert {n: v[0] for n, v in found.items()} == pytest.approx({n: wanted[n] for n in found}), task
        assert "overall" in found


def test_accuracy_at_the_threshold_of_dev_is_bootstrapped_too() -> None:
    scores = {"dev": [0.1, 0.2, 0.3, 0.4], "test": [0.1, 0.35, 0.15, 0.45, 0.2]}
    labels = {"dev": [0, 0, 1, 1], "test": [0, 0, 1, 1, 0]}
    rows = [
        {"split": split, "id": i, "relation": "on", "score": score, "label": label}
        for split, values in scores.items()
        for i, (score, label) in enumerate(zip(values, labels[split], strict=True))
    ]
    found = outcomes("vsr", rows, "scores")
    assert found.figures()["test_at_dev_threshold"] == pytest.approx(60)
    assert "test_at_dev_threshold" in intervals(found, draws=20)


def shares(right: list[float], name: str = "overall") -> Outcomes:
    column = np.array(right, dtype=float)[:, None]
    units = tuple(map(str, range(len(right))))
    return Outcomes(units, (name,), column, np.ones_like(column), {})


def test_bootstrap_interval_of_a_share_is_near_wilson() -> None:
    found = intervals(shares([1.0] * 150 + [0.0] * 50), draws=2000)["overall"]
    low, high = wilson(150, 200)
    assert found.value == 75
    assert (found.low, found.high) == pytest.approx((low, high), abs=1.0)


def test_the_same_seed_gives_the_same_interval() -> None:
    data = shares([1.0, 0.0, 1.0] * 20)
    assert intervals(data, 200) == intervals(data, 200)
    assert intervals(data, 200) != intervals(data, 200, seed=1)


def test_equal_models_do_not_differ_and_a_better_one_does() -> None:
    rng = np.random.default_rng(0)
    base = (rng.random(400) < 0.6).astype(float)
    better = np.maximum(base, rng.random(400) < 0.2)
    same = paired(shares(list(base)), shares(list(base)))["overall"]
    assert (same.low, same.high, same.p, same.mcnemar) == (0, 0, 1, 1)
    found = paired(shares(list(base)), shares(list(better)))["overall"]
    assert found.second - found.first > 0 and found.low > 0
    assert found.p < 0.01 and found.mcnemar is not None and found.mcnemar < 0.01


def test_paired_test_joins_the_same_examples_whatever_their_order() -> None:
    first = shares([1.0, 1.0, 0.0, 0.0])
    turned = Outcomes(first.units[::-1], first.names, first.right[::-1], first.counted, {})
    found = paired(first, turned)["overall"]
    assert (found.low, found.high) == (0, 0)


def test_models_scored_on_other_examples_are_refused() -> None:
    with pytest.raises(UserError, match="'2' is scored by one of the two only"):
        paired(shares([1.0, 0.0]), shares([1.0, 0.0, 1.0]))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 9), (40, 70), (0, 12)])
def test_mcnemar_is_the_exact_binomial(b: int, c: int) -> None:
    n = b + c
    tail = sum(math.comb(n, i) for i in range(min(b, c) + 1)) / 2**n
    assert mcnemar(b, c) == pytest.approx(min(1.0, 2 * tail))


def test_spearman_by_hand_and_with_ties() -> None:
    assert spearman(np.array([1, 2, 3, 9]), np.array([2, 4, 6, 8])) == pytest.approx(1)
    assert spearman(np.array([1, 2, 3]), np.array([3, 2, 1])) == pytest.approx(-1)
    assert spearman(np.array([1, 1, 2, 3]), np.array([1, 2, 3, 4])) == pytest.approx(0.948683, abs=1e-6)
    assert math.isnan(spearman(np.array([1, 1]), np.array([1, 2])))
