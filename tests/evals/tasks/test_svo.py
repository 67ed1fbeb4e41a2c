"""SVO-Probes' rule, its buckets, its card, its two file formats."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.tasks import svo
from relvlm.evals.tasks.registry import titles

HEADER = "sentence,pos_triplet,neg_triplet,pos_url,neg_url,pos_image_id,neg_image_id,subj_neg,verb_neg,obj_neg"
VERB = {"subj_neg": False, "verb_neg": True, "obj_neg": False}


def rows(i: int, bucket: str, right: float, wrong: float, **fields: object) -> list[dict]:
    flags = {field: name == bucket for name, field in svo.FLAGS.items()}
    scores = zip("pn", (right, wrong), strict=True)
    return [{"label": f"{i}_{ending}", "score": score, **flags, **fields} for ending, score in scores]


@pytest.mark.parametrize(("other", "right"), [(0.6999, True), (0.7, False), (0.7001, False)])
def test_the_right_image_must_score_strictly_above_the_other(other: float, right: bool) -> None:
    (found,) = svo.verdicts(rows(4, "verb", 0.7, other))
    assert found.marks == {"overall": right, "verb": right}
    assert (found.card.right, found.unit) == (right, "4")


def test_a_card_shows_both_images_and_what_differs() -> None:
    first, second = rows(0, "obj", 0.9, 0.1, text="a dog", pos_triplet="a,b,c", neg_triplet="a,b,d")
    (found,) = svo.verdicts([second | {"image": "n.jpg"}, first | {"image": "p.jpg"}])
    card = found.card
    assert (card.images, card.piece, card.what) == (("p.jpg", "n.jpg"), "obj", "left a,b,c, right a,b,d")
    assert card.lines == (("left image:", "a dog", 0.9), ("right image:", "the same text", 0.1))
    assert (card.relation, card.entities) == ("b", ("a", "c"))


@pytest.mark.parametrize("triplet", ["", "a,b", "a,b,c,d"])
def test_a_triplet_that_is_none_names_no_relation(triplet: str) -> None:
    (found,) = svo.verdicts(rows(0, "obj", 0.9, 0.1, pos_triplet=triplet))
    assert (found.card.relation, found.card.entities) == ("", ())


@pytest.mark.parametrize(
    ("subj", "verb", "obj", "name"),
    [(1, 1, 1, "subj"), (1, 0, 0, "subj"), (0, 1, 1, "verb"), (0, 0, 1, "obj")],
)
def test_the_bucket_is_subject_before_verb_before_object(subj: int, verb: int, obj: int, name: str) -> None:
    assert svo.bucket({"subj_neg": subj, "verb_neg": verb, "obj_neg": obj}, "here") == name


@pytest.mark.parametrize(("value", "message"), [(False, "here: none of"), ("maybe", "neither True nor False")])
def test_a_row_without_a_bucket_is_refused(value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        svo.bucket(dict.fromkeys(VERB, value), "here")


def test_micro_average_and_buckets() -> None:
    held = [("subj", 0.9, 0.1), ("verb", 0.9, 0.1), ("verb", 0.2, 0.2), ("obj", 0.1, 0.9)]
    found = svo.TASK.metrics([row for i, each in enumerate(held) for row in rows(i, *each, held_out=i == 0)])
    assert (found["overall"], found["subj"], found["verb"], found["obj"]) == (50, 100, 50, 0)
    assert (found["macro_over_buckets"], found["chance"]) == (50, 50)
    assert found["held_out"]["n"] == 1


def test_csv_and_jsonl_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "svo.csv").write_text(
        f'{HEADER}\nA man runs.,"man,run,road","man,sit,road",u,v,11,12,False,True,False\n'
    )
    row = {"svo_index": 0, "caption": "A man runs.", "pos_image": "11", "neg_image": "12", **VERB}
    triplets = {"pos_triplet": "man,run,road", "neg_triplet": "man,sit,road"}
    (tmp_path / "svo.jsonl").write_text(json.dumps({**row, **triplets}) + "\n")
    official, listed = svo.load(tmp_path / "svo.csv"), svo.load(tmp_path / "svo.jsonl")
    assert official == listed
    assert [(p.image, p.row["label"]) for p in official.pairs] == [("11", "0_p"), ("12", "0_n")]
    assert official.pairs[0].row == {"label": "0_p", **triplets, **VERB}
    with pytest.raises(UserError, match="2 files"):
        svo.load(tmp_path)


def test_svo_index_is_unique_and_named(tmp_path: Path) -> None:
    row = {"svo_index": 44, "caption": "a", "pos_image": "1", "neg_image": "2", **VERB}
    (tmp_path / "svo.jsonl").write_text((json.dumps(row) + "\n") * 2)
    with pytest.raises(UserError, match="svo_index: 44 occurs 2 times"):
        svo.load(tmp_path / "svo.jsonl")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "svo.csv").write_text(HEADER + "\n")
    with pytest.raises(UserError, match="no examples"):
        svo.load(tmp_path / "svo.csv")


def test_a_bad_flag_is_named(tmp_path: Path) -> None:
    (tmp_path / "svo.csv").write_text(f"{HEADER}\na,t,t,u,v,1,2,False,False,False\n")
    with pytest.raises(UserError, match="row 0: none of subj_neg"):
        svo.load(tmp_path / "svo.csv")


def test_scores_without_flags_are_refused() -> None:
    with pytest.raises(UserError, match="subj_neg: absent"):
        svo.verdicts([{"label": "0_p", "score": 0.5}])


def test_it_stands_between_valse_and_paragraphs() -> None:
    place = titles().index("SVO")
    assert titles()[place - 1 : place + 2] == ["VALSE", "SVO", "Paragraphs TR@1"]
