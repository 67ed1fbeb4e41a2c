"""NegBench: four captions or two, the correct one's place and type, CSV tables."""

from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.tasks import negbench

HEADER = "image_path,correct_answer,caption_0,caption_1,caption_2,caption_3,correct_answer_template"


def table(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_four_captions_and_two(tmp_path: Path) -> None:
    table(tmp_path / "COCO_val_mcq_llama3.1_rephrased.csv", "a.jpg,2,w,x,y,z,hybrid")
    table(tmp_path / "binary.csv", "b.jpg,1,x,y", header="image_path,correct_answer,caption_0,caption_1")
    first, second = negbench.load(tmp_path).examples
    assert [p.row["piece"] for p in (first[0], second[0])] == ["COCO_val_mcq_llama3.1_rephrased", "binary"]
    assert [p.text for p in first] == ["w", "x", "y", "z"]
    assert (len(second), second[0].row) == (2, {"label": "0_0", "piece": "binary", "answer": 1})
    assert first[0].row["type"] == "hybrid"
    held = [{**p.row, "score": float(p.text == "y")} for e in (first, second) for p in e]
    found = negbench.TASK.metrics(held)
    assert (found["overall"], found["by_type"], found["chance"]) == (100, {"hybrid": 100}, 37.5)


def test_figures_per_type_and_file(tmp_path: Path) -> None:
    lines = ["a.jpg,0,t,x,y,z,positive", "a.jpg,0,t,x,y,z,negative", "a.jpg,0,x,t,y,z,negative"]
    held = [{**p.row, "score": float(p.text == "t")} for p in negbench.load(table(tmp_path / "mcq.csv", *lines)).pairs]
    found = negbench.TASK.metrics(held)
    assert found["by_type"] == {"negative": 50, "positive": 100}
    assert (found["overall"], found["macro_over_files"], found["chance"]) == (pytest.approx(200 / 3),) * 2 + (25,)


@pytest.mark.parametrize("answer", ["4", "-1", "", "one", "1.5"])
def test_an_answer_is_a_place(tmp_path: Path, answer: str) -> None:
    path = table(tmp_path / "mcq.csv", f"a.jpg,{answer},w,x,y,z,hybrid")
    with pytest.raises(UserError, match=r"mcq\.csv: row 0: correct_answer: "):
        negbench.load(path)


def test_an_empty_caption_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"row 0: caption_2: is empty"):
        negbench.load(table(tmp_path / "mcq.csv", "a.jpg,0,w,x,,z,hybrid"))
