"""Which pairs are candidates, where the right ones rank, and what a scores file must hold."""

import json

import numpy as np
import pytest
import torch

from relvlm.errors import UserError
from relvlm.evals.tasks.candidates import Candidates, check_gallery, from_rows, lines, nearest, ranked, ranks
from relvlm.evals.tasks.gallery import Gallery

BEYOND = np.iinfo(np.int64).max


def every_pair(scores_IX: list[list[float]], image_of: list[int]) -> Candidates:
    score = np.array(scores_IX)
    image, text = (x.flatten() for x in np.indices(score.shape))
    everywhere = np.ones(score.size, dtype=bool)
    return Candidates(image, text, score.flatten(), np.array(image_of)[text] == image, everywhere, everywhere)


def rank_list(found: Candidates, way: str) -> list[int]:
    return ranks(found, way)[1].tolist()  # type: ignore[arg-type]


def test_the_k_nearest_of_each_image_and_of_each_text_are_candidates() -> None:
    similarity = torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.3, 0.4]])
    image, text, tr, ir = (x.tolist() for x in nearest(similarity, 1))
    pairs = list(zip(image, text, strict=True))
    assert pairs == [(0, 0), (0, 1), (1, 2)]
    assert (tr, ir) == ([True, False, True], [True, True, True])
    assert len(nearest(similarity, 2)[0]) == 6 and len(nearest(similarity, 9)[0]) == 6


def test_rank_is_the_number_of_wrong_texts_above() -> None:
    found = every_pair([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]], [0, 0, 1])
    assert rank_list(found, "TR") == [0, 2]
    assert rank_list(found, "IR") == [1, 0, 1]


@pytest.mark.parametrize(("score", "rank"), [(0.4999, 0), (0.5, 1), (0.5001, 1)])
def test_a_tie_with_a_wrong_text_is_lost(score: float, rank: int) -> None:
    assert rank_list(every_pair([[0.5, score]], [0, 1]), "TR") == [rank]


def test_a_match_that_is_no_candidate_has_no_rank() -> None:
    found = every_pair([[0.9, 0.1], [0.2, 0.3]], [0, 1])
    tr, ir = np.array([False, True, True, True]), np.array([True, True, True, False])
    left_out = Candidates(found.image, found.text, found.score, found.match, tr, ir)
    assert rank_list(left_out, "TR") == [BEYOND, 0]
    assert rank_list(left_out, "IR") == [0, BEYOND]


@pytest.mark.parametrize(("wrong", "first"), [(0.4999, 0), (0.5, 1), (0.5001, 1)])
def test_the_first_text_agrees_with_the_rank(wrong: float, first: int) -> None:
    found = every_pair([[0.5, wrong, 0.2]], [0, 1, 0])
    (places,) = ranked(found)
    assert found.text[places[0]] == first
    assert bool(found.match[places[0]]) == (rank_list(found, "TR") == [0])


def test_texts_of_each_image_are_ordered_by_score() -> None:
    found = every_pair([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1], [0.7, 0.8, 0.9]], [0, 0, 2])
    assert [places.tolist() for places in ranked(found)] == [[1, 2, 0], [3, 4, 5], [8, 7, 6]]


def test_only_candidates_of_an_image_are_ranked() -> None:
    found = every_pair([[0.1, 0.9], [0.3, 0.2]], [1, 0])
    left_out = Candidates(
        found.image, found.text, found.score, found.match, np.array([True, False, True, True]), found.ir
    )
    assert [places.tolist() for places in ranked(left_out)] == [[0], [2, 3]]


def test_lines_are_read_again() -> None:
    found = every_pair([[0.25, 0.5], [0.75, 1.0]], [0, 1])
    gallery = Gallery(("a.jpg", "b.jpg"), ("x", "y"), (0, 1))
    rows = [json.loads(line) for line in lines(found, gallery)]
    wanted = {"image": 1, "text": 0, "score": 0.75, "label": 0, "tr": 1, "ir": 1, "name": "b.jpg"}
    assert rows[2] == wanted
    again = from_rows(rows, "scores.jsonl")
    for name in ("image", "text", "score", "match", "tr", "ir"):
        assert np.array_equal(getattr(again, name), getattr(found, name))


def candidate(**changes: object) -> dict:
    return {"image": 0, "text": 0, "score": 1.0, "label": 1, "tr": 1, "ir": 1} | changes


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([candidate(), candidate()], "image 0, text 0: scored 2 times"),
        ([candidate(image=1, text=2)] * 3 + [candidate()], "image 1, text 2: scored 3 times"),
        ([candidate(), candidate(text=1, score=float("nan"))], "line 2: score: nan"),
        ([candidate(image="a.jpg")], r"line 1: image: 'a\.jpg' is no whole number"),
        ([{"label": 1, "score": 0.5, "relation": "on"}], "line 1: image: absent"),
        ([candidate(), candidate(text=1, ir=0)], "text 1: ir is 1 in none of its lines"),
        ([candidate(tr=0)], "image 0: tr is 1 in none of its lines"),
        ([], "no scores"),
    ],
)
def test_bad_scores_are_refused(rows: list[dict], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_rows(rows, "scores.jsonl")


def test_pairs_that_differ_in_one_place_are_two() -> None:
    rows = [candidate(image=i, text=t) for i in range(3) for t in range(3)]
    assert len(from_rows(rows, "scores.jsonl").score) == 9


GALLERY = Gallery(("a", "b"), ("x", "y", "z"), (0, 1, 1))


def test_scores_of_the_annotations_pass() -> None:
    check_gallery(every_pair([[1, 2, 3], [4, 5, 6]], [0, 1, 1]), GALLERY, "s")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (every_pair([[1, 2, 3]], [0, 1, 1]), "images: not the 2"),
        (every_pair([[1, 2], [4, 5]], [0, 1]), "texts: not the 3"),
        (every_pair([[1, 2, 3], [4, 5, 6]], [0, 0, 1]), "label: contradicts"),
    ],
)
def test_scores_of_other_annotations_are_refused(found: Candidates, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_gallery(found, GALLERY, "s")


@pytest.mark.parametrize("shift", [1, -1])
def test_places_outside_of_the_gallery_are_refused(shift: int) -> None:
    found = every_pair([[1, 2, 3], [4, 5, 6]], [0, 1, 1])
    moved = Candidates(found.image + shift, found.text, found.score, found.match, found.tr, found.ir)
    with pytest.raises(UserError, match="images: not the 2"):
        check_gallery(moved, GALLERY, "s")
