"""One right text among several: strictly the highest; all options scored; where the answer is."""

import pytest

from relvlm.errors import UserError
from relvlm.evals.tasks.options import choice_pairs, choices


def rows(scores: list[float], piece: str = "p", number: int = 7, **fields: object) -> list[dict]:
    return [{"piece": piece, "label": f"{number}_{i}", "score": s, **fields} for i, s in enumerate(scores)]


@pytest.mark.parametrize(
    ("scores", "answer", "right"),
    [
        ([0.5, 0.4999, 0.1], None, True),
        ([0.5, 0.5, 0.1], None, False),
        ([0.5, 0.1, 0.5001], None, False),
        ([0.1, 0.2, 0.5], 2, True),
        ([0.1, 0.5, 0.5], 2, False),
        ([0.5, 0.1, 0.1], 1, False),
    ],
)
def test_the_answer_must_score_strictly_above_all_others(scores: list[float], answer: int | None, right: bool) -> None:
    fields = {} if answer is None else {"answer": answer}
    (found,) = choices(rows(scores, **fields)[::-1], "toy")
    assert (found.won, found.answer, found.unit) == (right, answer or 0, "p 7_0")
    assert [row["score"] for row in found.rows] == scores


def test_a_card_shows_the_answer_first() -> None:
    held = [{**row, "text": text, "image": "a"} for row, text in zip(rows([0.1, 0.9], answer=1), "xy", strict=True)]
    card = choices(held, "toy")[0].card("on")
    assert card.lines == (("caption:", "y", 0.9), ("foil:", "x", 0.1))
    assert (card.images, card.what, card.piece, card.right) == (("a",), "on", "p", True)


@pytest.mark.parametrize("kept", [[0], [0, 2], [1, 2]])
def test_all_options_must_be_scored(kept: list[int]) -> None:
    with pytest.raises(UserError, match="7 of p: not all of its options"):
        choices([rows([0.3, 0.2, 0.1])[i] for i in kept], "toy")


def test_an_answer_is_one_of_the_options_and_one_for_all() -> None:
    with pytest.raises(UserError, match="scores: answer: 2 is no place among 2"):
        choices(rows([0.3, 0.2], answer=2), "toy")
    first, second = rows([0.3, 0.2])
    with pytest.raises(UserError, match="7 of p: answer: not the same"):
        choices([{**first, "answer": 0}, {**second, "answer": 1}], "toy")


def test_rows_of_another_task_are_refused() -> None:
    with pytest.raises(UserError, match="piece: absent, this is no toy score file"):
        choices([{"label": "0_0", "score": 0.5}], "toy")


def test_the_answer_is_written_only_where_it_is_not_always_the_first() -> None:
    assert [p.row for p in choice_pairs("3", "i", ["a", "b"], {"piece": "p"})] == [
        {"label": "3_0", "piece": "p"},
        {"label": "3_1", "piece": "p"},
    ]
    boxed = choice_pairs("3", "i", ["a", "b"], {}, (0, 0, 2, 2), answer=0)
    assert [p.row["answer"] for p in boxed] == [0, 0]
    assert (boxed[0].box, boxed[1].row["box"]) == ((0, 0, 2, 2), [0, 0, 2, 2])
