"""One file makes a benchmark: this one registers a made-up one and sees it loaded, scored, judged and reported."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from relvlm.evals.checkpoints.every import RESULTS, checkpoints_of, evaluate_checkpoints
from relvlm.evals.cli import add_arguments
from relvlm.evals.evaluate import evaluate_suite, rescore, suite_sources
from relvlm.evals.figures.main_table import Column
from relvlm.evals.files import Row, annotation_files, read_jsonl
from relvlm.evals.reporting.report import report
from relvlm.evals.scoring.scorer import ScoreOptions
from relvlm.evals.tasks import registry, verdict
from relvlm.evals.tasks.pairs import Benchmark, Pair, PairTask
from relvlm.evals.tasks.task import Card, Selection
from relvlm.evals.tasks.verdict import Verdict

# ---- what would be relvlm/evals/tasks/thirds.py ----------------------------------------------------------


def load(annotations: Path) -> Benchmark:
    (file,) = annotation_files(annotations, "thirds", (".jsonl",))
    return Benchmark(tuple(_example(i, row) for i, row in enumerate(read_jsonl(file))))


def _example(number: int, row: Row) -> tuple[Pair, ...]:
    fields = {"kind": row["kind"]}
    return tuple(Pair(row["image"], t, {"label": f"{number}_{i}", **fields}) for i, t in enumerate(row["texts"]))


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Right if the first of three texts scores above both others."""
    return [_verdict(rows[i : i + 3]) for i in range(0, len(rows), 3)]


def _verdict(rows: Sequence[Row]) -> Verdict:
    first, *others = rows
    won = all(first["score"] > row["score"] for row in others)
    lines = tuple((f"text {i}:", row["text"], row["score"]) for i, row in enumerate(rows))
    card = Card((first["image"],), lines, won, first["kind"], "the first of three")
    return Verdict(first["label"], tuple(rows), {"overall": won, first["kind"]: won}, card)


def figures(judged: Sequence[Verdict]) -> Row:
    return {**verdict.accuracy(judged), "chance": 100 / 3}


TASK = PairTask(
    "thirds",
    load,
    verdicts,
    figures,
    (Column("Thirds"),),
    key=("label",),
    label=r"\d+_[012]",
    rule="the first of three texts above both others, strictly",
)

# ----------------------------------------------------------------------------------------------------------


@pytest.fixture()
def with_thirds(suite: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The suite of known tasks and the new one, which is registered."""
    texts = ["a dog", "the red box", "a person on the left"]
    rows = [{"image": f"{i}.jpg", "texts": texts[i % 3 :] + texts[: i % 3], "kind": "abc"[i % 2]} for i in range(9)]
    (suite / "thirds").mkdir()
    (suite / "thirds/thirds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setitem(registry.TASKS, "thirds", TASK)
    return suite


def test_it_is_scored_with_the_suite_and_its_scores_give_its_metrics(with_thirds: Path, tmp_path: Path, model) -> None:
    found = evaluate_suite(model, model.tokenizer, with_thirds, tmp_path / "out")["thirds"]
    rows = [json.loads(line) for line in (tmp_path / "out/thirds/scores.jsonl").read_text().splitlines()]
    won = sum(a["score"] > max(b["score"], c["score"]) for a, b, c in zip(*(rows[i::3] for i in range(3)), strict=True))
    assert found["overall"] == pytest.approx(100 * won / 9)
    assert (found["n"], found["n_pairs"], found["counts"]) == (9, 27, {"a": 5, "b": 4})
    again = rescore("thirds", tmp_path / "out/thirds/scores.jsonl", with_thirds / "thirds")
    assert again == {name: found[name] for name in again}


def test_it_is_in_the_table_the_browser_and_the_learning_dynamics(
    with_thirds: Path, tmp_path: Path, model, checkpoint: Callable[..., Path]
) -> None:
    run = tmp_path / "run"
    for step in (10, 20):
        checkpoint(run / "checkpoints", step, step)
    sources = [s for s in suite_sources(with_thirds, Selection(), dev=True) if s.name in ("thirds", "svo")]
    evaluate_checkpoints(checkpoints_of(run), sources, run / RESULTS, ScoreOptions())
    found = evaluate_suite(model, model.tokenizer, with_thirds, run / "eval")["thirds"]
    written = report([run], tmp_path / "report")
    head, values, _, chance, n = [line.split("|")[1:-1] for i, line in enumerate(written.table.splitlines()) if i != 1]
    column = [cell.strip() for cell in head].index("Thirds")
    assert column == len(head) - 3  # after the main columns, before the two calibrated ones
    assert values[column].strip() == f"**{found['overall']:.1f}**"
    assert (chance[column].strip(), n[column].strip()) == ("33.3", "9")
    page = (tmp_path / "report/report.html").read_text()
    examples = json.loads(re.findall(r"id=examples>(.*?)</script>", page)[0])["examples"]
    mine = [e for e in examples if e["task"] == "thirds"]
    assert {(e["piece"], e["what"]) for e in mine} == {
        ("a", "the first of three"),
        ("b", "the first of three"),
    }
    assert sum(e["right"] for e in mine) == round(found["overall"] * 9 / 100)
    assert "Thirds" in (tmp_path / "report/report.md").read_text().partition("Selection matrix")[2].split("\n\n")[1]


def test_the_command_line_knows_it(with_thirds: Path) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args(["--task", "thirds"]).task == "thirds"
