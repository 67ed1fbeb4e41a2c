"""Folders of results: found by task, read again, made into a model's line."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.figures.outcomes import save, tabulate
from relvlm.evals.results import cards_of, model_rows, outcomes_of, read_results, result_files, table_lines

SUGAR = [{"label": f"{i}_{e}", "piece": "swap_obj", "score": 0.5 + 0.1 * (e == "cn"[i])} for i in (0, 1) for e in "cn"]
RECALLS = {f"{way}@{r}": 40.0 for way in ("TR", "IR") for r in (1, 5)}
COCO = {
    "task": "coco",
    "n_images": 3,
    "n_texts": 15,
    "chance": RECALLS,
    "intervals95": {name: [30, 50] for name in RECALLS},
    **RECALLS,
}
SVO = {"task": "svo", "overall": 60.0, "interval95": [50, 70], "n": 4, "chance": 50.0}


def folder(path: Path, figures: dict, rows: list[dict] = SUGAR) -> Path:
    path.mkdir(parents=True)
    (path / "metrics.json").write_text(json.dumps(figures))
    (path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_results_are_found_by_task_and_a_dev_split_apart(tmp_path: Path) -> None:
    folder(tmp_path / "x/coco", COCO | {"split": "test"})
    folder(tmp_path / "y", COCO | {"split": "val"})
    found = result_files(tmp_path)
    assert found == {"coco": tmp_path / "x/coco/metrics.json", "coco_dev": tmp_path / "y/metrics.json"}
    assert read_results(tmp_path)["coco_dev"]["split"] == "val"
    assert result_files(tmp_path / "none") == {}


def test_two_results_of_one_task_are_refused(tmp_path: Path) -> None:
    folder(tmp_path / "a", SVO)
    folder(tmp_path / "b", SVO)
    with pytest.raises(UserError, match=r"b/metrics\.json: a second metrics\.json of svo"):
        result_files(tmp_path)


def test_outcomes_are_those_that_were_saved_else_those_of_the_scores(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", {"task": "sugarcrepe"})
    assert outcomes_of(path).right[:, 0].tolist() == [1, 0]
    save(tabulate([("x", {"overall": (1.0, 1.0)})], {}), path / "outcomes.npz")
    assert outcomes_of(path).units == ("x",)


def test_cards_are_those_of_the_scores(tmp_path: Path) -> None:
    cards = cards_of(folder(tmp_path / "a", {"task": "sugarcrepe"}))
    assert [(card.right, card.piece) for card in cards] == [(True, "swap_obj"), (False, "swap_obj")]


def test_a_models_cells_are_those_of_its_tasks() -> None:
    results = {"svo": SVO, "coco": COCO, "coco_dev": COCO | {"split": "val"}}
    cells = model_rows("A", results).cells
    assert {title: cell.task for title, cell in cells.items()} == {
        "SVO": "svo",
        "COCO TR@1": "coco",
        "COCO IR@1": "coco",
        "COCO dev TR@1": "coco_dev",
        "COCO dev IR@1": "coco_dev",
    }
    head = table_lines(model_rows("A", results))[0]
    assert head == ["", "SVO", "COCO TR@1", "COCO IR@1", "COCO dev TR@1", "COCO dev IR@1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected one object"),
        ("{}", "task: absent"),
        ('{"task": 3}', "task: absent"),
        ('{"task": "vqa"}', "'vqa' is none of"),
        ('{"task": "svo", "protocol": 3}', "protocol: expected an object"),
        ("", "not JSON"),
    ],
)
def test_another_programs_metrics_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "metrics.json").write_text(content)
    for read in (result_files, read_results):
        with pytest.raises(UserError, match=message):
            read(tmp_path)


@pytest.mark.parametrize("field", ["overall", "interval95", "n", "chance"])
def test_metrics_that_lack_a_figure_are_refused(field: str) -> None:
    with pytest.raises(UserError, match=f"A: metrics.json of svo: '{field}': absent"):
        model_rows("A", {"svo": {name: value for name, value in SVO.items() if name != field}})


def test_results_of_two_models_are_refused(tmp_path: Path) -> None:
    for task, model in (("svo", "x"), ("coco", "x"), ("valse", "y")):
        folder(tmp_path / task, {"task": task, "protocol": {"model": model}})
    with pytest.raises(UserError, match=r"valse/metrics\.json: not of the model of .*svo/metrics\.json"):
        result_files(tmp_path)
    folder(tmp_path / "old/sugarcrepe", {"task": "sugarcrepe"})
    assert list(result_files(tmp_path / "old")) == ["sugarcrepe"]


def test_outcomes_of_other_figures_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", {"task": "sugarcrepe", "outcomes_sha256": "0"})
    save(tabulate([("x", {"overall": (1.0, 1.0)})], {}), path / "outcomes.npz")
    with pytest.raises(UserError, match=r"outcomes\.npz: not of the metrics\.json beside it"):
        outcomes_of(path)
    (path / "outcomes.npz").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"outcomes\.npz: not readable"):
        outcomes_of(path)
