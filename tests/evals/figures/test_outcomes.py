"""Outcomes as a table, in a file, and against the metrics of every task."""

import json
from pathlib import Path

import numpy as np
import pytest

from relvlm.evals.evaluate import evaluate_suite, rescore
from relvlm.evals.figures.bootstrap import intervals
from relvlm.evals.figures.outcomes import Outcomes, load, save, tabulate
from relvlm.evals.tasks.registry import TASKS
from relvlm.evals.tasks.vsr import TASK as VSR

REFERENCE = ("vsr_albef_4m_test", "valse_x-vlm_4m", "winoground_albef_4m")
UNITS = [("0", {"a": (1.0, 1.0), "b": (2.0, 3.0)}), ("1", {"a": (0.0, 1.0)}), ("2", {"c": (1.0, 1.0)})]


def table() -> Outcomes:
    return tabulate(UNITS, {"mean": ("mean", ("a", "b")), "least": ("min", ("a", "b", "c"))})


def test_figures_are_shares_of_what_counts_in_them() -> None:
    found = table()
    assert (found.units, found.names) == (("0", "1", "2"), ("a", "b", "c"))
    assert found.right.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]
    assert found.counted.tolist() == [[1, 3, 0], [1, 0, 0], [0, 0, 1]]
    values = {name: value.tolist() for name, value in found.figures().items()}
    assert values["a"] == [50] and values["b"] == pytest.approx([200 / 3]) and values["c"] == [100]
    assert values["mean"] == pytest.approx([(50 + 200 / 3) / 2]) and values["least"] == [50]


def test_figures_can_be_left_out() -> None:
    found, rest = table(), table().without(["a", "mean", "least"])
    assert (rest.units, rest.names, rest.derived) == (found.units, ("b", "c"), {})
    assert rest.figures() == {name: found.figures()[name] for name in ("b", "c")}


def test_weights_count_a_unit_several_times_or_not_at_all() -> None:
    found = table().figures(np.array([[3.0, 1.0, 0.0], [0.0, 1.0, 1.0]]))
    assert found["a"].tolist() == [75, 0]
    assert found["b"][0] == pytest.approx(200 / 3) and np.isnan(found["b"][1]) and np.isnan(found["c"][0])
    assert found["mean"][1] == 0  # of those that count
    assert np.isnan(found["least"]).tolist() == [True, True]


@pytest.mark.filterwarnings("error")
def test_where_nothing_counts_a_figure_is_nan_and_nobody_is_warned() -> None:
    assert np.isnan(table().figures(np.zeros((1, 3)))["mean"]).all()


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save(table(), tmp_path / "out/outcomes.npz")
    found = load(tmp_path / "out/outcomes.npz")
    assert (found.units, found.names, found.derived) == (table().units, table().names, table().derived)
    assert np.array_equal(found.right, table().right) and np.array_equal(found.counted, table().counted)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["outcomes.npz"]


def flat(figures: dict, prefix: str = "") -> dict[str, float]:
    """All figures of a metrics object, nested ones as a/b."""
    found = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            found |= flat(value, "" if name == "by_split" else f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            found[prefix + name] = value
    return {name.removeprefix("by_split/"): value for name, value in found.items()}


@pytest.mark.parametrize("name", REFERENCE)
def test_outcomes_of_published_scores_give_their_metrics(shared: Path, name: str) -> None:
    path, task = shared / f"reference/outputs/{name}.jsonl", name.partition("_")[0]
    wanted, found = flat(rescore(task, path)), TASKS[task].outcomes(path).figures()
    assert {n: v[0] for n, v in found.items()} == pytest.approx({n: wanted[n] for n in found})


def test_outcomes_of_every_task_give_its_metrics(suite: Path, tmp_path: Path, model) -> None:
    for task, figures in evaluate_suite(model, model.tokenizer, suite, tmp_path).items():
        found = TASKS[task].outcomes(tmp_path / task / "scores.jsonl").figures()
        by_split = {f"{s}/{n}": v for s, part in figures.get("by_split", {}).items() for n, v in part.items()}
        wanted = flat(figures) | by_split
        assert {n: v[0] for n, v in found.items()} == pytest.approx({n: wanted[n] for n in found}), task
        assert "overall" in found


def test_accuracy_at_the_threshold_of_dev_is_bootstrapped_too(tmp_path: Path) -> None:
    scores = {"dev": [0.1, 0.2, 0.3, 0.4], "test": [0.1, 0.35, 0.15, 0.45, 0.2]}
    labels = {"dev": [0, 0, 1, 1], "test": [0, 0, 1, 1, 0]}
    rows = [
        {"split": split, "id": i, "relation": "on", "score": score, "label": label}
        for split, values in scores.items()
        for i, (score, label) in enumerate(zip(values, labels[split], strict=True))
    ]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = VSR.outcomes(tmp_path / "scores.jsonl")
    assert found.figures()["test_at_dev_threshold"] == pytest.approx(60)
    assert "test_at_dev_threshold" in intervals(found, draws=20)
