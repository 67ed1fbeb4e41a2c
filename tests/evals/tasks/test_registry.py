"""All benchmarks, and the columns of the main table in their order."""

import json
from pathlib import Path

import pytest
from support.official_files import COCO_CC_SLICES, linked

from relvlm.errors import UserError
from relvlm.evals.evaluate import rescore
from relvlm.evals.tasks.registry import TASKS, columns, task_named, titles

RECALLS = ("TR@1", "TR@5", "IR@1", "IR@5")


def test_columns_are_those_of_the_papers_table_2_then_ours_then_dev_then_calibrated() -> None:
    vsr = ["VSR", "VSR dev", "VSR test"]
    paragraphs, flickr = ([f"{name} {r}" for r in RECALLS] for name in ("Paragraphs", "Flickr30K"))
    coco = ["COCO TR@1", "COCO IR@1"]
    dev = [title.replace(" ", " dev ") for title in (*paragraphs, *flickr, *coco)]
    quads = [f"{name} group" for name in ("Winoground", "ColorSwap")] + ["COLA", "VisMin group"]
    ours = ["SugarCrepe", "SugarCrepe++", "What'sUp", *quads, "ARO", "VL-CheckList", "NegBench", "RefCOCO", "Choice"]
    main = [*vsr, "VALSE", "SVO", *paragraphs, *flickr, *coco, *ours]
    assert titles() == [*main, *dev, *(f"{title}, calibrated" for title in vsr)]


def test_titles_are_unique_and_names_are_the_tasks_own() -> None:
    assert len(set(titles())) == len(columns())
    assert all(task.name == name for name, task in TASKS.items())


def test_every_axis_of_the_pareto_front_has_columns() -> None:
    assert [c.title for c in columns() if c.axis == "coarse"] == [
        f"{name} {way}@1" for name in ("Flickr30K", "COCO") for way in ("TR", "IR")
    ]
    quads = ["Winoground group", "ColorSwap group", "COLA", "VisMin group"]
    ours = ["SugarCrepe", "SugarCrepe++", "What'sUp", *quads, "ARO", "VL-CheckList", "NegBench"]
    assert [c.title for c in columns() if c.axis == "fine"] == ["VSR", "VSR dev", "VSR test", "VALSE", "SVO", *ours]


def test_an_unknown_task_is_refused() -> None:
    assert task_named("vsr") is TASKS["vsr"]
    with pytest.raises(UserError, match="'vqa' is none of vsr, valse, svo"):
        task_named("vqa")


@pytest.mark.parametrize(
    ("task", "file"),
    [("vsr", "valse/plurals.json"), ("valse", "sugarcrepe/add_att.json"), ("aro", "sugarcrepe/add_att.json")],
)
def test_a_file_of_another_task_is_refused(shared: Path, task: str, file: str) -> None:
    with pytest.raises(UserError, match=file.rpartition("/")[-1]):
        TASKS[task].load(shared / "data/benchmarks" / file)  # type: ignore[attr-defined]


OTHERS = ["vsr", "svo", "winoground", "sugarcrepe", "aro", "whatsup", "sugarcrepe_pp", "cola", "colorswap", "vismin"]


@pytest.mark.parametrize("task", [*OTHERS, "vl_checklist", "negbench", "refcoco", "choice"])
def test_scores_of_another_task_are_refused(tmp_path: Path, task: str) -> None:
    scores = tmp_path / "scores.jsonl"
    scores.write_text(json.dumps({"label": "0_f", "score": 0.5, "instrument": "plurals"}) + "\n")
    with pytest.raises(UserError, match=r"label: '0_f' .*another task"):
        rescore(task, scores)


def test_a_folder_of_several_benchmarks_gives_each_its_own_files(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared / "data/benchmarks/coco_cc_slices", COCO_CC_SLICES, tmp_path / "slices")

    def found(task: str, field: str) -> set[str]:
        return {pair.row[field] for pair in TASKS[task].load(folder).pairs}  # type: ignore[attr-defined]

    assert found("vsr", "split") == {"random_dev", "random_train", "zeroshot_test", "zeroshot_train"}
    assert found("valse", "instrument") == {"foil-it", "plurals", "relations"}
    assert len(found("sugarcrepe", "piece")) == 7
