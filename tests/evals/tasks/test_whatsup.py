"""What'sUp: photos, pairs, sets, the published average; its six files."""

import json
from pathlib import Path
from statistics import fmean

import pytest
import torch
from PIL import Image

from relvlm.errors import UserError
from relvlm.evals.evaluate import evaluate, rescore
from relvlm.evals.figures.shares import wilson
from relvlm.evals.scoring.scorer import Scorer
from relvlm.evals.tasks import verdict, whatsup
from relvlm.evals.tasks.registry import titles

RELATIONS = {"A": ("left", "right", "on", "under"), "B": ("left", "right", "in-front", "behind")}


def photo(piece: str, number: int, won: bool, options: int = 4, **fields: object) -> list[dict]:
    return [
        {"piece": piece, "label": f"{number:02}_{i}", "score": 0.5 + (won and i == 0) / 4, **fields}
        for i in range(options)
    ]


def a_set(piece: str, wins: str, things: str = "mug cap", start: int = 0) -> list[dict]:
    """Four photos of a set; `wins` has a 1 for each that is right."""
    held = []
    for n, (relation, flag) in enumerate(zip(RELATIONS[piece], wins, strict=True)):
        held += photo(piece, start + n, flag == "1", set=things, relation=relation)
    return held


@pytest.mark.parametrize("piece", ["A", "B"])
@pytest.mark.parametrize(
    ("wins", "pairs", "sets"),
    [("1111", 100, 100), ("1110", 50, 0), ("1100", 50, 0), ("0011", 50, 0), ("1010", 0, 0), ("0110", 0, 0)],
)
def test_a_pair_needs_both_photos_and_a_set_all_four(piece: str, wins: str, pairs: float, sets: float) -> None:
    found = whatsup.TASK.metrics(a_set(piece, wins))
    assert found[piece] == 100 * wins.count("1") / 4
    assert (found["pairs"], found["sets"]) == ({piece: pairs}, {piece: sets})
    assert found["counts"] == {piece: 4, f"pairs/{piece}": 2, f"sets/{piece}": 1}


def test_a_pair_of_which_a_photo_is_absent_is_not_counted() -> None:
    found = whatsup.TASK.metrics(a_set("A", "1111")[4:])  # without the left one
    assert (found["A"], found["pairs"], found["sets"]) == (100, {"A": 100}, {})
    assert found["counts"] == {"A": 3, "pairs/A": 1}
    three = whatsup.TASK.metrics(a_set("A", "1111")[:12])  # without the last one
    assert (three["pairs"], three["sets"]) == ({"A": 100}, {})
    alone = whatsup.TASK.metrics(a_set("A", "1111")[:4])
    assert (alone["pairs"], alone["sets"]) == ({}, {})


def test_sets_of_other_things_are_apart() -> None:
    held = a_set("A", "1111") + a_set("A", "0000", "cup cap", 4)
    found = whatsup.TASK.metrics(held)
    assert (found["A"], found["pairs"]["A"], found["sets"]["A"], found["counts"]["pairs/A"]) == (50, 50, 50, 4)


def test_a_tie_is_lost() -> None:
    tied = [{**row, "score": 0.5} for row in photo("coco_one", 0, True, 2)]
    assert whatsup.TASK.metrics(tied)["overall"] == 0
    assert whatsup.TASK.metrics(photo("coco_one", 0, True, 2))["overall"] == 100


def test_the_average_is_over_files_whatever_their_size() -> None:
    held = a_set("A", "1000") + photo("coco_one", 0, True, 2) + photo("gqa_two", 0, False, 2)
    found = whatsup.TASK.metrics(held)
    assert found["overall"] == pytest.approx((25 + 100 + 0) / 3)
    assert (found["micro"], found["n"]) == (pytest.approx(100 / 3), 6)
    assert "interval95" not in found and found["interval95_micro"] == list(wilson(2, 6))
    assert found["chance"] == pytest.approx((25 + 50 + 50) / 3)
    wanted = {"A": 25, "coco_one": 50, "gqa_two": 50, "pairs/A": 6.25, "sets/A": 0.390625}
    assert found["chances"] == pytest.approx(wanted)
    assert found["chances"]["pairs/A"] == pytest.approx(6.3, abs=0.06)  # as published
    outcomes = verdict.outcomes(whatsup.verdicts(held), whatsup.derived(whatsup.verdicts(held)))
    assert outcomes.figures()["overall"][0] == pytest.approx(found["overall"])
    (cell,) = whatsup.TASK.cells(found).values()
    assert (cell.value, cell.interval, cell.n, cell.figure) == (found["overall"], None, 6, "overall")


def test_an_average_to_compare_is_of_all_six_files() -> None:
    held = a_set("A", "1111") + a_set("B", "1100")
    for piece in ("coco_one", "coco_two", "gqa_one"):
        held += photo(piece, 0, True, 2)
    assert "average" not in whatsup.TASK.metrics(held)
    found = whatsup.TASK.metrics(held + photo("gqa_two", 0, False, 2))
    assert found["average"] == found["overall"] == pytest.approx(450 / 6)


