"""ColorSwap's file: Winoground's form, counted from 1."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.tasks import colorswap

EXAMPLE = {"caption_1": "a", "caption_2": "b", "image_1": "images/img_0_1.png", "image_2": "images/img_0_2.png"}


def test_an_example_is_four_pairs(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text(json.dumps([{"id": 0, **EXAMPLE, "image_source": "midjourney"}]))
    assert [(p.text, p.image, p.row) for p in colorswap.load(tmp_path).pairs] == [
        ("a", "images/img_0_1.png", {"label": "0_c0_i0"}),
        ("a", "images/img_0_2.png", {"label": "0_c0_i1"}),
        ("b", "images/img_0_1.png", {"label": "0_c1_i0"}),
        ("b", "images/img_0_2.png", {"label": "0_c1_i1"}),
    ]
    assert colorswap.TASK.rule.endswith("overall is group")


def test_ids_are_unique_and_the_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text(json.dumps([{"id": 0, **EXAMPLE}] * 2))
    with pytest.raises(UserError, match="id: not unique, 0 occurs 2 times"):
        colorswap.load(tmp_path)
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(UserError, match=r"2 files \(give test\.json\)"):
        colorswap.load(tmp_path)
