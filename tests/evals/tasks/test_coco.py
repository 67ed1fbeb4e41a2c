"""COCO's protocol."""

import json
from pathlib import Path

from relvlm.evals.tasks.coco import TASK
from relvlm.evals.tasks.registry import titles


def test_256_candidates_are_scored_and_recalls_at_1_are_shown() -> None:
    assert (TASK.name, TASK.k, TASK.coarse) == ("coco", 256, True)
    assert [column.title for column in TASK.columns][:2] == ["COCO TR@1", "COCO IR@1"]


def test_both_names_of_its_file_are_known(tmp_path: Path) -> None:
    for name in ("dataset_coco.json", "karpathy.json"):
        record = {"filename": "a", "split": "test", "sentences": [{"raw": name}]}
        (tmp_path / name).write_text(json.dumps({"images": [record]}))
        assert TASK.load(tmp_path).texts == (name,)


def test_it_stands_between_flickr30k_and_sugarcrepe() -> None:
    first, last = titles().index("COCO TR@1"), titles().index("COCO IR@1")
    assert (titles()[first - 1], titles()[last + 1]) == ("Flickr30K IR@5", "SugarCrepe")