def test_published_averages_are_of_this_kind(shared: Path) -> None:
    published = json.loads((shared / "reference/published.json").read_text())["whatsup"]
    rows = [row for row in published.values() if isinstance(row, dict) and "average" in row]
    assert len(rows) == 5
    for row in rows:
        assert fmean([row["A"][0], row["B"][0], *row["COCO"], *row["GQA"]]) == pytest.approx(row["average"], abs=0.06)


def test_the_published_way_is_judged_beside_the_score() -> None:
    held = [
        {**row, "logit_and_cosine": 1.0 - row["score"]} for row in a_set("A", "1100") + photo("coco_one", 0, True, 2)
    ]
    found = whatsup.TASK.metrics(held)
    assert (found["A"], found["coco_one"], found["pairs"]) == (50, 100, {"A": 50})
    other = found["logit_and_cosine"]  # turned round: what was a tie stays lost
    assert (other["A"], other["coco_one"], other["overall"]) == (0, 0, 0)
    assert (other["pairs"], other["sets"]) == ({"A": 0}, {"A": 0})
    without = photo("coco_one", 0, True, 2)[1]
    assert "logit_and_cosine" not in whatsup.TASK.metrics([*held[:-1], without])


def test_the_sum_is_of_the_match_logit_and_the_cosine(tmp_path: Path, model) -> None:
    Image.new("RGB", (32, 32), (200, 30, 30)).save(tmp_path / "7.jpg")
    (tmp_path / "vg_qa_one_obj.json").write_text(json.dumps([[7, "a dog on the left", "a dog on the right"]]))
    found = evaluate(model, model.tokenizer, "whatsup", tmp_path / "vg_qa_one_obj.json", tmp_path, tmp_path / "out")
    held = [json.loads(line) for line in (tmp_path / "out/scores.jsonl").read_text().splitlines()]
    scorer, texts = Scorer(model, model.tokenizer), [row["text"] for row in held]
    logits = scorer.match_logits([tmp_path / "7.jpg"], texts, torch.tensor([0, 0]), torch.tensor([0, 1]))
    cosines = scorer.text_features(texts) @ scorer.image_features([tmp_path / "7.jpg"])[0]
    assert [row["logit_and_cosine"] for row in held] == pytest.approx((logits[:, 1] + cosines).tolist(), abs=1e-6)
    assert [row["score"] for row in held] == pytest.approx(logits.softmax(1)[:, 1].tolist(), abs=1e-6)
    again = rescore("whatsup", tmp_path / "out/scores.jsonl", tmp_path / "vg_qa_one_obj.json")
    assert again == {name: found[name] for name in again} and "logit_and_cosine" in again


def folder(tmp_path: Path) -> Path:
    files = {
        "controlled_images_dataset": [
            {"image_path": "data/controlled_images/mug_left_of_big-cap.jpeg", "caption_options": list("abcd")}
        ],
        "controlled_clevr_dataset": [
            {"image_path": "data/controlled_clevr/mug_in-front_of_cap.jpeg", "caption_options": list("abcd")}
        ],
        "coco_qa_one_obj": [[397133, "a left", "a right"]],
        "vg_qa_two_obj": [["2414605", "x", "y"]],
        "visual_genome_relation": [{"image_path": "of ARO, which lies in the same folder"}],
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_files_are_told_by_their_names_and_photos_named_as_they_lie(tmp_path: Path) -> None:
    examples = whatsup.load(folder(tmp_path)).examples
    assert [(e[0].row["piece"], e[0].image, len(e)) for e in examples] == [
        ("A", "controlled_images/mug_left_of_big-cap.jpeg", 4),
        ("B", "controlled_clevr/mug_in-front_of_cap.jpeg", 4),
        ("coco_one", "000000397133.jpg", 2),
        ("gqa_two", "2414605.jpg", 2),
    ]
    assert examples[0][1].row == {"label": "0_1", "piece": "A", "set": "mug big-cap", "relation": "left"}
    assert examples[1][0].row["relation"] == "in-front"
    assert [p.text for p in examples[2]] == ["a left", "a right"]


def test_names_of_files_may_be_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "COCO_QA_two_obj.json").write_text(json.dumps([[7, "x", "y"]]))
    for place in (tmp_path, tmp_path / "COCO_QA_two_obj.json"):
        assert whatsup.load(place).pairs[0].row["piece"] == "coco_two"


def test_a_file_of_another_name_is_refused_with_the_published_ones(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps([[1, "a", "b"]]))
    with pytest.raises(UserError, match=r"mine\.json: not the name of .*coco_qa_one_obj\.json"):
        whatsup.load(tmp_path / "mine.json")
    with pytest.raises(UserError, match="none of controlled_images_dataset"):
        whatsup.load(tmp_path)


@pytest.mark.parametrize("row", [[1, "a"], [1, "a", "b", "c"], [1.5, "a", "b"], [1, "a", ""], {"a": 1}, [1, "a", 2]])
def test_a_row_of_another_form_is_named(tmp_path: Path, row: object) -> None:
    (tmp_path / "vg_qa_one_obj.json").write_text(json.dumps([[7, "a", "b"], row]))
    with pytest.raises(UserError, match=r"vg_qa_one_obj\.json: \[1\]: "):
        whatsup.load(tmp_path)


def test_it_stands_before_winoground() -> None:
    place = titles().index("What'sUp")
    assert titles()[place - 1 : place + 2] == ["SugarCrepe++", "What'sUp", "Winoground group"]
