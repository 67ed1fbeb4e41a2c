"""SugarCrepe's rule, its means over files and kinds of edit, its files."""

import json
from pathlib import Path

import pytest
from support.official_files import SUGARCREPE, linked

from relvlm.errors import UserError
from relvlm.evals.tasks import sugarcrepe
from relvlm.evals.tasks.pairs import Pair
from relvlm.evals.tasks.registry import titles


def rows(piece: str, right: float, wrong: float, i: int = 0, **fields: object) -> list[dict]:
    scores = zip("cn", (right, wrong), strict=True)
    return [{"label": f"{i}_{ending}", "piece": piece, "score": score, **fields} for ending, score in scores]


@pytest.mark.parametrize(("negative", "right"), [(0.6999, True), (0.7, False), (0.7001, False)])
def test_a_caption_must_score_strictly_above_its_negative(negative: float, right: bool) -> None:
    (found,) = sugarcrepe.verdicts(rows("swap_obj", 0.7, negative, image="a.jpg"))
    assert found.marks == {"overall": right, "swap_obj": right}
    assert (found.card.right, found.card.piece, found.unit) == (right, "swap_obj", "swap_obj 0")
    assert [(kind, score) for kind, _, score in found.card.lines] == [("caption:", 0.7), ("foil:", negative)]


def test_figures_per_file_and_kind_of_edit() -> None:
    held = [*rows("add_att", 0.9, 0.1), *rows("add_obj", 0.1, 0.9), *rows("swap_obj", 0.5, 0.5)]
    held += rows("swap_obj", 0.9, 0.1, 1, held_out=True)
    found = sugarcrepe.TASK.metrics(held)
    assert (found["add_att"], found["add_obj"], found["swap_obj"]) == (100, 0, 50)
    assert found["macro_by_edit"] == {"add": 50, "swap": 50}
    assert (found["overall"], found["macro_over_files"], found["chance"]) == (50, 50, 50)
    assert found["held_out"]["overall"] == 100


def test_its_derived_figures_name_their_parts() -> None:
    held = [*rows("add_att", 1, 0), *rows("swap_obj", 1, 0), *rows("add_obj", 1, 0)]
    assert sugarcrepe.derived(sugarcrepe.verdicts(held)) == {
        "macro_over_files": ("mean", ("add_att", "swap_obj", "add_obj")),
        "macro_by_edit/add": ("mean", ("add_att", "add_obj")),
        "macro_by_edit/swap": ("mean", ("swap_obj",)),
    }


@pytest.mark.parametrize("listed", [False, True])
def test_an_example_is_two_pairs(tmp_path: Path, listed: bool) -> None:
    record = {"filename": "a.jpg", "caption": "a dog", "negative_caption": "a cat", "held_out": False}
    path = tmp_path / "sugarcrepe_swap_obj.json"
    path.write_text(json.dumps([record] if listed else {"0": record}))
    fields = {"piece": "swap_obj", "held_out": False}
    assert sugarcrepe.load(path).pairs == [
        Pair("a.jpg", "a dog", {"label": "0_c", **fields}),
        Pair("a.jpg", "a cat", {"label": "0_n", **fields}),
    ]


def test_all_seven_files_are_read(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared / "data/benchmarks/sugarcrepe", SUGARCREPE, tmp_path / "sugarcrepe")
    benchmark = sugarcrepe.load(folder)
    assert len(benchmark.examples) == 7511
    assert len({pair.row["piece"] for pair in benchmark.pairs}) == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"7": {"filename": "a"}, "7": {"filename": "a"}}', "7: occurs twice"),
        ('{"7": 1}', "7: expected an object"),
        ('{"7": {"filename": "a"}}', "7: caption: absent"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "add_att.json").write_text(content)
    with pytest.raises(UserError, match=message):
        sugarcrepe.load(tmp_path / "add_att.json")


def test_scores_without_piece_are_refused() -> None:
    with pytest.raises(UserError, match="piece: absent"):
        sugarcrepe.verdicts([{"label": "0_c", "score": 0.5}])


def test_it_stands_between_coco_and_its_successor() -> None:
    place = titles().index("SugarCrepe")
    assert titles()[place - 1 : place + 2] == ["COCO IR@1", "SugarCrepe", "SugarCrepe++"]
