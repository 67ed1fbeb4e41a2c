"""The protocol of Stanford Paragraphs."""

import json
from pathlib import Path

from relvlm.evals.tasks.paragraphs import TASK


def test_128_candidates_are_scored_and_recalls_at_1_and_5_are_shown() -> None:
    assert (TASK.name, TASK.k, TASK.coarse) == ("paragraphs", 128, False)
    wanted = [f"Paragraphs {way}@{r}" for way in ("TR", "IR") for r in (1, 5)]
    assert [column.title for column in TASK.columns][:4] == wanted


def test_its_file_is_known_by_name(tmp_path: Path) -> None:
    (tmp_path / "paragraphs_v1.json").write_text(json.dumps([{"image_id": 4, "paragraph": "a dog"}]))
    (tmp_path / "val_split.json").write_text("[4]")
    assert TASK.load(tmp_path, "val").texts == ("a dog",)
    assert TASK.splits(tmp_path) == {"val"}
