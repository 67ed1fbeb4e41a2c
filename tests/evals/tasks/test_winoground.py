"""Winoground's file, tags and column; its rule is tests/evals/tasks/test_quads.py's matter."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.evaluate import rescore
from relvlm.evals.tasks import quads, winoground
from relvlm.evals.tasks.registry import titles


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
    lines = [{"label": f"{i}_{cell}", "score": 0.5} for i in range(2) for cell in quads.CELLS]
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


def test_it_stands_between_whatsup_and_its_kin() -> None:
    place = titles().index("Winoground group")
    assert titles()[place - 1 : place + 2] == ["What'sUp", "Winoground group", "ColorSwap group"]


def test_an_id_may_have_lines_in_it(tmp_path: Path) -> None:
    path = written(tmp_path / "examples.jsonl", [{"id": "a_1_c0_i0", **EXAMPLE}])
    found = quads.verdicts([{**p.row, "score": 0.5} for p in winoground.load(path).pairs])
    assert [v.unit for v in found] == ["a_1_c0_i0"]


def test_a_tag_is_not_called_like_a_figure(tmp_path: Path) -> None:
    path = written(tmp_path / "examples.jsonl", [{"id": 3, **EXAMPLE, "collapsed_tag": "overall"}])
    with pytest.raises(UserError, match=r"row 0: collapsed_tag: 'overall' is the name of a figure"):
        winoground.load(path)
