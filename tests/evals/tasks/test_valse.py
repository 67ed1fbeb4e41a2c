"""VALSE's rule, its means, its thresholded figures, its card, its files."""

import json
from pathlib import Path

import pytest
from support.official_files import VALSE, linked

from relvlm.errors import UserError
from relvlm.evals.tasks import valse
from relvlm.evals.tasks.pairs import Pair
from relvlm.evals.tasks.registry import titles


def rows(*examples: tuple[str, float, float], **fields: object) -> list[dict]:
    """Two of each (instrument, score of the caption, score of the foil)."""
    return [
        {"label": f"{i}_{ending}", "instrument": name, "score": score, **fields}
        for i, (name, *scores) in enumerate(examples)
        for ending, score in zip("cf", scores, strict=True)
    ]


@pytest.mark.parametrize(("foil", "right"), [(0.6999, True), (0.7, False), (0.7001, False)])
def test_a_caption_must_score_strictly_above_its_foil(foil: float, right: bool) -> None:
    (found,) = valse.verdicts(rows(("counting-hard", 0.7, foil)))
    assert found.marks["overall"] == found.marks["counting-hard"] == found.card.right == right
    assert found.marks["by_piece/counting"] == right
    assert found.unit == "counting-hard 0"


@pytest.mark.parametrize(("score", "caption", "foil"), [(0.5, True, False), (0.4999, False, True)])
def test_one_half_counts_as_true(score: float, caption: bool, foil: bool) -> None:
    (found,) = valse.verdicts(rows(("plurals", score, score)))
    assert (found.marks["p_c"], found.marks["p_f"]) == (caption, foil)


def test_the_average_is_micro() -> None:
    found = valse.TASK.metrics(rows(("existence", 0.9, 0.1), ("plurals", 0.5, 0.5), ("plurals", 0.6, 0.7)))
    assert found["overall"] == pytest.approx(100 / 3) and found["n"] == 3
    assert (found["existence"], found["plurals"], found["macro_over_instruments"]) == (100, 0, 50)
    assert found["counts"] == {"existence": 1, "plurals": 2}
    assert (found["p_c"], found["p_f"]) == (100, pytest.approx(100 / 3))
    assert found["acc_thresholded"] == pytest.approx(200 / 3)
    assert found["min_pc_pf"] == found["p_f"]
    assert found["chance"] == 50


def test_pieces_join_their_instruments() -> None:
    found = valse.TASK.metrics(
        rows(("counting-hard", 0.9, 0.1), ("counting-small-quant", 0.5, 0.5), ("existence", 0.6, 0.1))
    )
    assert found["by_piece"] == {"counting": 50, "existence": 100}
    assert found["macro_over_pieces"] == 75


def test_its_derived_figures_name_their_parts() -> None:
    found = valse.derived(valse.verdicts(rows(("counting-hard", 1, 0), ("plurals", 1, 0))))
    assert found["macro_over_instruments"] == ("mean", ("counting-hard", "plurals"))
    assert found["macro_over_pieces"] == ("mean", ("by_piece/counting", "by_piece/plurality"))


def test_held_out_combinations_have_their_own_figure() -> None:
    held = rows(("plurals", 0.9, 0.1), held_out=True)
    assert valse.TASK.metrics(held)["held_out"]["overall"] == 100
    assert "held_out" not in valse.TASK.metrics(rows(("plurals", 0.9, 0.1)))


def test_a_card_shows_caption_then_foil() -> None:
    caption, foil = rows(("plurals", 0.2, 0.3), image="a.jpg")
    (found,) = valse.verdicts([foil | {"text": "two dogs"}, caption | {"text": "a dog"}])
    assert found.card.lines == (("caption:", "a dog", 0.2), ("foil:", "two dogs", 0.3))
    assert (found.card.images, found.card.piece, found.card.right) == (("a.jpg",), "plurals", False)


def record(agree: int) -> dict:
    return {"image_file": "a.jpg", "caption": "a dog", "foil": "dogs", "mturk": {"caption": agree}}


def test_an_example_is_kept_where_two_of_three_annotators_agree(tmp_path: Path) -> None:
    path = tmp_path / "valse_plurals.json"
    path.write_text(json.dumps({"x": record(1), "y": record(2)}))
    found = valse.load(path)
    fields = {"instrument": "plurals", "piece": "plurality", "id": 1, "key": "y"}
    assert found.examples == (
        (
            Pair("a.jpg", "a dog", {"label": "1_c", "type": "caption", **fields}),
            Pair("a.jpg", "dogs", {"label": "1_f", "type": "foil", **fields}),
        ),
    )
    assert [row["label"] for row in found.dropped] == ["0_c", "0_f"]


def test_ids_run_over_all_files(tmp_path: Path) -> None:
    for name in ("existence", "plurals"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"x": record(3), "y": record(3)}))
    assert [e[0].row["id"] for e in valse.load(tmp_path).examples] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "expected one object"),
        ({"x": 1}, "x: expected an object"),
        ({"x": {"image_file": "a"}}, "x: caption: absent"),
        ({"x": record(3) | {"mturk": {}}}, r"mturk\.caption: absent"),
        ({"x": record(3) | {"mturk": 3}}, r"mturk\.caption: absent"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "plurals.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        valse.load(tmp_path / "plurals.json")


def test_scores_without_instrument_are_refused() -> None:
    with pytest.raises(UserError, match="instrument: absent"):
        valse.verdicts([{"label": "0_c", "score": 0.5}])


def test_the_official_files_have_7702_kept_examples(shared: Path, tmp_path: Path) -> None:
    benchmark = valse.load(linked(shared / "data/benchmarks/valse", VALSE, tmp_path / "valse"))
    assert len(benchmark.examples) == 7702
    assert len(benchmark.dropped) == 2 * (8782 - 7702)


def test_figures_with_a_threshold_are_named_and_the_main_one_is_not() -> None:
    found = valse.TASK.metrics(rows(("plurals", 0.9, 0.1)))
    assert set(valse.TASK.thresholded) == {"p_c", "p_f", "acc_thresholded", "min_pc_pf"} <= set(found)
    (column,) = valse.TASK.columns
    assert (column.title, column.axis) == ("VALSE", "fine")


def test_it_stands_between_vsr_and_svo() -> None:
    place = titles().index("VALSE")
    assert titles()[place - 1 : place + 2] == ["VSR test", "VALSE", "SVO"]
