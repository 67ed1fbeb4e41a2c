"""VL-CheckList: nested folders, the first text of each, aspects and files."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.tasks import vl_checklist

ROW = ["VG_100K/1.jpg", {"POS": ["man riding horse", "unused"], "NEG": ["man eating horse"]}]


def folder(tmp_path: Path) -> Path:
    for name in ("Relation/vg/spatial", "Relation/vg/action", "Attribute/vg/color"):
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([ROW]))
    return tmp_path


def test_files_are_called_by_their_folders_and_the_first_texts_are_scored(tmp_path: Path) -> None:
    examples = vl_checklist.load(folder(tmp_path)).examples
    pieces = [e[0].row["piece"] for e in examples]
    assert pieces == ["Attribute_vg_color", "Relation_vg_action", "Relation_vg_spatial"]
    assert [(p.text, p.image, p.row["label"]) for p in examples[0]] == [
        ("man riding horse", "VG_100K/1.jpg", "0_0"),
        ("man eating horse", "VG_100K/1.jpg", "0_1"),
    ]
    (tmp_path / "linked/Relation").mkdir(parents=True)
    (tmp_path / "linked/Relation/vg").symlink_to(tmp_path / "Relation/vg")
    linked = vl_checklist.load(tmp_path / "linked").examples
    assert [e[0].row["piece"] for e in linked] == ["Relation_vg_action", "Relation_vg_spatial"]
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/action.json").write_text(json.dumps([ROW]))
    assert vl_checklist.load(tmp_path / "flat").pairs[0].row["piece"] == "action"
    assert vl_checklist.load(tmp_path / "flat/action.json").pairs[0].row["piece"] == "action"


@pytest.mark.parametrize(("false", "right"), [(0.4999, True), (0.5, False), (0.5001, False)])
def test_the_true_caption_must_score_strictly_above_the_false_one(false: float, right: bool) -> None:
    held = [{"piece": "Relation_vg_action", "label": f"0_{i}", "score": s} for i, s in enumerate((0.5, false))]
    (found,) = vl_checklist.verdicts(held)
    assert found.marks == dict.fromkeys(("overall", "Relation_vg_action", "by_aspect/Relation"), right)


def test_figures_per_file_and_aspect() -> None:
    wins = {"Relation_vg_action": [1, 0], "Relation_vg_spatial": [1], "Attribute_vg_color": [0], "mine": [1]}
    held = [
        {"piece": piece, "label": f"{n}_{i}", "score": 0.5 + (flag and not i)}
        for piece, flags in wins.items()
        for n, flag in enumerate(flags)
        for i in (0, 1)
    ]
    found = vl_checklist.TASK.metrics(held)
    assert found["by_aspect"] == {"Attribute": 0, "Relation": pytest.approx(200 / 3)}
    assert (found["overall"], found["macro_over_files"], found["chance"]) == (60, 62.5, 50)


@pytest.mark.parametrize(
    "row", [["a.jpg", {"POS": [], "NEG": ["x"]}], ["a.jpg", {"POS": ["x"]}], ["a.jpg", "x"], ["a"]]
)
def test_a_row_of_another_form_is_named(tmp_path: Path, row: object) -> None:
    (tmp_path / "action.json").write_text(json.dumps([ROW, row]))
    with pytest.raises(UserError, match=r"action\.json: \[1\]: "):
        vl_checklist.load(tmp_path)


def test_a_file_is_not_called_like_a_figure(tmp_path: Path) -> None:
    (tmp_path / "overall.json").write_text(json.dumps([ROW]))
    with pytest.raises(UserError, match="'overall' is the name of a figure"):
        vl_checklist.load(tmp_path)
