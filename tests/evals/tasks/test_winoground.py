"""Winoground's three scores, strictly; its tags, its card, its files."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.evaluate import rescore
from relvlm.evals.figures.shares import wilson
from relvlm.evals.tasks import winoground
from relvlm.evals.tasks.registry import titles

WON = {"c0_i0": 0.9, "c0_i1": 0.1, "c1_i0": 0.2, "c1_i1": 0.8}


def rows(identity: str = "0", scores: dict[str, float] = WON, **fields: object) -> list[dict]:
    return [{"label": f"{identity}_{cell}", "score": score, **fields} for cell, score in scores.items()]


@pytest.mark.parametrize(
    ("lower", "upper", "lost"),
    [
        ("c1_i0", "c0_i0", "text"),  # the first image must prefer its caption
        ("c0_i1", "c1_i1", "text"),
        ("c0_i1", "c0_i0", "image"),  # the first caption must prefer its image
        ("c1_i0", "c1_i1", "image"),
    ],
)
def test_a_tie_is_lost_and_a_hair_above_it_is_won(lower: str, upper: str, lost: str) -> None:
    won = {"text": True, "image": True, "group": True}
    scores = {"c0_i0": 1.0, "c0_i1": 0.1, "c1_i0": 0.1, "c1_i1": 1.0} | {upper: 0.9}
    assert winoground.won(scores | {lower: scores[upper] - 1e-9}) == won
    tied = winoground.won(scores | {lower: scores[upper]})
    assert tied == won | {lost: False, "group": False}
    (verdict,) = winoground.verdicts(rows(scores=scores | {lower: scores[upper]}))
    assert not verdict.card.right and not verdict.marks["overall"]


def test_an_example_counts_in_each_score_and_in_those_of_its_tag() -> None:
    scores = {"c0_i0": 0.9, "c0_i1": 0.1, "c1_i0": 0.95, "c1_i1": 0.97}  # text lost, image won
    (found,) = winoground.verdicts(rows("7", scores, collapsed_tag="Object"))
    wanted = {"text": False, "Object/text": False, "image": True, "Object/image": True}
    assert found.marks == wanted | {"group": False, "Object/group": False, "overall": False}
    assert found.unit == "7"
    (untagged,) = winoground.verdicts(rows())
    assert list(untagged.marks) == ["text", "image", "group", "overall"]


def test_a_card_shows_both_images_and_each_caption_with_each() -> None:
    scores = {"c0_i0": 0.9, "c0_i1": 0.1, "c1_i0": 0.95, "c1_i1": 0.97}
    held = rows(scores=scores, collapsed_tag="Both")
    for row in held:
        row |= {"image": f"{row['label'][-2:]}.jpg", "text": row["label"][2:4]}
    card = winoground.verdicts(held)[0].card
    assert card.images == ("i0.jpg", "i1.jpg")
    assert card.lines == (
        ("left:", "c0", 0.9),
        ("right:", "c0", 0.1),
        ("left:", "c1", 0.95),
        ("right:", "c1", 0.97),
    )
    assert (card.piece, card.what, card.right) == ("Both", "text wrong, image right", False)
    turned = dict(zip(scores, (0.9, 0.95, 0.1, 0.97), strict=True))
    assert winoground.verdicts(rows(scores=turned))[0].card.what == "text right, image wrong"


def test_scores_per_tag() -> None:
    quads = [0.9, 0.1, 0.2, 0.8], [0.9, 0.1, 0.95, 0.97], [0.9, 0.92, 0.1, 0.95]
    held = []
    for i, (quad, tag) in enumerate(zip(quads, ("Object", "Object", "Relation"), strict=True)):
        held += rows(str(i), dict(zip(winoground.CELLS, quad, strict=True)), collapsed_tag=tag)
    found = winoground.TASK.metrics(held)
    assert found["Object"] == {"text": 50, "image": 100, "group": 50, "n": 2}
    assert found["Relation"] == {"text": 100, "image": 0, "group": 0, "n": 1}
    assert found["overall"] == found["group"] == pytest.approx(100 / 3)
    assert found["interval95"] == list(wilson(1, 3))
    assert found["n"] == 3


def test_chance_is_that_of_four_random_scores() -> None:
    found = winoground.TASK.metrics(rows())
    assert found["chance"] == {"text": 25, "image": 25, "group": pytest.approx(16.6667, abs=1e-3)}
    (cell,) = winoground.TASK.cells(found).values()
    assert (cell.value, cell.chance, cell.n, cell.figure) == (100, found["chance"]["group"], 1, "overall")


def test_its_column_is_the_group_score() -> None:
    (column,) = winoground.TASK.columns
    assert (column.title, column.axis, column.over_steps) == ("Winoground group", "fine", True)


def written(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


EXAMPLE = {"caption_0": "a", "caption_1": "b", "image_0": "i", "image_1": "j"}


def test_an_example_is_four_pairs(tmp_path: Path) -> None:
    found = winoground.load(written(tmp_path / "examples.jsonl", [{"id": 3, **EXAMPLE}])).pairs
    assert [(p.text, p.image, p.row["label"]) for p in found] == [
        ("a", "i", "3_c0_i0"),
        ("a", "j", "3_c0_i1"),
        ("b", "i", "3_c1_i0"),
        ("b", "j", "3_c1_i1"),
    ]


def test_tags_come_from_the_annotations(tmp_path: Path) -> None:
    tagged = [{"id": i, **EXAMPLE, "collapsed_tag": tag} for i, tag in enumerate(("Object", "Both"))]
    lines = [{"label": f"{i}_{cell}", "score": 0.5} for i in range(2) for cell in winoground.CELLS]
    scores = written(tmp_path / "scores.jsonl", lines)
    found = rescore("winoground", scores, written(tmp_path / "examples.jsonl", tagged))
    assert (found["Object"]["n"], found["Both"]["n"], found["n_pairs"]) == (1, 1, 8)
    assert "Object" not in rescore("winoground", scores)


def test_ids_are_unique_and_the_file_is_one(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", [{"id": 3, **EXAMPLE}] * 2)
    with pytest.raises(UserError, match="id: not unique"):
        winoground.load(tmp_path)
    written(tmp_path / "b.jsonl", [{"id": 3, **EXAMPLE}])
    assert len(winoground.load(tmp_path / "b.jsonl").examples) == 1
    with pytest.raises(UserError, match="2 files"):
        winoground.load(tmp_path)


def test_all_four_scores_are_needed() -> None:
    with pytest.raises(UserError, match="0_c1_i1: absent"):
        winoground.verdicts(rows()[:3])
    with pytest.raises(UserError, match="another task"):
        winoground.verdicts([{"label": "0_c", "score": 0.5}])


def test_it_stands_between_sugarcrepe_and_aro() -> None:
    place = titles().index("Winoground group")
    assert titles()[place - 1 : place + 2] == ["SugarCrepe", "Winoground group", "ARO"]


def test_an_id_may_have_lines_in_it(tmp_path: Path) -> None:
    path = written(tmp_path / "examples.jsonl", [{"id": "a_1_c0_i0", **EXAMPLE}])
    found = winoground.verdicts([{**p.row, "score": 0.5} for p in winoground.load(path).pairs])
    assert [v.unit for v in found] == ["a_1_c0_i0"]


@pytest.mark.parametrize("label", ["c0_i0", "_c0_i0", "3c0_i0", "3_c0_i2"])
def test_a_label_without_an_id_is_refused(label: str) -> None:
    with pytest.raises(UserError, match="is no <id>_c0_i0"):
        winoground.verdicts([{"label": label, "score": 0.5}])


def test_a_tag_is_not_called_like_a_figure(tmp_path: Path) -> None:
    path = written(tmp_path / "examples.jsonl", [{"id": 3, **EXAMPLE, "collapsed_tag": "overall"}])
    with pytest.raises(UserError, match=r"row 0: collapsed_tag: 'overall' is the name of a figure"):
        winoground.load(path)
