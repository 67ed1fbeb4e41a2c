"""COLA: Winoground's image score of the published file, photos by the last part of their address."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.evaluate import rescore
from relvlm.evals.tasks import cola


def test_the_published_file_is_read_whole(shared: Path) -> None:
    found = cola.load(shared / "data/benchmarks/cola/multi_object.json")
    assert len(found.examples) == 210
    first = found.examples[0]
    assert [(p.image, p.row["label"]) for p in first] == [
        ("2390970.jpg", "0_c0_i0"),
        ("2388902.jpg", "0_c0_i1"),
        ("2390970.jpg", "0_c1_i0"),
        ("2388902.jpg", "0_c1_i1"),
    ]
    assert first[0].text == "standing tall long giraffe to the right of brown giraffe"


@pytest.mark.parametrize("model", ["albef_4m", "x-vlm_4m"])
def test_its_rule_is_the_published_image_score_of_winoground(shared: Path, model: str) -> None:
    wanted = json.loads((shared / "reference/expected_metrics.json").read_text())["Winoground"][model]["overall"]
    found = rescore("cola", shared / f"reference/outputs/winoground_{model}.jsonl")
    assert found["overall"] == pytest.approx(wanted["image"], abs=0.01)
    assert found["chance"]["image"] == 25


@pytest.mark.parametrize("row", [["a", "b", "c"], ["a/", "b", "c", "d"], ["..", "b", "c", "d"], ["a", 3, "c", "d"], {}])
def test_a_row_of_another_form_is_named(tmp_path: Path, row: object) -> None:
    (tmp_path / "cola.json").write_text(json.dumps([["a", "b", "c", "d"], row]))
    with pytest.raises(UserError, match=r"cola\.json: \[1\]: "):
        cola.load(tmp_path)


def test_one_file_is_scored(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.json").write_text("[]")
    with pytest.raises(UserError, match="2 files"):
        cola.load(tmp_path)
