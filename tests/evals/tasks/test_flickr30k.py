"""Flickr30K's protocol."""

import json
from pathlib import Path

from relvlm.evals.tasks.flickr30k import TASK
from relvlm.evals.tasks.registry import titles


def test_128_candidates_are_scored_and_recalls_at_1_and_5_are_shown() -> None:
    assert (TASK.name, TASK.k, TASK.coarse) == ("flickr30k", 128, True)
    assert [column.title for column in TASK.columns][:4] == [
        f"Flickr30K {way}@{r}" for way in ("TR", "IR") for r in (1, 5)
    ]


def test_both_names_of_its_file_are_known(tmp_path: Path) -> None:
    for name in ("dataset_flickr30k.json", "karpathy.json"):
        record = {"filename": "a", "split": "test", "sentences": [{"raw": name}]}
        (tmp_path / name).write_text(json.dumps({"images": [record]}))
        assert TASK.load(tmp_path).texts == (name,)


def test_it_stands_between_paragraphs_and_coco() -> None:
    first, last = titles().index("Flickr30K TR@1"), titles().index("Flickr30K IR@5")
    assert (titles()[first - 1], titles()[last + 1]) == ("Paragraphs IR@5", "COCO TR@1")
