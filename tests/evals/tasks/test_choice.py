"""Anyone's questions: options, the answer's place, chance of what was scored."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.tasks import choice


def written(path: Path, *records: dict) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_questions_may_have_different_numbers_of_options(tmp_path: Path) -> None:
    written(tmp_path / "mine.jsonl", {"image": "a", "options": ["x", "y", "z", "u", "v"], "answer": 4, "kind": "on"})
    written(tmp_path / "other.jsonl", {"image": "b", "options": ["x", "y"], "answer": 0})
    pairs = choice.load(tmp_path).pairs
    assert pairs[0].row == {"label": "0_0", "piece": "mine", "kind": "on", "answer": 4}
    held = [{**p.row, "score": float(p.text == "v")} for p in pairs]
    found = choice.TASK.metrics(held)
    assert (found["overall"], found["mine"], found["other"], found["kind"]) == (50, 100, 0, {"on": 100})
    assert found["chance"] == pytest.approx(35)


@pytest.mark.parametrize(
    ("answer", "fine"), [(0, True), (1, True), (2, False), (-1, False), ("b", False), (None, False)]
)
def test_an_answer_is_a_place_among_the_options(tmp_path: Path, answer: object, fine: bool) -> None:
    path = written(tmp_path / "mine.jsonl", {"image": "a", "options": ["x", "y"], "answer": answer})
    if fine:
        assert [p.row["answer"] for p in choice.load(path).pairs] == [answer, answer]
        return
    with pytest.raises(UserError, match=r"mine\.jsonl: row 0: answer: "):
        choice.load(path)


def test_one_option_is_no_choice(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.jsonl", {"image": "a", "options": ["x"], "answer": 0})
    with pytest.raises(UserError, match=r"options: .* is no list of 2 or more texts"):
        choice.load(path)


@pytest.mark.parametrize(("answer", "fine"), [(0, True), (1, False), (2, False)])
def test_an_answer_that_is_there_twice_is_refused(tmp_path: Path, answer: int, fine: bool) -> None:
    path = written(tmp_path / "mine.jsonl", {"image": "a", "options": ["x", "y", "y"], "answer": answer})
    if fine:
        assert len(choice.load(path).pairs) == 3
        return
    with pytest.raises(UserError, match=r"mine\.jsonl: row 0: options: 'y' is there twice"):
        choice.load(path)
