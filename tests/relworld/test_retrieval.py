"""Paragraphs and the Karpathy file."""

import json
import re
from collections import Counter
from pathlib import Path

from support.worlds import PAIRS


def test_paragraphs_have_splits_and_tell_their_images_apart(folder: Path) -> None:
    rows = json.loads((folder / "paragraphs" / "paragraphs_v1.json").read_text())
    splits = {s: json.loads((folder / "paragraphs" / f"{s}_split.json").read_text()) for s in ("val", "test")}
    assert len(splits["test"]) == PAIRS
    assert len(splits["val"]) == PAIRS // 10
    assert {row["image_id"] for row in rows} == {*splits["val"], *splits["test"]}
    test = [row for row in rows if row["image_id"] in set(splits["test"])]
    contents = [frozenset(re.findall(r"The [^.]* the [^.]*\.", row["paragraph"])) for row in test]
    assert all(contents)
    assert len(set(contents)) == len(contents)


def test_karpathy_file_has_five_sentences_an_image(folder: Path) -> None:
    content = json.loads((folder / "coco" / "karpathy.json").read_text())
    assert Counter(i["split"] for i in content["images"]) == {"val": PAIRS // 10, "test": PAIRS // 5}
    ids = [s["sentid"] for image in content["images"] for s in image["sentences"]]
    assert len(set(ids)) == len(ids) == 5 * len(content["images"])
    assert all(s["raw"] for image in content["images"] for s in image["sentences"])
