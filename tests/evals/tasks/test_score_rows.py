"""Bad scores are refused by line, scores of other annotations by field."""

from collections.abc import Callable

import pytest

from relvlm.errors import UserError
from relvlm.evals.tasks.score_rows import check_scores, complete

KEY = ("split", "id")


def rows() -> list[dict]:
    return [{"label": i % 2, "score": 0.5, "relation": "on", "id": i} for i in range(4)]


BREAKAGES: dict[str, tuple[Callable[[list[dict]], object], str]] = {
    "NaN": (lambda held: held[2].update(score=float("nan")), "line 3: score: nan"),
    "infinite": (lambda held: held[2].update(score=float("inf")), "line 3: score: inf"),
    "a text": (lambda held: held[1].update(score="high"), "line 2: score: 'high' is no number"),
    "a flag": (lambda held: held[1].update(score=True), "line 2: score: True is no number"),
    "absent": (lambda held: held[0].pop("score"), "line 1: score: None"),
    "twice": (lambda held: held.append(dict(held[0])), "line 5: 0: already on line 1"),
    "a cosine": (lambda held: held[1].update(cosine="near"), "line 2: cosine: 'near' is no number"),
    "a text's cosine": (lambda held: held[1].update(text_cosine=float("nan")), "line 2: text_cosine: nan"),
    "empty": (lambda held: held.clear(), "no scores"),
    "another label": (lambda held: held[3].update(label=2), "line 4: label: 2 .*another task"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_bad_scores_are_refused(name: str) -> None:
    breakage, message = BREAKAGES[name]
    held = rows()
    breakage(held)
    with pytest.raises(UserError, match=message):
        check_scores(held, KEY, "scores.jsonl", "[01]")


def test_good_scores_are_kept_as_they_are() -> None:
    assert check_scores(iter(rows()), KEY, "scores.jsonl", "[01]") == rows()
    assert check_scores([{"score": 1}], KEY, "scores.jsonl") == [{"score": 1}]


def test_rows_without_a_key_may_be_equal() -> None:
    assert len(check_scores([{"score": 0.5}] * 2, KEY, "scores.jsonl")) == 2


@pytest.mark.parametrize("label", [True, 1.0, 1, False, 0.0])
def test_other_programs_spellings_of_0_and_1_are_read(label: object) -> None:
    assert check_scores([{"score": 0.5, "label": label}], KEY, "scores.jsonl", "[01]")


@pytest.mark.parametrize("label", [2.0, "True", 0.5, 10])
def test_another_label_is_no_0_or_1(label: object) -> None:
    with pytest.raises(UserError, match="label"):
        check_scores([{"score": 0.5, "label": label}], KEY, "scores.jsonl", "[01]")


def bare(number: int = 4) -> list[dict]:
    return [{"id": row["id"], "score": row["score"]} for row in rows()[:number]]


def annotated() -> list[dict]:
    return [{name: value for name, value in row.items() if name != "score"} for row in rows()]


def test_annotations_supply_what_scores_lack() -> None:
    assert complete(bare(), annotated(), [], KEY, "scores.jsonl") == rows()


def test_scores_of_dropped_examples_are_left_out() -> None:
    kept, dropped = annotated()[:3], annotated()[3:]
    assert complete(rows(), kept, dropped, KEY, "scores.jsonl") == rows()[:3]


def test_scores_that_contradict_the_annotations_are_refused() -> None:
    held = rows()
    held[3]["relation"] = "under"
    with pytest.raises(UserError, match="relation: 'under', the annotations say 'on'"):
        complete(held, annotated(), [], KEY, "scores.jsonl")


def test_a_score_that_the_annotations_do_not_know_is_refused() -> None:
    with pytest.raises(UserError, match=r"\(3,\): not in the annotations"):
        complete(rows(), annotated()[:3], [], KEY, "scores.jsonl")


def test_missing_scores_are_refused() -> None:
    with pytest.raises(UserError, match=r"1 annotated pairs have no score, the first is \(3,\)"):
        complete(bare(3), annotated(), [], KEY, "scores.jsonl")


def test_rows_that_fit_several_annotations_are_refused() -> None:
    with pytest.raises(UserError, match="fit several annotations"):
        complete(bare(), annotated() + annotated(), [], KEY, "scores.jsonl")


@pytest.mark.parametrize(
    "field", [{"piece": 3}, {"image": ["a"]}, {"split": {}}, {"id": 1.5}, {"held_out": "maybe"}, {"box": [1, 2, 3]}]
)
def test_a_field_of_another_type_is_named_with_its_line(field: dict) -> None:
    (name,) = field
    with pytest.raises(UserError, match=rf"scores\.jsonl: line 2: {name}: "):
        check_scores([{"score": 0.5}, {"score": 0.5, **field}], (), "scores.jsonl")


def test_a_number_beyond_all_floats_is_no_score() -> None:
    with pytest.raises(UserError, match="line 1: score"):
        check_scores([{"score": 10**400}], (), "scores.jsonl")


def test_a_field_that_is_null_is_absent() -> None:
    held = [{"score": 0.5, "box": None, "text": None, "id": 0}]
    assert check_scores(held, KEY, "scores.jsonl") == [{"score": 0.5, "id": 0}]
