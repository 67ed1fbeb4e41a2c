"""Two captions and two images: three scores, strictly; tags, cards, chance."""

import pytest

from relvlm.errors import UserError
from relvlm.evals.figures.shares import wilson
from relvlm.evals.tasks import cola, quads, winoground

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
    assert quads.won(scores | {lower: scores[upper] - 1e-9}) == won
    tied = quads.won(scores | {lower: scores[upper]})
    assert tied == won | {lost: False, "group": False}
    (verdict,) = quads.verdicts(rows(scores=scores | {lower: scores[upper]}))
    assert not verdict.card.right and not verdict.marks["overall"]


def test_an_example_counts_in_each_score_and_in_those_of_its_tag() -> None:
    scores = {"c0_i0": 0.9, "c0_i1": 0.1, "c1_i0": 0.95, "c1_i1": 0.97}  # text lost, image won
    (found,) = quads.verdicts(rows("7", scores, collapsed_tag="Object"))
    wanted = {"text": False, "Object/text": False, "image": True, "Object/image": True}
    assert found.marks == wanted | {"group": False, "Object/group": False, "overall": False}
    assert found.unit == "7"
    (untagged,) = quads.verdicts(rows())
    assert list(untagged.marks) == ["text", "image", "group", "overall"]


def test_a_card_shows_both_images_and_each_caption_with_each() -> None:
    scores = {"c0_i0": 0.9, "c0_i1": 0.1, "c1_i0": 0.95, "c1_i1": 0.97}
    held = rows(scores=scores, collapsed_tag="Both")
    for row in held:
        row |= {"image": f"{row['label'][-2:]}.jpg", "text": row["label"][2:4]}
    card = quads.verdicts(held)[0].card
    assert card.images == ("i0.jpg", "i1.jpg")
    assert card.lines == (
        ("left:", "c0", 0.9),
        ("right:", "c0", 0.1),
        ("left:", "c1", 0.95),
        ("right:", "c1", 0.97),
    )
    assert (card.piece, card.what, card.right) == ("Both", "text wrong, image right", False)
    turned = dict(zip(scores, (0.9, 0.95, 0.1, 0.97), strict=True))
    assert quads.verdicts(rows(scores=turned))[0].card.what == "text right, image wrong"


def test_scores_per_tag() -> None:
    three = [0.9, 0.1, 0.2, 0.8], [0.9, 0.1, 0.95, 0.97], [0.9, 0.92, 0.1, 0.95]
    held = []
    for i, (quad, tag) in enumerate(zip(three, ("Object", "Object", "Relation"), strict=True)):
        held += rows(str(i), dict(zip(quads.CELLS, quad, strict=True)), collapsed_tag=tag)
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


def test_all_four_scores_are_needed() -> None:
    with pytest.raises(UserError, match="0_c1_i1: absent"):
        quads.verdicts(rows()[:3])
    with pytest.raises(UserError, match="another task"):
        quads.verdicts([{"label": "0_c", "score": 0.5}])


@pytest.mark.parametrize("label", ["c0_i0", "_c0_i0", "3c0_i0", "3_c0_i2"])
def test_a_label_without_an_id_is_refused(label: str) -> None:
    with pytest.raises(UserError, match="is no <id>_c0_i0"):
        quads.verdicts([{"label": label, "score": 0.5}])


def test_the_main_score_makes_an_example_right() -> None:
    scores = {"c0_i0": 0.9, "c0_i1": 0.1, "c1_i0": 0.95, "c1_i1": 0.97}  # text lost, image won
    assert not winoground.TASK.verdicts(rows(scores=scores))[0].card.right
    (found,) = cola.TASK.verdicts(rows(scores=scores))
    assert found.card.right and found.marks == {"text": False, "image": True, "group": False, "overall": True}
    (cell,) = cola.TASK.cells(cola.TASK.metrics(rows(scores=scores))).values()
    assert (cell.value, cell.chance) == (100, 25)
    assert cola.TASK.rule.endswith("overall is image")


def test_caption_i_is_that_of_image_i() -> None:
    four = quads.quad("7", ("a", "b"), ("i", "j"), {"collapsed_tag": "x"})
    assert [(p.text, p.image, p.row["label"]) for p in four] == [
        ("a", "i", "7_c0_i0"),
        ("a", "j", "7_c0_i1"),
        ("b", "i", "7_c1_i0"),
        ("b", "j", "7_c1_i1"),
    ]
    assert all(p.row["collapsed_tag"] == "x" for p in four)
