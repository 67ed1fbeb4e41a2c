"""The protocol of Stanford Paragraphs."""

import json
from pathlib import Path

from relvlm.evals.tasks.paragraphs import TASK
from relvlm.evals.tasks.registry import titles


def test_128_candidates_are_scored_and_recalls_at_1_and_5_are_shown() -> None:
    assert (TASK.name, TASK.k, TASK.coarse) == ("paragraphs", 128, False)
    wanted = [f"Paragraphs {way}@{r}" for way in ("TR", "IR") for r in (1, 5)]
    assert [column.title for column in TASK.columns][:4] == wanted


def test_its_file_is_known_by_name(tmp_path: Path) -> None:
    (tmp_path / "paragraphs_v1.json").write_text(json.dumps([{"image_id": 4, "paragraph": "a dog"}]))
    (tmp_path / "val_split.json").write_text("[4]")
    assert TASK.load(tmp_path, "val").texts == ("a dog",)
    assert TASK.splits(tmp_path) == {"val"}


def test_it_stands_between_svo_and_flickr30k() -> None:
    first, last = titles().index("Paragraphs TR@1"), titles().index("Paragraphs IR@5")
    assert (titles()[first - 1], titles()[last + 1]) == ("SVO", "Flickr30K TR@1")
